"""A user's own text: files, folders, patterns, compression, cuts and the errors about them."""

import gzip
import lzma
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.data import CorpusConfig, open_corpus, show_corpus
from unrolled.data.reading import BLOCK, Part, read_parts
from unrolled.data.user import cut_parts

LINES = [f"line number {n} of the text\n" for n in range(1000)]
TEXT = "".join(LINES).encode()


def read(corpus, split: str) -> bytes:
    return b"".join(corpus.blocks(split))


def opened(**fields):
    return open_corpus(CorpusConfig(**fields))


def test_one_file_is_cut_at_line_ends_in_the_shares_asked_for(tmp_path: Path):
    path = tmp_path / "my.txt"
    path.write_bytes(TEXT)
    corpus = opened(path=str(path))
    parts = [read(corpus, split) for split in ("train", "valid", "test")]
    assert b"".join(parts) == TEXT
    assert all(part.endswith(b"\n") for part in parts)
    assert [len(part) / len(TEXT) for part in parts] == pytest.approx([0.9, 0.05, 0.05], abs=0.002)
    assert corpus.name == "my.txt"
    assert corpus.default_tokenizer == "byte"
    assert [len(read(opened(path=str(path), fractions=(0.5, 0.5, 0)), "train")) / len(TEXT)] == pytest.approx(
        [0.5], abs=0.002
    )


def test_shares_of_zero_leave_a_split_out_and_an_unknown_split_is_refused(tmp_path: Path):
    (tmp_path / "my.txt").write_bytes(TEXT)
    corpus = opened(path=str(tmp_path / "my.txt"), fractions=(0.9, 0.1, 0))
    assert corpus.splits == ("train", "valid")
    with pytest.raises(UsageError, match="no split 'test'; it has: train, valid"):
        corpus.parts("test")


@pytest.mark.parametrize(("ending", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_compressed_files_read_like_plain_ones(tmp_path: Path, ending: str, pack):
    (tmp_path / "plain.txt").write_bytes(TEXT)
    (tmp_path / f"packed.txt{ending}").write_bytes(pack(TEXT))
    plain, packed = (
        opened(path=str(tmp_path / "plain.txt")),
        opened(path=str(tmp_path / f"packed.txt{ending}")),
    )
    for split in plain.splits:
        assert read(plain, split) == read(packed, split)
        assert plain.checksum(split) == packed.checksum(split)
    assert plain.fingerprint() == packed.fingerprint()


@pytest.mark.parametrize(("ending", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_a_damaged_archive_is_one_sentence(tmp_path: Path, ending: str, pack):
    path = tmp_path / f"broken.txt{ending}"
    path.write_bytes(pack(TEXT)[:-30])
    with pytest.raises(UnrolledError, match=r"broken\.txt.*is damaged"):
        read(opened(path=str(path)), "train")


def test_splits_are_recognised_by_the_names_of_files(tmp_path: Path):
    for name in ("my.train.txt", "validation.txt", "test-a.txt", "test-b.txt", "latest_dev_notes.txt"):
        (tmp_path / name).write_text(f"{name}\n")
    corpus = opened(path=str(tmp_path))
    assert read(corpus, "train") == b"my.train.txt\n"
    assert read(corpus, "valid") == b"latest_dev_notes.txt\nvalidation.txt\n"
    assert read(corpus, "test") == b"test-a.txt\ntest-b.txt\n"


def test_a_folder_without_such_names_is_one_text_in_order_of_name(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_bytes(TEXT)
    (tmp_path / "sub" / "c.txt").write_bytes(b"last\n" * 1000)
    (tmp_path / "a.txt").write_bytes(b"first\n" * 1000)
    (tmp_path / ".hidden").write_bytes(b"no")
    corpus = opened(path=str(tmp_path))
    whole = b"".join(read(corpus, split) for split in corpus.splits)
    assert whole == b"first\n" * 1000 + TEXT + b"last\n" * 1000
    assert read(opened(path=str(tmp_path / "*.txt"), fractions=(1, 0, 0)), "train") == b"first\n" * 1000 + TEXT


def test_explicit_paths_and_documents(tmp_path: Path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "1").write_bytes(b"one")
    (tmp_path / "x" / "2").write_bytes(b"two\n")
    (tmp_path / "y").write_bytes(b"three\n")
    corpus = opened(train=str(tmp_path / "x"), valid=str(tmp_path / "y"), reset="document")
    pieces = list(corpus.pieces("train"))
    assert b"".join(piece.data for piece in pieces) == b"one\ntwo\n", "a missing line end is added between documents"
    assert [piece.data for piece in pieces if piece.begins] == [b"one", b"two\n"]
    assert corpus.documents("train") == 2
    assert corpus.splits == ("train", "valid")


def test_borders_of_documents_change_the_fingerprint_but_not_the_checksum(tmp_path: Path):
    for folder, texts in (("a", ["x\n", "yy\n"]), ("b", ["x\nyy\n"])):
        (tmp_path / folder).mkdir()
        for number, text in enumerate(texts):
            (tmp_path / folder / str(number)).write_text(text)
    one, two = (opened(train=str(tmp_path / folder)) for folder in "ab")
    assert one.checksum("train") == two.checksum("train")
    assert one.fingerprint() != two.fingerprint()


def test_symbols_are_read_as_text(tmp_path: Path):
    (tmp_path / "s").write_bytes(b"t h e _ < u n k >\n a \n ")
    assert read(opened(train=str(tmp_path / "s"), layout="symbols"), "train") == b"the <unk>\na\n"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"path": "{tmp}/none"}, "does not exist; give a text file"),
        ({"path": "{tmp}/empty.txt"}, "is empty"),
        ({"train": "{tmp}/empty.txt"}, "is empty"),
        ({"path": "{tmp}/folder"}, "is an empty folder"),
        ({"path": "{tmp}/short.txt"}, "too short to be cut: its valid part"),
        ({"path": "x", "train": "y"}, "either path or train"),
        ({"valid": "y"}, "give train too"),
        ({"path": "x", "fractions": (0.9, 0.2, 0.1)}, "fractions are shares"),
        ({"name": "ptbb"}, "unknown corpus 'ptbb'.*did you mean 'ptb'"),
        ({"name": "ptb"}, "run: unrolled corpora get ptb"),
        ({"name": "wikitext-103"}, r"put wiki\.train\.tokens, .* into .*wikitext-103"),
        ({"name": "ptb", "path": "{tmp}/folder"}, r"is not in .*folder; put there ptb\.train\.txt"),
    ],
)
def test_errors_say_what_to_do(tmp_path: Path, fields: dict, message: str):
    (tmp_path / "empty.txt").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "short.txt").write_text("one line\n")
    fields = {k: v.replace("{tmp}", str(tmp_path)) if isinstance(v, str) else v for k, v in fields.items()}
    with pytest.raises(UsageError, match=message):
        list(opened(**fields).blocks("train"))


