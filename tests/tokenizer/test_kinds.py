"""What each kind of tokenizer does by itself."""

from pathlib import Path

import pytest

from tokenizer.trained import TRAIN, tokenizer, trained
from unrolled.core.errors import UsageError
from unrolled.core.files import write_json
from unrolled.data import CorpusConfig, Units, open_corpus
from unrolled.tokenizer import TOKENIZERS, load_tokenizer, save_tokenizer
from unrolled.tokenizer.encode import encode_corpus, load_or_train_tokenizer


def test_start_symbols():
    assert tokenizer("word").token(tokenizer("word").start_id) == "<eos>"
    assert tokenizer("bpe").token(tokenizer("bpe").start_id) == "<eos>"
    assert tokenizer("byte").start_id == 10
    assert tokenizer("char").token(tokenizer("char").start_id) == "\\n"
    assert trained({"name": "char"}, [b"ab c"]).start_id == 0
    assert trained({"name": "char"}, [b"!b c"]).token(trained({"name": "char"}, [b"!b c"]).start_id) == " "
    assert trained({"name": "char"}, [b"abc"]).start_id == 0


def test_words_are_divided_by_blanks_of_ascii_and_lines_end_with_one_symbol():
    text = " a b\n\n  a\tc a\u00a0b "
    tok = trained({"name": "word", "min_count": 1}, [text.encode()])
    names = [tok.token(index) for index in tok.encode(text, end=True)]
    assert names == ["a", "b", "<eos>", "<eos>", "a", "c", "a\u00a0b", "<eos>"]


def test_word_ids_are_in_order_of_appearance_and_include_no_second_unknown_word():
    tok = trained({"name": "word"}, [b"b a <unk> b\n", b"c b\n"])
    assert [tok.token(i) for i in range(tok.vocab_size)] == ["b", "a", "<unk>", "<eos>", "c"]
    assert tok.decode(tok.encode("b zebra\n")) == "b <unk>\n"


def test_a_tokenizer_of_the_first_format_divides_words_by_the_space_alone(tmp_path: Path):
    tok = trained({"name": "word", "min_count": 1}, [b"a b\n"])
    old = {"kind": "tokenizer", "version": 1, "config": tok.config.model_dump(), "state": {"words": ["a\tb", "<eos>"]}}
    write_json(tmp_path / "old.json", old)
    kept = load_tokenizer(tmp_path / "old.json")
    assert kept.encode("a\tb\n") == [0, 1]
    save_tokenizer(kept, tmp_path / "again.json")
    assert load_tokenizer(tmp_path / "again.json").fingerprint() == kept.fingerprint() != tok.fingerprint()


def test_rare_words_become_unknown_and_keep_their_length():
    tok = trained({"name": "word"}, [b"a b a b rare\n"])
    assert [tok.token(i) for i in range(tok.vocab_size)] == ["a", "b", "<eos>", "<unk>"]
    encoded = tok.encode_exact("a ünknown b\n")
    assert encoded.positions.tolist() == [1]
    assert tok.units_of(encoded) == Units(4, 4, len("a ünknown b\n"), len("a ünknown b\n".encode()))


def test_word_settings_change_the_vocabulary():
    text = [b"a b c c b c d\n"]
    names = lambda tok: [tok.token(i) for i in range(tok.vocab_size)]  # noqa: E731
    assert names(trained({"name": "word", "min_count": 1}, text)) == ["a", "b", "c", "d", "<eos>"]
    assert names(trained({"name": "word", "min_count": 3}, text)) == ["c", "<eos>", "<unk>"]
    assert names(trained({"name": "word", "min_count": 1, "max_size": 4}, text)) == [
        "b",
        "c",
        "<eos>",
        "<unk>",
    ]
    assert names(trained({"name": "word", "order": "frequency"}, text)) == ["c", "b", "<unk>", "<eos>"]
    marks = {"end_word": "</S>", "unk_word": "<UNK>"}
    assert names(trained({"name": "word", **marks}, text)) == ["b", "c", "</S>", "<UNK>"]


def test_the_end_symbol_spelled_out_in_a_text_is_an_unknown_word():
    tok = trained({"name": "word", "min_count": 1}, [b"a <eos> b\n"])
    assert tok.decode(tok.encode("a <eos> b\n")) == "a <unk> b\n"
    assert tokenizer("bpe").end_id not in tokenizer("bpe").encode("a <eos> b\n")


