"""Functions over state trees: tensors inside any nesting of NamedTuples, tuples, lists and mappings.

They know no cell. Tensors are batch-first: row r of a tree is index r of dimension 0 of every tensor in it.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from unrolled.core.errors import UnrolledError
from unrolled.core.files import atomic_write, regular_file
from unrolled.core.registry import shown

__all__ = [
    "check_numbers",
    "check_tensor_header",
    "detach",
    "flatten",
    "leaves",
    "load_tensors",
    "load_tree",
    "map_tree",
    "not_finite",
    "repeat_rows",
    "reset_rows",
    "save_tensors",
    "save_tree",
    "select_rows",
    "tensor_shapes",
    "to",
    "unflatten",
]

Tree = TypeVar("Tree")

_MOST_HEADER = 16 << 20


def map_tree(function: Callable[..., Any], tree: Tree, *others: Any) -> Tree:
    """Apply ``function`` to each tensor of ``tree`` (and the matching ones of ``others``); None stays None."""
    if tree is None:
        return None  # type: ignore[return-value]
    if isinstance(tree, Tensor):
        return function(tree, *others)
    if isinstance(tree, Mapping):
        return {key: map_tree(function, tree[key], *(o[key] for o in others)) for key in tree}  # type: ignore
    if isinstance(tree, tuple | list):
        parts = [map_tree(function, *inner) for inner in zip(tree, *others, strict=True)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)  # type: ignore
    raise TypeError(f"a state tree holds tensors, tuples, lists and mappings, not {type(tree).__name__}")


def _items(tree: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    if tree is None:
        return
    if isinstance(tree, Tensor):
        yield prefix or "value", tree
        return
    if isinstance(tree, Mapping):
        pairs = list(tree.items())
    elif isinstance(tree, tuple | list):
        names = getattr(tree, "_fields", range(len(tree)))
        pairs = list(zip(names, tree, strict=True))
    else:
        raise TypeError(f"a state tree holds tensors, tuples, lists and mappings, not {type(tree).__name__}")
    for name, inner in pairs:
        yield from _items(inner, f"{prefix}.{name}" if prefix else str(name))


def flatten(tree: Any) -> dict[str, Tensor]:
    """Dotted name -> tensor, in the tree's order: ``(LSTMState(h, c),)`` gives ``0.h`` and ``0.c``."""
    return dict(_items(tree, ""))


def unflatten(named: Mapping[str, Tensor], like: Tree) -> Tree:
    """The inverse of :func:`flatten`; ``like`` gives the structure. Raises UnrolledError on other names or shapes."""
    wanted = flatten(like)
    if set(wanted) != set(named):
        odd = sorted(set(wanted) ^ set(named))[0]
        raise UnrolledError(f"the saved state does not fit this model: {shown(odd)} is in only one of the two.")
    for name, tensor in wanted.items():
        if named[name].shape != tensor.shape:
            raise UnrolledError(
                f"the saved state does not fit this model: {name!r} is {tuple(named[name].shape)}, "
                f"not {tuple(tensor.shape)}."
            )
    values = iter([named[name] for name in wanted])
    return map_tree(lambda _: next(values), like)


def leaves(tree: Any) -> list[Tensor]:
    """All tensors of a tree, in order."""
    return [tensor for _, tensor in _items(tree, "")]


def detach(tree: Tree) -> Tree:
    """Cut the tree from the autograd graph."""
    return map_tree(Tensor.detach, tree)


def to(tree: Tree, *args: Any, **kwargs: Any) -> Tree:
    """``Tensor.to`` for each tensor."""
    return map_tree(lambda tensor: tensor.to(*args, **kwargs), tree)


def select_rows(tree: Tree, rows: Tensor) -> Tree:
    """Rows by index (integer, may repeat) or by boolean mask."""
    return map_tree(lambda tensor: tensor[rows.to(tensor.device)], tree)


def repeat_rows(tree: Tree, times: int) -> Tree:
    """Each row ``times`` times, copies side by side."""
    return map_tree(lambda tensor: tensor.repeat_interleave(times, 0), tree)


def reset_rows(tree: Tree, initial: Tree, mask: Tensor) -> Tree:
    """Rows where ``mask`` (batch,) is true taken from ``initial``, the others from ``tree``."""

    def pick(value: Tensor, start: Tensor) -> Tensor:
        return torch.where(mask.view(-1, *[1] * (value.dim() - 1)), start.to(value.dtype), value)

    return map_tree(pick, tree, initial)


def save_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor]) -> None:
    """Write named tensors as safetensors, atomically. Equal tensors give equal bytes; they may share memory."""
    from safetensors.torch import save_file

    plain: dict[str, Tensor] = {}
    held: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().contiguous().cpu()
        place = value.untyped_storage().data_ptr()
        plain[name] = value.clone() if place in held else value  # the format refuses names that share memory
        held.add(place)
    atomic_write(path, lambda part: save_file(plain, part))


def load_tensors(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """Read safetensors. Raises UnrolledError in one sentence when the file is missing, broken or foreign."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = regular_file(path)
    try:
        check_tensor_header(path)
        return load_file(path, device=str(device))
    # A type that this torch lacks is a KeyError or AttributeError of the package.
    except (SafetensorError, ValueError, OSError, KeyError, AttributeError, TypeError) as error:
        raise UnrolledError(f"{path} is not a readable safetensors file: it is damaged or of another kind.") from error


def tensor_shapes(path: str | os.PathLike[str]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the tensors in a safetensors file, of which only the header is read. Raises UnrolledError as
    :func:`load_tensors`."""
    from safetensors import SafetensorError, safe_open

    path = regular_file(path)
    try:
        check_tensor_header(path)
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, ValueError, OSError, KeyError, AttributeError, TypeError) as error:
        raise UnrolledError(f"{path} is not a readable safetensors file: it is damaged or of another kind.") from error


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that holds NaN or an infinity, None where there is none."""

    def finite(value: Tensor) -> bool:
        small = value.is_floating_point() and value.element_size() == 1  # of which torch cannot tell
        return bool(torch.isfinite(value.float() if small else value).all())

    return next((name for name, value in tensors.items() if not finite(value)), None)


def check_numbers(weights: Mapping[str, Tensor], source: object) -> None:
    """Raises UnrolledError, naming ``source``, for weights that are no real numbers, or not finite as float32."""
    for name, value in weights.items():
        if not value.is_floating_point():
            raise UnrolledError(
                f"{source} holds {shown(name)} as {str(value.dtype)[6:]}, not as real numbers; save it as float32."
            )
    if odd := not_finite({name: value.float() for name, value in weights.items()}):
        raise UnrolledError(
            f"{source} holds what is not a finite number in {shown(odd)}: it is damaged, or the training diverged; "
            "train again."
        )


def check_tensor_header(path: Path) -> None:
    """Raises ValueError for a safetensors file that names more tensors than any model of ours has: each costs about a
    kilobyte before it is refused."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > _MOST_HEADER:
        raise ValueError("header")


def save_tree(path: str | os.PathLike[str], tree: Any) -> None:
    """Save a state tree by safetensors."""
    save_tensors(path, flatten(tree))


def load_tree(path: str | os.PathLike[str], like: Tree) -> Tree:
    """Load a state tree saved by :func:`save_tree`; ``like`` (an initial state) gives the structure."""
    return unflatten(load_tensors(path), like)
