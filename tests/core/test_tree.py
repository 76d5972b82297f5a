"""State trees: functions over any nesting of tensors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unrolled.core import tree
from unrolled.core.errors import UnrolledError
from unrolled.core.tree import flatten, leaves, map_tree, unflatten

ROWS = 3


class Pair(NamedTuple):
    h: Any
    c: Any


def _tensor(seed: int) -> Tensor:
    return torch.randn(ROWS, 1 + seed % 3, generator=torch.Generator().manual_seed(seed))


TENSORS = st.integers(0, 1000).map(_tensor)
TREES = st.recursive(
    TENSORS | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, min_size=1, max_size=3).map(tuple)
        | st.tuples(inner, inner).map(lambda pair: Pair(*pair))
        | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3)
    ),
    max_leaves=8,
)
QUICK = settings(max_examples=60, deadline=None)


def same(one: Any, other: Any) -> bool:
    a, b = flatten(one), flatten(other)
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def kinds(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: kinds(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return type(value), [kinds(inner) for inner in value]
    return None if value is None else "tensor"


@QUICK
@given(TREES)
def test_map_keeps_the_structure(value: Any) -> None:
    doubled = map_tree(lambda part: 2 * part, value)
    assert kinds(doubled) == kinds(value)
    assert same(map_tree(lambda part: part / 2, doubled), value)
    assert same(map_tree(torch.sub, map_tree(torch.add, value, value), value), value)


@QUICK
@given(TREES)
def test_flatten_and_back(value: Any) -> None:
    named = flatten(value)
    assert [id(part) for part in named.values()] == [id(part) for part in leaves(value)]
    back = unflatten(dict(reversed(list(named.items()))), value)
    assert kinds(back) == kinds(value)
    assert same(back, value)


@QUICK
@given(TREES, st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=5))
def test_rows(value: Any, rows: list[int]) -> None:
    index = torch.tensor(rows)
    for part, chosen in zip(leaves(value), leaves(tree.select_rows(value, index)), strict=True):
        assert torch.equal(chosen, part[rows])
    for part, repeated in zip(leaves(value), leaves(tree.repeat_rows(value, 2)), strict=True):
        assert torch.equal(repeated, part[[0, 0, 1, 1, 2, 2]])


@QUICK
@given(TREES, st.lists(st.booleans(), min_size=ROWS, max_size=ROWS))
def test_reset_rows(value: Any, flags: list[bool]) -> None:
    start = map_tree(lambda part: part.double() + 100, value)
    picked = tree.reset_rows(value, start, torch.tensor(flags))
    for part, fresh, found in zip(leaves(value), leaves(start), leaves(picked), strict=True):
        for row, flag in enumerate(flags):
            assert torch.equal(found[row], (fresh.float() if flag else part)[row])


@settings(max_examples=15, deadline=None)
@given(TREES)
def test_saved_and_loaded(tmp_path_factory: Any, value: Any) -> None:
    file = tmp_path_factory.mktemp("tree") / "a.safetensors"
    tree.save_tree(file, value)
    assert same(tree.load_tree(file, map_tree(torch.zeros_like, value)), value)


def test_names() -> None:
    value = (Pair(torch.zeros(1), None), {"k": [torch.ones(1)]})
    assert list(flatten(value)) == ["0.h", "1.k.0"]
    assert list(flatten(torch.zeros(1))) == ["value"]


def test_detach_and_to() -> None:
    value = Pair(torch.ones(2, requires_grad=True) * 2, [torch.ones(2)])
    assert not any(part.requires_grad for part in leaves(tree.detach(value)))
    assert value.h.requires_grad
    assert all(part.dtype == torch.float64 for part in leaves(tree.to(value, torch.float64)))


def test_select_by_mask() -> None:
    value = [torch.arange(3)]
    assert tree.select_rows(value, torch.tensor([True, False, True]))[0].tolist() == [0, 2]


@pytest.mark.parametrize("function", [flatten, leaves, lambda value: map_tree(abs, value)])
def test_other_things_are_refused(function: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="not float"):
        function([torch.zeros(1), 0.5])


def test_a_state_of_another_model_is_refused(tmp_path: Path) -> None:
    tree.save_tree(tmp_path / "a.safetensors", Pair(torch.zeros(2, 3), torch.zeros(2, 3)))
    with pytest.raises(UnrolledError, match=r"'c' is in only one of the two"):
        tree.load_tree(tmp_path / "a.safetensors", Pair(torch.zeros(2, 3), None))
    with pytest.raises(UnrolledError, match=r"'c' is \(2, 3\), not \(2, 4\)"):
        tree.load_tree(tmp_path / "a.safetensors", Pair(torch.zeros(2, 3), torch.zeros(2, 4)))


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    with pytest.raises(UnrolledError, match="does not exist"):
        tree.load_tensors(file)
    tree.save_tensors(file, {"a": torch.ones(100)})
    for content in (b"", b"junk", file.read_bytes()[:-9]):
        (tmp_path / "broken").write_bytes(content)
        with pytest.raises(UnrolledError, match="not a readable safetensors file"):
            tree.load_tensors(tmp_path / "broken")


def test_equal_tensors_give_equal_bytes(tmp_path: Path) -> None:
    value = torch.randn(3, 4)
    for name, tensor in (("same memory", value), ("copy", value.clone()), ("strides", value.t().contiguous().t())):
        tree.save_tensors(tmp_path / name, {"x": tensor, "y": value})
        assert (tmp_path / name).read_bytes() == (tmp_path / "same memory").read_bytes(), name