def test_a_pinned_vocabulary_is_taken_as_it_is(tmp_path: Path):
    path = tmp_path / "words.txt"
    path.write_text("<eos>\nb\na\n")
    tok = trained({"name": "word", "vocabulary": str(path)}, [b"never read"])
    assert tok.encode("a b\n") == [2, 1, 0]
    with pytest.raises(UsageError, match="the word 'zebra' is not in the vocabulary"):
        tok.encode("a zebra")
    path.write_text("a\nb\n")
    with pytest.raises(UsageError, match="lacks the end symbol '<eos>'"):
        trained({"name": "word", "vocabulary": str(path)}, [])
    path.write_text("a\na\n<eos>\n")
    with pytest.raises(UsageError, match="holds a word twice"):
        trained({"name": "word", "vocabulary": str(path)}, [])
    path.write_text("a\t12\n<eos>\t3\n")
    with pytest.raises(UsageError, match=r"line 1 of the vocabulary .* holds white space"):
        trained({"name": "word", "vocabulary": str(path)}, [])
    path.write_bytes(b"\xef\xbb\xbfa\r\n<eos>\r\n")
    assert trained({"name": "word", "vocabulary": str(path)}, []).pieces == [b"a", b"\n"]
    with pytest.raises(UsageError, match="cannot read the vocabulary"):
        trained({"name": "word", "vocabulary": str(tmp_path / "none")}, [])


def test_unknown_characters_are_an_error_or_a_symbol():
    strict, open_ = (trained({"name": "char", "unknown": how}, [b"abc\n"]) for how in ("error", "unk"))
    with pytest.raises(UsageError, match=r"'é' \(U\+00E9\) is not in the vocabulary.*unknown=unk"):
        strict.encode("abé")
    assert (strict.vocab_size, open_.vocab_size) == (4, 5)
    assert open_.token(open_.encode("é")[0]) == "<unk>"
    assert open_.units_of(open_.encode_exact("aé")) == Units(2, 1, 2, 3)
    assert trained({"name": "char", "unknown": "unk", "min_count": 2}, [b"aab"]).vocab_size == 2
    with pytest.raises(UsageError, match="min_count above 1"):
        trained({"name": "char", "min_count": 2}, [b"aab"])


def test_documents_are_closed_as_the_tokenizer_says():
    assert tokenizer("bpe").encode("a\n", end=True)[-1] == tokenizer("bpe").end_id
    line = tokenizer("bpe-line")
    assert line.encode("a\n", end=True) == line.encode("a\n")
    assert line.encode("a\n")[-1] == line.end_id
    assert line.encode("a", end=True) == line.encode("a\n")
    assert line.units_of(line.encode_exact("a", end=True))[2:] == (1, 1), "the line end is not in the text"
    assert tokenizer("byte").encode("a", end=True) == [97]
    assert tokenizer("word").encode("", end=True) == []


def test_text_that_is_no_unicode_is_one_sentence():
    with pytest.raises(UsageError, match="not valid Unicode at character 1"):
        tokenizer("byte").encode("a\ud800")


def test_subword_vocabularies_have_the_size_asked_for_and_shorten_text():
    for key, share in (("bpe", 0.7), ("unigram", 0.95)):
        tok = tokenizer(key)
        assert 257 < tok.vocab_size <= 300
        assert len(tok.encode(TRAIN.decode())) < share * len(TRAIN)
    assert tokenizer("bpe").vocab_size == 300


def test_seen_byte_values_have_ids_in_order_and_one_id_serves_the_rest():
    tok = trained({"name": "byte", "values": "seen"}, [b"cab", b"\xc3\xa9\n"])
    assert tok.encode("abc\n") == [1, 2, 3, 0]
    assert tok.vocab_size == 7
    assert tok.encode("é") == [5, 4]
    assert tok.encode("zy") == [6, 6]
    assert tok.decode(tok.encode("abcé\n")) == "abcé\n"


def test_seen_byte_values_are_those_of_the_training_text(tmp_path: Path):
    (tmp_path / "text").mkdir()
    for name, text in (("train", "abab\n" * 40), ("valid", "abz\n" * 40), ("test", "ab\n" * 40)):
        (tmp_path / "text" / f"{name}.txt").write_text(text)
    corpus = open_corpus(CorpusConfig(path=str(tmp_path / "text")))
    tok = load_or_train_tokenizer(TOKENIZERS.parse({"name": "byte", "values": "seen"}), corpus)
    assert tok.vocab_size == 4
    splits = encode_corpus(corpus, tok)
    assert splits["valid"].ids(0, 4).tolist() == [1, 2, 3, 0]
    assert splits["valid"].units(0, 4) == Units(4, 2, 4, 4)
