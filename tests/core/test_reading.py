"""Reading damaged, hostile and odd files: one sentence, and no pipe is opened."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from unrolled.core.config import VersionedConfig
from unrolled.core.errors import UnrolledError
from unrolled.core.files import read_json
from unrolled.core.tree import load_tensors

DAMAGED_JSON: dict[str, bytes] = {
    "nested": b"[" * 100_000,
    "nested and closed": b"[" * 70 + b"]" * 70,
    "nested mappings": b'{"a":' * 70 + b"1" + b"}" * 70,
    "a key twice": b'{"a": 1, "a": 2}',
    "NaN": b"[NaN]",
    "Infinity": b"[-Infinity]",
    "a number out of range": b"[1e999]",
    "a long integer": b"1" * 5000,
    "half a character": rb'["\ud800"]',
    "many values": b"[" + b"[]," * 3_100_000 + b"1]",
}


@pytest.mark.parametrize("name", DAMAGED_JSON)
def test_json_that_is_damaged(name: str, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(DAMAGED_JSON[name])
    with pytest.raises(UnrolledError, match=r"a\.json is not valid JSON: it is damaged or of another program\.$"):
        read_json(file)


def test_json_that_is_as_it_should_be(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(b"[" * 64 + b"]" * 64)
    read_json(file)
    file.write_bytes(rb'["\ud83d\ude00", 1e300, 12345678901234567890]')
    assert read_json(file) == ["\U0001f600", 1e300, 12345678901234567890]


def test_json_that_is_too_large(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(b" " * (1 << 20) + b"1")
    assert read_json(file) == 1
    with pytest.raises(UnrolledError, match="is larger than 1 MB"):
        read_json(file, 1 << 20)


@pytest.mark.parametrize("read", [read_json, load_tensors, VersionedConfig.load], ids=["json", "tensors", "config"])
def test_what_is_no_ordinary_file_is_not_opened(read: Callable[[Path], object], tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, kind in ((pipe, "a pipe or a device"), (Path("/dev/zero"), "a pipe or a device"), (tmp_path, "a folder")):
        with pytest.raises(UnrolledError, match=f"^cannot read .*: it is {kind}, not a file"):
            read(path)
    with pytest.raises(UnrolledError, match="does not exist"):
        read(tmp_path / "none")
    with pytest.raises(UnrolledError, match="is no name of a file"):
        read(tmp_path / "a\0b")
