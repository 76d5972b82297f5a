"""Whole containers (every checksum fits) whose header or text claims what cannot be: one sentence, little memory."""

import json
import os
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from compress.test_refusals import BYTES, DATA, SMALL, with_header
from unrolled.compress import CompressConfig, compress, compress_file, decompress, decompress_file, file_header
from unrolled.compress.plan import most_lanes
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.counts import KneserNeyConfig, estimate_kneser_ney
from unrolled.predict.counts import KneserNeyPredictor


@pytest.fixture
def blob(neural) -> bytes:
    return compress(DATA, neural(), BYTES, SMALL)


HOSTILE: list[dict[str, object]] = [
    {"lanes": 65536},
    {"lanes": 65537},
    {"lanes": 2**63},
    {"lanes": 601, "tokens": 600, "bytes": 600},
    {"lanes": 65536, "tokens": 70_000, "bytes": 70_000, "checks": 2},
    {"tokens": 2**40, "bytes": 2**40, "checks": 2**40 // 3 // 33},
    {"tokens": 2**40, "bytes": 2**40, "check_every": 2**53, "checks": 0},
    {"tokens": 0, "bytes": 0},
    {"tokens": -1},
    {"tokens": 601},
    {"bytes": 2**70},
    {"bits": 1},
    {"bits": 30},
    {"bits": 31},
    {"check_every": 0},
    {"check_every": 2**60},
    {"threads": 0},
    {"threads": 10**9},
    {"start_id": 256},
    {"checks": 2**40},
    {"words": 2**40},
    {"words": 0},
    {"options": {"a": [[[[None]]]]}},
    {"kind": "x" * 10**5},
    {"model": None},
    {"sha256": 3},
    {"arithmetic": []},
]


@pytest.mark.parametrize(
    "changes", HOSTILE, ids=lambda changes: "-".join(f"{k}={str(v)[:12]}" for k, v in changes.items())
)
def test_headers_that_cannot_be(blob: bytes, neural, changes: dict[str, object]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnrolledError) as caught:
        decompress(with_header(blob, **changes), neural(), BYTES)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1500
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


def sealed(header: bytes, blob: bytes) -> bytes:
    """A container with another text as its header."""
    length = struct.unpack_from("<I", blob, 10)[0]
    return blob[:8] + struct.pack("<HII", 1, len(header), zlib.crc32(header)) + header + blob[18 + length :]


def test_headers_that_are_none(blob: bytes, neural) -> None:
    length = struct.unpack_from("<I", blob, 10)[0]
    value = json.loads(zlib.decompress(blob[18 : 18 + length]))
    twice = json.dumps(value)[:-1] + ', "lanes": 1}'
    texts = (b"[" * 10**5, b"{}", b"null", b"\xff", twice.encode(), json.dumps({**value, "bits": 1e999}).encode())
    bomb = zlib.compress(b" " * (200 << 20), 9)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for header in (*(zlib.compress(text) for text in texts), bomb, zlib.compress(texts[1]) + b"more", b"", b"x"):
        with pytest.raises(UnrolledError, match="is damaged"):
            decompress(sealed(header, blob), neural(), BYTES)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize("flips", [7, pytest.param(60, marks=pytest.mark.slow)])
def test_code_words_that_are_wrong(blob: bytes, neural, flips: int) -> None:
    """Flipped words under new checksums: never another text."""
    length = struct.unpack_from("<I", blob, 10)[0]
    header, body = json.loads(zlib.decompress(blob[18 : 18 + length])), blob[18 + length :]
    draw = np.random.default_rng(1)
    for place in draw.integers(0, len(body), flips):
        changed = bytearray(body)
        changed[place] ^= 1 << int(draw.integers(8))
        text = zlib.compress(json.dumps({**header, "crc32": zlib.crc32(changed)}).encode())
        with pytest.raises(UnrolledError, match="went wrong"):
            decompress(blob[:8] + struct.pack("<HII", 1, len(text), zlib.crc32(text)) + text + changed, neural(), BYTES)


@pytest.mark.parametrize("order", [1, 3])
def test_count_models(order: int, tmp_path: Path) -> None:
    ids = np.frombuffer(DATA, np.uint8).astype(np.int64)
    model = estimate_kneser_ney(ids, 256, 10, KneserNeyConfig(order=order))
    (tmp_path / "text").write_bytes(text := DATA[:100] + bytes(range(256)))
    for config in (SMALL, CompressConfig()):
        predictor = KneserNeyPredictor(model)
        compress_file(tmp_path / "text", tmp_path / "packed", predictor, BYTES, config, identity="tables")
        assert file_header(tmp_path / "packed").arithmetic["backend"] is None
        decompress_file(tmp_path / "packed", tmp_path / "back", predictor, BYTES, identity="tables")
        assert (tmp_path / "back").read_bytes() == text


def test_lanes_of_a_large_vocabulary() -> None:
    assert [most_lanes(size) for size in (2, 128, 256, 10_000)] == [65536, 65536, 32768, 1024]


def test_pipes_and_devices(blob: bytes, neural, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for source in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(UsageError, match="it is no file, and may have no end"):
            decompress_file(source, tmp_path / "target", neural(), BYTES)
        with pytest.raises(UnrolledError, match="a pipe or a device"):
            file_header(source)
    with pytest.raises(UsageError, match="it is no file"):
        compress_file("/dev/zero", tmp_path / "target", neural(), BYTES)
    (tmp_path / "packed").write_bytes(blob + b"\0" * (3 << 20))
    assert file_header(tmp_path / "packed").tokens == len(DATA)
