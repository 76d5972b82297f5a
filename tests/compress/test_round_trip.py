"""Whatever goes in comes out, at the price that the evaluation says."""

import math

import numpy as np
import pytest
import torch

from unrolled.compress import CompressConfig, compress, compress_file, decompress, decompress_file, read_header
from unrolled.compress.plan import Plan
from unrolled.tokenizer import TOKENIZERS, Tokenizer
from unrolled.tokenizer.byte import ByteTokenizer

TEXT = b"the cat sat on the mat.\nthe dog, too, sat on it \xe2\x80\x94 for a while.\n"
BYTES = ByteTokenizer()


def files(count: int, seed: int) -> list[bytes]:
    """Empty, single, random, constant, repetitive and ordinary ones, of any length up to 400."""
    generator = np.random.default_rng(seed)
    made = [b"", b"\x00", b"\xff", bytes(range(256))]
    while len(made) < count:
        size = int(generator.integers(1, 400))
        kinds = generator.bytes(size), generator.bytes(1) * size, generator.bytes(3) * size, TEXT * 8
        made.append(kinds[len(made) % 4][:size])
    return made


def lanes(count: int, **options: int) -> CompressConfig:
    return CompressConfig.parse({"lanes": count, "lane_tokens": 1, **options})


def train(name: str, text: bytes, **options: object) -> Tokenizer:
    cls = TOKENIZERS[name]
    return cls.train(cls.Config.parse({"name": name, **options}), [text])


@pytest.mark.parametrize("together", [False, True])
def test_any_file_comes_back_from_a_predictor_that_adapts(counting, together):
    predictor = counting(together=together)
    for number, data in enumerate(files(60, 1)):
        config = lanes(1 + number % 9, check_every=1 + number % 50)
        blob = compress(data, predictor, BYTES, config, identity="counts")
        assert decompress(blob, predictor, BYTES, identity="counts") == data
        assert read_header(blob).lanes == max(1, min(len(data), 1 + number % 9))


@pytest.mark.parametrize("cell", ["lstm", "mlstm"])
def test_any_file_comes_back_from_a_model(neural, cell):
    predictor = neural(cell=cell)
    for number, data in enumerate(files(8, 2)):
        blob = compress(data, predictor, BYTES, lanes(1 + number % 9))
        assert decompress(blob, predictor, BYTES) == data


@pytest.mark.parametrize("size", [1 << 17, pytest.param(1 << 20, marks=pytest.mark.slow)])
def test_a_long_text_comes_back(counting, size):
    data = np.random.default_rng(3).choice(np.frombuffer(b"aaaaabbbcd", np.uint8), size).tobytes()
    tokenizer = train("byte", b"abcd", values="seen")
    predictor = counting(tokenizer.vocab_size)
    blob = compress(data, predictor, tokenizer, lanes(128), identity="")
    assert len(blob) < 0.22 * len(data)
    assert decompress(blob, predictor, tokenizer, identity="") == data


@pytest.mark.slow
def test_a_megabyte_comes_back_from_a_model(neural):
    data = np.random.default_rng(1).bytes(1 << 19) + (TEXT * 8000)[: 1 << 19]
    blob = compress(data, neural(), BYTES, lanes(256))
    assert decompress(blob, neural(), BYTES) == data


SIZES = [("counting", 16), *(pytest.param(*case, marks=pytest.mark.slow) for case in (("counting", 1), ("neural", 16)))]


@pytest.mark.parametrize(("kind", "count"), SIZES)
def test_the_size_is_what_the_evaluation_says(neural, counting, kind, count):
    """Within 0.1 %, for at least 50 kB of coded text: code words and checks."""
    data = np.random.default_rng(2).bytes(60_000)
    ids = np.frombuffer(data, np.uint8).astype(np.int64)
    predictor = counting() if kind == "counting" else neural()
    plan = Plan(len(ids), count, 24, 1)
    rows = torch.zeros(count, plan.steps, dtype=torch.int64)
    for step in range(plan.steps):
        rows[: plan.active(step), step] = torch.from_numpy(ids[plan.places(step)])
    nll = predictor.window(predictor.begin(count), rows).nll
    kept = torch.ones_like(nll)
    kept[plan.last :, -1] = 0
    ideal = float((nll.double() * kept).sum()) / math.log(2) / 8
    blob = compress(data, predictor, BYTES, lanes(count), identity="any")
    header = read_header(blob)
    size = 4 * (header.checks + header.words) + 8
    assert size > 50_000
    assert -1e-4 < (size - ideal) / ideal < 1e-3
    assert len(blob) - size < 600


