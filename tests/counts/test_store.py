"""Models on disk."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from counts.texts import V, estimate, make_text
from unrolled.core.errors import UnrolledError
from unrolled.core.files import sha256_file
from unrolled.counts import NgramModel, load_ngrams, save_ngrams

TEXT = make_text(400)


@pytest.fixture
def model() -> NgramModel:
    return estimate(TEXT, order=3, prune=(1, 2))


@pytest.fixture
def folder(model: NgramModel, tmp_path: Path) -> Path:
    save_ngrams(model, tmp_path / "kn")
    return tmp_path / "kn"


@pytest.mark.parametrize("order", [1, 2, 5])
def test_round_trip(order: int, tmp_path: Path) -> None:
    model = estimate(TEXT, order=order)
    save_ngrams(model, tmp_path / "kn")
    again = load_ngrams(tmp_path / "kn")
    assert again.config.model_copy(update={"tables_sha256": None}) == model.config
    for one, other in zip(model.tables, again.tables, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
    save_ngrams(again, tmp_path / "again")
    for file in ("ngrams.json", "ngrams.safetensors"):
        assert (tmp_path / "kn" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_writing_again_replaces(folder: Path) -> None:
    save_ngrams(estimate(TEXT, order=2), folder)
    assert load_ngrams(folder).config.order == 2


def test_missing_parts_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UnrolledError, match="does not exist"):
        load_ngrams(tmp_path / "nowhere")
    (folder / "ngrams.safetensors").unlink()
    with pytest.raises(UnrolledError, match="does not exist"):
        load_ngrams(folder)


def test_a_changed_file_is_refused(folder: Path) -> None:
    file = folder / "ngrams.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    with pytest.raises(UnrolledError, match="does not belong to"):
        load_ngrams(folder)


def test_tables_of_another_model_are_refused(folder: Path, tmp_path: Path) -> None:
    save_ngrams(estimate(TEXT, order=2), tmp_path / "other")
    (folder / "ngrams.safetensors").write_bytes((tmp_path / "other" / "ngrams.safetensors").read_bytes())
    with pytest.raises(UnrolledError, match="does not belong to"):
        load_ngrams(folder)


def damage_keys(tensors: dict[str, np.ndarray]) -> None:
    tensors["2.keys"][:2] = tensors["2.keys"][1::-1]


def damage_range(tensors: dict[str, np.ndarray]) -> None:
    tensors["3.keys"][-1] = len(tensors["2.keys"]) * V


def damage_number(tensors: dict[str, np.ndarray]) -> None:
    tensors["1.log_prob"][2] = np.nan


def damage_sign(tensors: dict[str, np.ndarray]) -> None:
    tensors["3.log_prob"][2] = 0.1


def damage_size(tensors: dict[str, np.ndarray]) -> None:
    tensors["2.backoff"] = tensors["2.backoff"][:-1].copy()


def damage_type(tensors: dict[str, np.ndarray]) -> None:
    tensors["1.log_prob"] = tensors["1.log_prob"].astype(np.float32)


def damage_vocabulary(tensors: dict[str, np.ndarray]) -> None:
    for name in ("keys", "log_prob", "backoff"):
        tensors[f"1.{name}"] = tensors[f"1.{name}"][:-1].copy()


def damage_names(tensors: dict[str, np.ndarray]) -> None:
    tensors["4.keys"] = tensors.pop("3.keys")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_keys, "order 2"),
        (damage_range, "order 3"),
        (damage_number, "order 1"),
        (damage_sign, "order 3"),
        (damage_size, "order 2"),
        (damage_type, "order 1"),
        (damage_vocabulary, "order 1"),
        (damage_names, "does not hold the tables"),
    ],
)
def test_unsound_tables_are_refused(folder: Path, damage, message: str) -> None:
    """The checksum agrees: written so by another program."""
    file, config = folder / "ngrams.safetensors", folder / "ngrams.json"
    tensors = load_file(file)
    damage(tensors)
    save_file(tensors, file)
    value = json.loads(config.read_text())
    config.write_text(json.dumps({**value, "tables_sha256": sha256_file(file)}))
    with pytest.raises(UnrolledError, match=message):
        load_ngrams(folder)


def test_a_foreign_config_is_refused(folder: Path) -> None:
    config = folder / "ngrams.json"
    value = json.loads(config.read_text())
    config.write_text(json.dumps({**value, "kind": "run"}))
    with pytest.raises(UnrolledError, match="no 'ngram-model' file"):
        load_ngrams(folder)
    config.write_text(json.dumps({**value, "start_id": V}))
    with pytest.raises(UnrolledError, match="start_id"):
        load_ngrams(folder)
