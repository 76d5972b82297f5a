"""What is refused, in which words, and that nothing is written then."""

import json
import struct
import zlib
from pathlib import Path

import pytest
import torch

from unrolled.compress import CompressConfig, compress, compress_file, decompress, decompress_file, read_header
from unrolled.compress.agreement import weights_checksum
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.predict import Prediction
from unrolled.tokenizer import TOKENIZERS, Tokenizer
from unrolled.tokenizer.byte import ByteTokenizer

DATA = b"one two three, one two three; " * 20
BYTES = ByteTokenizer()
SMALL = CompressConfig(lanes=3, lane_tokens=1, check_every=100)


def train(name: str, text: bytes, **options: object) -> Tokenizer:
    cls = TOKENIZERS[name]
    return cls.train(cls.Config.parse({"name": name, **options}), [text])


@pytest.fixture
def blob(neural) -> bytes:
    return compress(DATA, neural(), BYTES, SMALL)


def with_header(blob: bytes, **changes: object) -> bytes:
    """A whole, valid file whose header says something else."""
    length = struct.unpack_from("<I", blob, 10)[0]
    text = zlib.compress(json.dumps({**json.loads(zlib.decompress(blob[18 : 18 + length])), **changes}).encode())
    return blob[:8] + struct.pack("<HII", 1, len(text), zlib.crc32(text)) + text + blob[18 + length :]


def test_every_damaged_byte_is_noticed(blob, neural):
    predictor = neural()
    for place in range(0, len(blob), 7):
        damaged = bytearray(blob)
        damaged[place] ^= 0x10
        with pytest.raises(UnrolledError, match=r"damaged|cut short|newer release|no file that unrolled"):
            decompress(bytes(damaged), predictor, BYTES)


def test_every_cut_is_noticed(blob, neural):
    predictor = neural()
    for length in [*range(30), *range(30, len(blob), 11), len(blob) - 1]:
        with pytest.raises(UnrolledError, match="cut short" if length >= 8 else "no file that unrolled"):
            decompress(blob[:length], predictor, BYTES)
    with pytest.raises(UnrolledError, match="damaged"):
        decompress(blob + b"x", predictor, BYTES)


def test_foreign_and_newer_files(blob, neural):
    with pytest.raises(UnrolledError, match="no file that unrolled compressed"):
        decompress(b"PK\x03\x04 something else entirely", neural(), BYTES)
    newer = blob[:8] + struct.pack("<H", 2) + blob[10:]
    with pytest.raises(UnrolledError, match=r"newer release \(format 2, .* upgrade unrolled"):
        decompress(newer, neural(), BYTES)
    with pytest.raises(UnrolledError, match="damaged"):
        decompress(with_header(blob, lanes=0), neural(), BYTES)
    with pytest.raises(UnrolledError, match="damaged"):
        read_header(with_header(blob, surprise=1))


def test_another_model_tokenizer_or_protocol(blob, neural, counting):
    with pytest.raises(UnrolledError, match=r"another model .* give the model that compressed it"):
        decompress(blob, neural(seed=2), BYTES)
    with pytest.raises(UnrolledError, match="another model"):
        decompress(blob, neural(), BYTES, identity="mine")
    with pytest.raises(UnrolledError, match="another tokenizer"):
        decompress(blob, neural(), train("byte", bytes(range(255)), values="seen"))
    with pytest.raises(UnrolledError, match="from id 10, and this is"):
        decompress(blob, neural(start_id=3), BYTES)
    counted = compress(DATA, counting(), BYTES, SMALL, identity="x")
    with pytest.raises(UnrolledError, match=r"protocol 'counting' .*together.*'counting'"):
        decompress(counted, counting(prior=0.2), BYTES, identity="x")
    with pytest.raises(UnrolledError, match="predicts 200 tokens"):
        decompress(counted, counting(200), BYTES, identity="x")


def test_the_identity_is_given_or_made_of_the_weights(neural, counting):
    predictor = neural()
    name = weights_checksum(predictor.model)
    assert read_header(compress(b"", predictor, BYTES)).model == name
    assert read_header(compress(b"", predictor, BYTES, identity="mine")).model == "mine"
    assert weights_checksum(neural().model) == name
    with torch.no_grad():
        next(predictor.model.parameters()).view(-1)[0] += 1e-6
    assert weights_checksum(predictor.model) != name
    with pytest.raises(UsageError, match="kind 'counting' has no weights"):
        compress(b"", counting(), BYTES)


def test_other_probabilities_are_noticed_by_the_probe(neural, blob):
    predictor = neural()
    head = predictor.model.head
    plain = head.log_prob
    head.log_prob = lambda *args: (lambda got: (got[0] + 1e-6 * torch.randn_like(got[0]), got[1]))(plain(*args))
    with pytest.raises(UnrolledError, match=r"this machine computes other .*no recorded difference.* decompress it"):
        decompress(blob, predictor, BYTES)
    header = read_header(blob)
    older = with_header(blob, arithmetic={**header.arithmetic, "torch": "1.0"})
    with pytest.raises(UnrolledError, match=rf"torch 1\.0 there and {torch.__version__.split('+')[0]}"):
        decompress(older, predictor, BYTES)


