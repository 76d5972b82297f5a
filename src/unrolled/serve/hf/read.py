"""Folders of transformers as our models: what ``unrolled export --to huggingface`` wrote, and published checkpoints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.core import tree
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import read_json
from unrolled.core.registry import shown, unknown_name
from unrolled.model import LanguageModel, ModelConfig
from unrolled.model.published import load_published
from unrolled.runs.weights import weights
from unrolled.serve.hf.foreign import FOREIGN

__all__ = ["Found", "from_hugging_face", "model_of", "opened_folder"]

_CONFIG, _WEIGHTS, _INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_OWN = "unrolled"
_PICKLES = ("*.bin", "*.pt", "*.pth")
# of numbers in a model's weights to those in the files, beyond which a config is not believed
_LARGER = 4


class Found(NamedTuple):
    """A folder that was looked into. kind: its ``model_type``. config: of its model. symbols: number of its ids.
    layout: of :data:`unrolled.model.published.LAYOUTS`; None for our own export. values: ``config.json``."""

    folder: Path
    kind: str
    config: ModelConfig
    symbols: int
    layout: str | None
    values: Mapping[str, Any]


def from_hugging_face(source: str | Path, revision: str | None = None) -> LanguageModel:
    """The model of a folder that transformers reads, or of a name on the hub, in evaluation mode.

    Args:
        source: a folder with ``config.json`` and safetensors (one file, or parts with an index); or ``owner/name``,
            which is downloaded once.
        revision: branch, tag or commit of a name.
    Raises:
        UsageError: no such folder, a kind of model or an option of it that there is no cell for.
        UnrolledError: damaged files, pickles, no network.
    """
    return model_of(opened_folder(source, revision))


def model_of(found: Found) -> LanguageModel:
    """The model of a folder that was looked into. Raises as :func:`from_hugging_face`."""
    tensors = _tensors(found.folder)
    _check_size(found, tensors)
    model = LanguageModel(found.config, found.symbols)
    if found.layout is None:
        _fill(model, tensors, found.folder)
    else:
        load_published(model, tensors, found.layout)
    return model.eval()


def opened_folder(source: str | Path, revision: str | None = None) -> Found:
    """What is in a folder, by its ``config.json`` alone. Raises as :func:`from_hugging_face`."""
    folder = _folder(source, revision)
    values = read_json(folder / _CONFIG)
    if not isinstance(values, dict) or not isinstance(values.get("model_type"), str):
        raise UnrolledError(f"{folder / _CONFIG} is no config of transformers: it has no model_type.")
    kind = values["model_type"]
    if kind == _OWN:
        symbols = values.get("symbols") or values.get("vocab_size")
        given, layout = values.get("unrolled"), None
    elif kind in FOREIGN:
        made = FOREIGN[kind](values)
        symbols, given, layout = values.get("vocab_size"), made.model, made.layout
    else:
        raise unknown_name("model_type", kind, [_OWN, *FOREIGN])
    if type(symbols) is not int or not 1 <= symbols <= 1 << 24 or not isinstance(given, dict):
        raise UnrolledError(f"{folder / _CONFIG} is damaged: sizes are missing or no numbers.")
    try:
        config = ModelConfig.parse(given)
    except UsageError as error:
        raise UnrolledError(f"{folder / _CONFIG} has a model that cannot be made: {error}") from error
    return Found(folder, kind, config, symbols, layout, values)


def _folder(source: str | Path, revision: str | None) -> Path:
    """The folder itself, or one with what was downloaded."""
    path = Path(source)
    if path.is_dir():
        return path
    if path.is_absolute() or str(source).count("/") != 1 or str(source).startswith((".", "~")):
        raise UsageError(f"there is no folder {source}; give a folder, or owner/name of the hub.")
    from unrolled.core.extras import require

    require("hf", "huggingface_hub")
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.snapshot_download(
                str(source), revision=revision, allow_patterns=["*.json", "*.safetensors", "*.model", "*.txt"]
            )
        )
    except Exception as error:  # of the network, of the hub, of a name: the package has many
        reason = str(error).strip().split("\n")[0].rstrip(".")[:200]
        raise UnrolledError(f"{source} could not be fetched ({reason}); give a folder that is here.") from error


def _tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder's safetensors, by name."""
    if (folder / _INDEX).is_file():
        index = read_json(folder / _INDEX)
        placed = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(placed, dict) or not all(isinstance(name, str) for name in placed.values()):
            raise UnrolledError(f"{folder / _INDEX} is damaged: it has no weight_map.")
        tensors: dict[str, Tensor] = {}
        for name in sorted(set(placed.values())):
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise UnrolledError(f"{folder / _INDEX} names {shown(name)}, which is no safetensors file beside it.")
            tensors |= tree.load_tensors(folder / name)
        if lost := set(placed) - set(tensors):
            raise UnrolledError(f"{folder / _INDEX} names {shown(min(lost))}, which its files lack; get them again.")
    elif (folder / _WEIGHTS).is_file():
        tensors = tree.load_tensors(folder / _WEIGHTS)
    else:
        pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
        if pickles:
            raise UnrolledError(
                f"{folder} has {pickles[0]}, a pickle, which can run code and is not read; convert it where you trust "
                f"it: python -c \"from transformers import AutoModelForCausalLM as A; A.from_pretrained('{folder}')"
                ".save_pretrained('converted')\"."
            )
        raise UnrolledError(f"{folder} has no {_WEIGHTS}; get the whole folder.")
    tree.check_numbers({name: value for name, value in tensors.items() if value.is_floating_point()}, folder)
    return tensors


def _check_size(found: Found, tensors: Mapping[str, Tensor]) -> None:
    """Raises UnrolledError for a config whose model would be far larger than the weights, before it is made."""
    there = sum(value.numel() for value in tensors.values())
    with torch.device("meta"):
        wanted = LanguageModel(found.config, found.symbols).num_params()
    if wanted > _LARGER * there + 1_000_000:
        raise UnrolledError(
            f"the config of {found.folder} asks for {wanted:,} numbers, and its weights are {there:,}; they do not "
            "belong together."
        )


@torch.no_grad()
def _fill(model: LanguageModel, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Copy the weights of our own export."""
    own = weights(model)
    kept = model.state_dict()
    own |= {name: value for name, value in model.named_buffers() if name in kept}  # spellings
    saved = {name.removeprefix("lm."): value for name, value in tensors.items()}
    odd = sorted(set(saved) ^ set(own)) or [name for name in own if saved[name].shape != own[name].shape]
    if odd:
        raise UnrolledError(
            f"the weights of {folder} do not fit its config (parameter {shown(odd[0])}); export the run again."
        )
    for name, value in own.items():
        value.copy_(saved[name])
