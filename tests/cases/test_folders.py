"""Folders of texts: everything is used, or a sentence names what is not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import Command

BOOKS = ["Devils", "Emma", "Persuasion", "Strangers on a Train", "Trainspotting", "Validity", "My Tests"]


def lines(name: str, count: int = 40) -> str:
    return "".join(f"line {i:04} of {name:.12s}\n" for i in range(count))


def write(root: str, *names: str) -> None:
    for name in names:
        path = Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(lines(path.stem))


@pytest.fixture
def trained_on(unrolled: Command) -> Callable[..., tuple[int, str]]:
    """Bytes of training text, and what is said."""

    def of(path: str, *arguments: str) -> tuple[int, str]:
        code, out, err = unrolled("train", "--corpus", path, "--dry-run", "--json", *arguments)
        assert code == 0, err
        return json.loads(out)["training_tokens"], err

    return of


def size(*names: str) -> int:
    return sum(len(lines(Path(name).stem)) for name in names)


def test_names_that_only_sound_like_splits(trained_on: Callable[..., tuple[int, str]]) -> None:
    names = [f"{book}.txt" for book in BOOKS]
    write("novels", *names)
    found, err = trained_on("novels")
    assert found == pytest.approx(0.9 * size(*names), abs=40)
    assert "note" not in err


@pytest.mark.parametrize(
    "names",
    [
        ["train.txt", "valid.txt", "test.txt"],
        ["my-train.txt", "my-dev.txt", "my-test.txt"],
        ["wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"],
        ["TRAIN.TXT", "Validation.txt", "Testing.txt"],
        ["train_1.txt", "val_1.txt", "test_1.txt"],
        ["train/a.txt", "valid/a.txt", "test/a.txt"],
        ["en/training.txt", "en/val.txt", "en/test.txt"],
        ["train/test.txt/a.txt", "train/b.txt", "valid/c.txt"][1:],
    ],
)
def test_names_of_splits(names: list[str], trained_on: Callable[..., tuple[int, str]]) -> None:
    write("own", *names)
    found, err = trained_on("own")
    assert found == size(names[0])
    assert "note" not in err


def test_what_stands_beside_splits_is_named(trained_on: Callable[..., tuple[int, str]]) -> None:
    write("own", "train.txt", "valid.txt", "notes.txt", "more.txt")
    found, err = trained_on("own")
    assert found == size("train.txt")
    assert "own: left out 2 of what is there (files are named by split, and these are not): " in err
    assert "own/more.txt, own/notes.txt" in err


def test_one_split_alone_makes_none(trained_on: Callable[..., tuple[int, str]]) -> None:
    write("own", "train.txt", "notes.txt")
    assert trained_on("own")[0] == pytest.approx(0.9 * size("train.txt", "notes.txt"), abs=40)


def test_hidden_files_leavings_and_links(trained_on: Callable[..., tuple[int, str]]) -> None:
    write("own", "a.txt", "b.txt", ".hidden.txt", "a.txt~", "#a.txt#", ".git/x.txt", "sub/c.txt", "x.bak", "y.swp")
    write("elsewhere", "d.txt", "e.txt")
    Path("own/linked").symlink_to(Path("elsewhere").resolve())
    Path("own/file").symlink_to(Path("elsewhere/e.txt").resolve())
    Path("own/nothing").symlink_to("nowhere")
    found, err = trained_on("own")
    assert found == pytest.approx(0.9 * size("a.txt", "b.txt", "sub/c.txt", "e.txt"), abs=40)
    (note,) = (line for line in err.splitlines() if line.startswith("note: "))
    assert note.startswith("note: own: left out 8 of what is there (hidden, or left by an editor, or no file): ")
    for name in (".git", ".hidden.txt", "a.txt~", "#a.txt#", "linked", "nothing", "x.bak", "y.swp"):
        assert name in note


def test_a_link_to_a_folder_and_to_a_file(trained_on: Callable[..., tuple[int, str]]) -> None:
    write("own", "a.txt", "b.txt")
    Path("link").symlink_to("own")
    Path("a").symlink_to("own/a.txt")
    assert trained_on("link")[0] == pytest.approx(0.9 * size("a.txt", "b.txt"), abs=40)
    assert trained_on("./a")[0] == pytest.approx(0.9 * size("a.txt"), abs=40)


def test_patterns_and_names_with_signs_of_patterns(trained_on: Callable[..., tuple[int, str]]) -> None:
    write("own", "a[1].txt", "b.txt", "c.md")
    assert trained_on("own/*.txt")[0] == pytest.approx(0.9 * size("a[1].txt", "b.txt"), abs=40)
    assert trained_on("own/a[1].txt")[0] == pytest.approx(0.9 * size("a[1].txt"), abs=40)
    write("own [2]", "a.txt", "b.txt")
    assert trained_on("own [2]")[0] == pytest.approx(0.9 * size("a.txt", "b.txt"), abs=40)


def test_a_folder_whose_own_name_is_a_split(trained_on: Callable[..., tuple[int, str]]) -> None:
    """Only what lies below the folder that is named says something."""
    write("train/test", "a.txt", "b.txt")
    assert trained_on("train/test")[0] == pytest.approx(0.9 * size("a.txt", "b.txt"), abs=40)


def test_no_texts(refused: Callable[..., str]) -> None:
    Path("own").mkdir()
    assert "is an empty folder" in refused("train", "--corpus", "own", "--dry-run")
    Path("own/.hidden").write_text("x\n")
    assert "own holds hidden files, leavings of editors and links alone" in refused(
        "train", "--corpus", "own", "--dry-run"
    )
    import os

    os.mkfifo("p")
    assert "is a pipe or device" in refused("train", "--corpus", "p", "--set", "corpus.name=p", "--dry-run")


def test_compressed_and_plain_files_together(trained_on: Callable[..., tuple[int, str]]) -> None:
    import bz2
    import gzip

    write("own", "a.txt")
    Path("own/b").write_bytes(gzip.compress(lines("b").encode()))
    Path("own/c.txt.bz2").write_bytes(bz2.compress(lines("c").encode()))
    assert trained_on("own")[0] == pytest.approx(0.9 * size("a", "b", "c"), abs=40)


def test_a_folder_with_something_else_in_it(unrolled: Command) -> None:
    write("own", "a.txt", "b.txt")
    Path("own/c.docx").write_bytes(b"PK\x03\x04" + bytes(400))
    code, _, err = unrolled("train", "--corpus", "own", "--dry-run")
    assert code == 2
    assert "own/c.docx is a zip archive" in err