def test_another_version_with_an_equal_probe_is_tried(neural, blob):
    header = read_header(blob)
    older = with_header(blob, arithmetic={**header.arithmetic, "torch": "1.0", "cpu": "other"})
    assert decompress(older, neural(), BYTES) == DATA


@pytest.mark.parametrize("step", [40, 150])
def test_what_the_probe_does_not_see_is_noticed_while_decoding(counting, step):
    """From the given step on, one count differs by 1e-4: at the next check, not at the end."""

    class Drifting(counting):  # type: ignore[misc, valid-type]
        def predict(self, state: torch.Tensor) -> Prediction:
            late = state.sum(1, keepdim=True) - self.prior * self.vocab_size >= step
            return super().predict(state + 1e-4 * late * torch.arange(256))

    told: list[int] = []
    blob = compress(DATA, counting(), BYTES, SMALL, identity="x")
    with pytest.raises(UnrolledError, match=r"went wrong on the way, .* nothing was kept"):
        decompress(blob, Drifting(), BYTES, lambda done, *_: told.append(done), identity="x")
    assert len(DATA) not in told
    unchecked = CompressConfig(lanes=3, lane_tokens=1)
    blob = compress(DATA, counting(), BYTES, unchecked, identity="x")
    assert read_header(blob).checks == 0
    with pytest.raises(UnrolledError, match="went wrong on the way"):
        decompress(blob, Drifting(), BYTES, identity="x")


def test_a_wrong_checksum_of_the_text_is_noticed(neural, blob):
    with pytest.raises(UnrolledError, match="went wrong"):
        decompress(with_header(blob, sha256="0" * 64), neural(), BYTES)
    with pytest.raises(UnrolledError, match="went wrong"):
        decompress(with_header(blob, bytes=len(DATA) + 1), neural(), BYTES)


def test_a_byte_that_the_vocabulary_lacks(counting):
    tokenizer = train("byte", b"abc <unk>", values="seen")
    predictor = counting(tokenizer.vocab_size)
    blob = compress(b"abc cab", predictor, tokenizer, identity="")
    assert decompress(blob, predictor, tokenizer, identity="") == b"abc cab"
    with pytest.raises(UsageError, match=r"lacks b'\\x80' \(at byte 3\), .* a model of all 256 bytes"):
        compress(b"abc\x80\x81", predictor, tokenizer, identity="")


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("word", b"the  cat\n", r"would give back b'cat\\n' for b' cat\\n' \(at byte 4\)"),
        ("word", b"the cat \n", "would give back"),
        ("word", b"the bat\n", r"lacks .*bat"),
        ("char", "the cät".encode(), "'ä'.*not in the vocabulary"),
        ("char", b"the \xff", r"not UTF-8 text \(at byte 4\)"),
        ("bpe", b"\x80", "not UTF-8 text"),
    ],
)
def test_text_that_would_not_come_back(counting, name, text, sentence):
    options = {"word": {"min_count": 1}, "bpe": {"size": 260}}.get(name, {})
    tokenizer = train(name, b"the cat sat <unk>\n", **options)
    with pytest.raises(UsageError, match=sentence):
        compress(text, counting(tokenizer.vocab_size), tokenizer, identity="")


def test_a_model_without_finite_probabilities(neural):
    predictor = neural()
    with torch.no_grad():
        next(predictor.model.parameters()).fill_(float("nan"))
    with pytest.raises(UnrolledError, match="no finite probabilities"):
        compress(DATA, predictor, BYTES)


def test_nothing_is_written_on_refusal(tmp_path: Path, neural, blob):
    packed, target = tmp_path / "packed", tmp_path / "target"
    target.write_bytes(b"before")
    for content in (blob[:-1], b"", with_header(blob, sha256="0" * 64)):
        packed.write_bytes(content)
        with pytest.raises(UnrolledError):
            decompress_file(packed, target, neural(), BYTES)
    packed.write_bytes(blob)
    with pytest.raises(UnrolledError, match="another model"):
        decompress_file(packed, target, neural(seed=2), BYTES)
    assert target.read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["packed", "target"]
    with pytest.raises(UsageError, match=r"cannot read .*no such file"):
        compress_file(tmp_path / "none", target, neural(), BYTES)
    with pytest.raises(UsageError, match="would overwrite the file"):
        compress_file(target, target, neural(), BYTES)
    with pytest.raises(UsageError, match="no folder"):
        compress_file(target, tmp_path / "deep" / "x", neural(), BYTES)
