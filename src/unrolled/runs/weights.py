"""Weights of a model in files: those of a run, and those to begin with."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import Field
from torch import nn

from unrolled.core import tree
from unrolled.core.config import Config
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.registry import shown, unknown_name
from unrolled.model import LanguageModel
from unrolled.model.published import LAYOUTS, load_published
from unrolled.runs.names import TOKENIZER
from unrolled.tokenizer import Tokenizer, load_tokenizer

__all__ = ["WeightsConfig", "load_weights", "refuse_larger", "weights"]

# mixes perspectives: a model with one of them has none
_ADDED = "memory."
_COMBINE = "head.combine"
# how much larger than its file a model may look before its shapes are compared, and what is too small to be asked
_LARGER, _SMALL = 4, 1_000_000


class WeightsConfig(Config):
    """Weights to begin with, in place of random ones."""

    file: str = Field(
        description="safetensors file; of a model with one perspective, for one with several, each begins as that"
    )
    layout: str = Field(
        default="unrolled",
        description=f"unrolled (model.safetensors of a run), or that of a published system: {', '.join(LAYOUTS)}; "
        "for a count model arpa",
    )
    tokenizer: bool = Field(
        default=False,
        description="read text by the tokenizer that lies beside the file, in place of one for the new text",
    )

    def beside(self) -> Tokenizer | None:
        """The tokenizer of the run that the file belongs to; None where none lies beside it."""
        path = Path(self.file).parent / TOKENIZER
        return load_tokenizer(path) if self.layout == "unrolled" and path.is_file() else None

    def chosen_tokenizer(self) -> Tokenizer | None:
        """The tokenizer to take, where ``tokenizer`` asks for it. Raises UsageError where there is none."""
        if not self.tokenizer:
            return None
        found = self.beside()
        if found is None:
            raise UsageError(f"there is no {TOKENIZER} beside {self.file}; leave out weights.tokenizer.")
        return found

    def load(self, model: LanguageModel, tokenizer: Tokenizer) -> str:
        """Copy the weights into a model; what it begins from, in a few words, with the part that they lack.

        Raises:
            UsageError, UnrolledError: in one sentence when they do not fit, or when their ids mean other symbols.
        """
        if self.layout == "unrolled":
            other = self.beside()
            if other is not None and (other.pieces, other.end_id) != (tokenizer.pieces, tokenizer.end_id):
                differ = sum(a != b for a, b in zip(other.pieces, tokenizer.pieces, strict=False))
                raise UsageError(
                    f"the weights of {self.file} are for another vocabulary: of {other.vocab_size:,} ids and "
                    f"{tokenizer.vocab_size:,} here, {differ:,} mean other symbols; read the text by their tokenizer "
                    "with --set weights.tokenizer=true."
                )
            load_weights(model, Path(self.file), several=model.stack.streams > 1, added=_ADDED)
            if model.memory is not None and not any(n.startswith(_ADDED) for n in tree.tensor_shapes(Path(self.file))):
                return f"begun from {self.file}, which has no memory: that begins as a new one"
        elif self.layout not in LAYOUTS:
            raise unknown_name("layout", self.layout, ["unrolled", *LAYOUTS])
        elif not Path(self.file).is_file():
            raise UsageError(f"there are no weights at {self.file}; give a safetensors file.")
        else:
            tensors = tree.load_tensors(Path(self.file))
            tree.check_numbers(tensors, self.file)
            load_published(model, tensors, self.layout)
        return f"begun from {self.file}"


def load_weights(
    model: nn.Module, path: Path, prefix: str = "", several: bool = False, added: str | None = None
) -> None:
    """Copy saved weights into a model. Raises UnrolledError in one sentence when they do not fit.

    Args:
        prefix: of the names that count in the file; others are left alone.
        several: whether the file may be of a model with one perspective, of which this one has several: all begin as
            that one, and what mixes them stays as it is.
        added: begin of the names of a part that the file may lack as a whole, whose parameters stay as they are.
    """
    if not path.is_file():
        raise UnrolledError(f"{path} does not exist: the run has no checkpoint yet.")
    found, own = tree.load_tensors(path), weights(model)
    saved = {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
    if several and _COMBINE in own and _COMBINE not in saved:
        alike = {
            name: value.expand(own[name].shape) for name, value in saved.items() if _of_several(own.get(name), value)
        }
        saved |= {_COMBINE: own[_COMBINE].detach(), **alike}
    if added is not None and not any(name.startswith(added) for name in saved):
        own = {name: value for name, value in own.items() if not name.startswith(added)}
    if set(saved) != set(own) or any(saved[name].shape != own[name].shape for name in own):
        odd = sorted(set(saved) ^ set(own)) or [n for n in own if saved[n].shape != own[n].shape]
        raise UnrolledError(
            f"{path} does not fit the run's config (parameter {shown(odd[0])}); it belongs to another run."
        )
    tree.check_numbers(saved, path)
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(saved[name])


def refuse_larger(path: Path, prefix: str, expected: int, build: Callable[[], nn.Module]) -> None:
    """Refuse weights whose model would be far larger than they are, before its memory is taken.

    Args:
        prefix: see :func:`load_weights`. expected: numbers that the model has at least, roughly. build: makes it.
    Raises:
        UnrolledError: it is larger; the file belongs to another run, or the run's config is damaged.
    """
    if not path.is_file():
        return
    saved = {
        name.removeprefix(prefix): shape for name, shape in tree.tensor_shapes(path).items() if name.startswith(prefix)
    }
    if expected <= _LARGER * sum(math.prod(shape) for shape in saved.values()) + _SMALL:
        return
    with torch.device("meta"):
        own = {name: tuple(value.shape) for name, value in weights(build()).items()}
    if odd := [name for name in sorted(own) if saved.get(name) != own[name]]:
        raise UnrolledError(
            f"{path} does not fit the run's config (parameter {shown(odd[0])}); it belongs to another run."
        )


def _of_several(own: torch.Tensor | None, value: torch.Tensor) -> bool:
    """Whether the parameter holds one vector a perspective, of which the saved one is one."""
    return own is not None and own.dim() == value.dim() + 1 and own.shape[1:] == value.shape


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Name -> parameter, a tied matrix once."""
    return dict(model.named_parameters())