def test_progress_tells_tokens_and_nats(counting):
    data, seen = TEXT * 10, []
    blob = compress(data, counting(), BYTES, lanes(3), lambda *told: seen.append(told), identity="")
    header = read_header(blob)
    done, total, nats = seen[-1]
    assert done == total == len(data)
    assert abs(nats * done / math.log(2) - (32 * header.words + 32)) < 40
    assert [told[0] for told in seen] == sorted(told[0] for told in seen)
    again = []
    decompress(blob, counting(), BYTES, lambda *told: again.append(told), identity="")
    assert again == seen


def test_lanes_hold_at_least_so_many_tokens(counting):
    chosen = []
    for size in (0, 1, 99, 100, 250, 5000):
        config = CompressConfig(lanes=7, lane_tokens=100)
        chosen.append(read_header(compress(bytes(size), counting(), BYTES, config, identity="")).lanes)
    assert chosen == [1, 1, 1, 1, 2, 7]


def test_places_are_contiguous_parts_of_the_text():
    for tokens, count in ((1, 1), (10, 3), (12, 3), (11, 4), (64, 64)):
        plan = Plan(tokens, count, 24, 1)
        lanes_of: list[list[int]] = [[] for _ in range(count)]
        for step in range(plan.steps):
            for lane, place in enumerate(plan.places(step).tolist()):
                lanes_of[lane].append(place)
        assert [place for lane in lanes_of for place in lane] == list(range(tokens))


def test_checks_come_as_often_as_asked(counting):
    sizes = {}
    for every in (1, 16, 100, 1000):
        header = read_header(compress(bytes(400), counting(), BYTES, lanes(4, check_every=every), identity=""))
        sizes[every] = header.checks
    assert sizes == {1: 100, 16: 25, 100: 4, 1000: 0}


@pytest.mark.parametrize(("one", "other"), [(1, 2), (2, 1)])
def test_the_recorded_number_of_threads_is_used_and_put_back(neural, one, other):
    used: list[int] = []

    def watch(*_: object) -> None:
        used.append(torch.get_num_threads())

    predictor, data = neural(width=96), TEXT
    torch.set_num_threads(one)
    blob = compress(data, predictor, BYTES, lanes(4))
    assert read_header(blob).threads == one
    torch.set_num_threads(other)
    assert decompress(blob, predictor, BYTES, watch) == data
    assert set(used) == {one}
    assert torch.get_num_threads() == other


@pytest.mark.parametrize("name", ["char", "word", "bpe"])
def test_text_comes_back_with_other_tokenizers(counting, name, monkeypatch):
    monkeypatch.setattr("unrolled.compress.texts._BLOCK", 5)
    tokenizer = train(name, TEXT * 3, **({"size": 300} if name == "bpe" else {"min_count": 1}))
    predictor = counting(tokenizer.vocab_size)
    for data in (b"", TEXT, TEXT * 5, TEXT[:-1], "the mat — too".encode() if name != "word" else b"the cat"):
        blob = compress(data, predictor, tokenizer, lanes(3), identity="")
        assert decompress(blob, predictor, tokenizer, identity="") == data


def test_files(tmp_path, counting):
    source, packed, back = tmp_path / "a.txt", tmp_path / "a.packed", tmp_path / "b.txt"
    source.write_bytes(TEXT * 30)
    sizes = compress_file(source, packed, counting(), BYTES, identity="")
    assert sizes == (len(TEXT) * 30, packed.stat().st_size, len(TEXT) * 30)
    assert decompress_file(packed, back, counting(), BYTES, identity="") == sizes
    assert back.read_bytes() == source.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["a.packed", "a.txt", "b.txt"]