def test_bytes_that_are_not_utf8_are_named_with_file_and_offset(tmp_path: Path):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"a\n" * BLOCK + b"caf\xe9\n")
    corpus = opened(train=str(path))
    assert len(read(corpus, "train")) == path.stat().st_size, "the byte reading takes it"
    with pytest.raises(UsageError, match=rf"latin\.txt is not UTF-8 at byte {2 * BLOCK + 3};.*byte tokenizer"):
        list(corpus.blocks("train", text=True))


@pytest.mark.parametrize("unit", ["word ", "漢字é", "x" * 79 + "\n"])
def test_blocks_never_divide_characters_and_keep_every_byte(tmp_path: Path, unit: str):
    data = (unit * (3 * BLOCK // len(unit.encode()))).encode()
    (tmp_path / "t").write_bytes(data)
    blocks = list(opened(train=str(tmp_path / "t")).blocks("train", text=True))
    assert b"".join(blocks) == data
    for block in blocks:
        block.decode()
    if unit.strip() != "漢字é":
        assert len(blocks) > 1
        assert all(block.endswith((b" ", b"\n")) for block in blocks[:-1])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text("ab é\n", min_size=1, max_size=30).map(str.encode), min_size=1, max_size=5),
    st.floats(0.1, 0.8),
)
def test_cuts_give_back_the_whole_text(texts: list[bytes], share: float):
    parts = [Part(str(n), make=lambda data=data: data) for n, data in enumerate(texts)]
    try:
        splits = cut_parts(parts, (share, 0.1, 0.9 - share), "t")
    except UsageError:
        return
    found = b"".join(chunk for split in splits.values() for part in split for chunk in part.chunks())
    assert found == b"".join(texts)
    for split in splits.values():
        for piece in read_parts(split):
            piece.data.decode()


def test_show_gives_the_first_lines(tmp_path: Path):
    (tmp_path / "t").write_bytes(b"one\n\nthree\xff\nfour")
    config = CorpusConfig(train=str(tmp_path / "t"))
    assert show_corpus(config, "train", 3) == ["one", "", "three�"]
    assert show_corpus(config, "train", 9) == ["one", "", "three�", "four"]


def test_a_pattern_is_found_from_elsewhere_also_below_a_folder_with_brackets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    home = tmp_path / "texts [1]"
    home.mkdir()
    (home / "a.txt").write_bytes(TEXT)
    monkeypatch.chdir(home)
    config = CorpusConfig(path="*.txt").based()
    here = open_corpus(config).checksum("train")
    monkeypatch.chdir(tmp_path)
    assert open_corpus(config).checksum("train") == here
