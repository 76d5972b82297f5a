"""Runs programs on tensors: memory, packed matrices, and the gradients that are made once for a window."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrolled.kernels.cell_loop.native.compile import Compiled, MatrixShare
from unrolled.kernels.cell_loop.native.lower import Matrix, Program, Slice
from unrolled.kernels.cell_loop.table import TableInput, dense
from unrolled.kernels.cpu import Call, Library, Products
from unrolled.kernels.linear.window import rows_in_order, window_gradient

__all__ = ["Window", "make_call", "pack_matrices", "run_program"]

# A thread has at least so many rows: with fewer the matrices are read more often than the arithmetic needs.
_ROWS_PER_THREAD = 8
# Rows that go through a program together, at most, where its weights are in fewer bits: to read these again takes less
# time than to fetch from further caches what the products of more rows have made.
_BLOCK: dict[Products, int] = {"bf16_weights": 64, "int8_weights": 32}


def make_call(
    library: Library,
    program: Program,
    storages: dict[str, Any],
    weights: Mapping[str, Tensor],
    packed: Sequence[Tensor],
    steps: int,
    batch: int,
    like: Tensor,
    products: Products,
    backwards: bool = False,
) -> Call:
    """A program over a window, ready to run.

    Args:
        storages: (slices, batch, width) by name, or the rows of a table with ids (steps, batch) without gaps; what the
            program needs of its own is added. They must last as long as the call, and so must the vectors among the
            weights.
        packed: the program's matrices, see :func:`pack_matrices`. like: a tensor of the dtype to compute in.
    """
    threads = max(1, min(torch.get_num_threads(), batch // _ROWS_PER_THREAD))
    block = max(1, min(_BLOCK.get(products, batch), -(-batch // threads)))
    rows = {"row": threads, "scratch": threads * block}
    slices: dict[str, int] = {}
    for place in program.places:
        if place.kind not in ("given", "vector") and place.storage not in storages:
            count = {"stream": steps + place.first, "flip": 2}.get(place.kind, 1)
            slices[place.storage] = max(count, slices.get(place.storage, 0))
    for place in program.places:
        if place.storage in slices and place.storage not in storages:
            count = rows.get(place.kind, batch)
            storages[place.storage] = like.new_empty(slices[place.storage], count, place.width)
    places = []
    for place in program.places:
        if place.kind == "vector":
            places.append((weights[place.storage].data_ptr(), 0, 0, 0, 0, 0, 0))
            continue
        memory = storages[place.storage]
        if isinstance(memory, TableInput):
            table, ids = memory.table, memory.ids
            places.append((table.data_ptr(), ids.shape[1], table.stride(0), 0, place.first, 0, ids.data_ptr()))
            continue
        step, row, _ = memory.stride()
        if place.kind == "row":
            places.append((memory.data_ptr(), 0, 0, row, 0, 0, 0))
        elif place.kind == "scratch":
            places.append((memory.data_ptr(), 0, row, block * row, 0, 0, 0))
        elif len(memory) == 1:
            places.append((memory.data_ptr(), 0, row, 0, 0, 0, 0))
        else:
            places.append((memory.data_ptr(), step, row, 0, place.first, 2 if place.kind == "flip" else 0, 0))
    sizes = steps, batch, threads, block
    return library.prepare(program.operations, program.numbers, places, packed, *sizes, backwards, products, like.dtype)


def pack_matrices(
    library: Library, program: Program, weights: Mapping[str, Tensor], products: Products
) -> list[Tensor]:
    """The matrices of a program as it reads them."""

    def stored(matrix: Matrix) -> Tensor:
        weight = weights[matrix.name] if matrix.block is None else weights[matrix.name][matrix.block]
        return weight if matrix.transposed else weight.t()

    return [library.pack(stored(matrix), products) for matrix in program.matrices]


def run_program(
    library: Library,
    program: Program,
    storages: dict[str, Any],
    weights: Mapping[str, Tensor],
    steps: int,
    batch: int,
    like: Tensor,
    low: bool,
    backwards: bool = False,
) -> None:
    """Run a program over a window, with matrices packed for it alone.

    Args:
        storages, like: as in :func:`make_call`. low: round the factors of products to bf16.
    """
    products: Products = "bf16_factors" if low else "exact"
    packed = pack_matrices(library, program, weights, products)
    make_call(library, program, storages, weights, packed, steps, batch, like, products, backwards)()


def _over_time(storages: Mapping[str, Any], one: Slice, steps: int) -> Tensor:
    """(steps, batch, width) of a value that has been kept."""
    memory = dense(storages[one.place.storage])
    if one.place.kind == "stream":
        memory = memory[one.place.first : one.place.first + steps]
    memory = memory[..., one.at : one.at + one.width]
    return memory.expand(steps, -1, -1) if len(memory) == 1 != steps else memory


class Window(torch.autograd.Function):
    """A window as one node: ``apply(library, compiled, low, names, steps, batch, ids, *tensors)``.

    The tensors are those of ``names``: what goes in, time-major (steps or 1, batch, width); the state's fields (batch,
    width); the weights. With ids (steps, batch) the projections, ``pre.``, are tables of which those rows go in.
    Results: y (steps, batch, width), and the fields of the final state.
    """

    @staticmethod
    def forward(
        ctx: Any,
        library: Library,
        compiled: Compiled,
        low: bool,
        names: Sequence[str],
        steps: int,
        batch: int,
        ids: Tensor | None,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        named = dict(zip(names, (one.detach() for one in tensors), strict=True))
        like = named[f"state.{compiled.fields[0]}"]
        storages = _entering(compiled, named, ids)
        final = _begin(compiled, storages, named, steps, batch)
        run_program(library, compiled.forward, storages, named, steps, batch, like, low)
        y = _over_time(storages, compiled.y, steps)
        ends = [storages[name][at].clone() for name, at in final.items()]
        if compiled.backward is not None:
            kept = [name for name in storages if name not in compiled.inputs and _lasts(compiled, name)]
            ctx.save_for_backward(*tensors, *(storages[name] for name in kept))
            ctx.call = library, compiled, low, names, steps, batch, ids, kept
        return y, *ends

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, *grad_state: Tensor) -> Any:
        library, compiled, low, names, steps, batch, ids, kept = ctx.call
        saved = ctx.saved_tensors  # asked for once: where a segment is computed again, each is handed out once
        tensors = saved[: len(names)]
        named = dict(zip(names, (one.detach() for one in tensors), strict=True))
        storages = _entering(compiled, named, ids)
        storages |= dict(zip(kept, saved[len(names) :], strict=True))
        storages["grad.y"] = rows_in_order(grad_y)
        for name, grad in zip(compiled.fields, grad_state, strict=True):
            storages[f"carry.{name}"] = carry = grad.new_empty(2, *grad.shape)
            carry[steps % 2] = grad
        run_program(library, compiled.backward, storages, named, steps, batch, grad_y, low, backwards=True)
        wanted = dict(zip(names, ctx.needs_input_grad[7:], strict=True))
        grads: dict[str, Tensor | None] = {f"state.{name}": storages[f"carry.{name}"][0] for name in compiled.fields}
        for name, one in compiled.grads:
            grad = _over_time(storages, one, steps)
            if isinstance(storages[name], TableInput):
                grads[name] = torch.zeros_like(named[name]).index_add_(0, ids.flatten(), grad.flatten(0, 1))
            else:
                grads[name] = grad if len(named[name]) == steps else grad.sum(0, keepdim=True)
        for share in compiled.matrices:
            if wanted[share.name]:
                _add_matrix(grads, named[share.name], share, storages, steps, low)
        for share in compiled.vectors:
            if wanted[share.name]:
                total = grads.get(share.name)
                if total is None:
                    total = grads[share.name] = torch.zeros_like(named[share.name])
                total[share.at : share.at + share.grad.width] += _over_time(storages, share.grad, steps).sum((0, 1))
        return (None,) * 7 + tuple(grads.get(name) if wanted[name] else None for name in names)


def _entering(compiled: Compiled, named: Mapping[str, Tensor], ids: Tensor | None) -> dict[str, Any]:
    """What goes in at every step, by name, as :func:`make_call` takes it."""
    found: dict[str, Any] = {name: rows_in_order(named[name]) for name in compiled.inputs}
    if ids is not None:
        found |= {name: TableInput(table, ids) for name, table in found.items() if name.startswith("pre.")}
    return found


def _begin(
    compiled: Compiled, storages: dict[str, Any], named: Mapping[str, Tensor], steps: int, batch: int
) -> dict[str, int]:
    """Make the memory of the state and put the first in; storage -> index of the final state in it."""
    final = {}
    for place in compiled.forward.places:
        if place.storage.startswith("state.") and place.storage not in final:
            memory = named[place.storage].new_empty(2 if place.kind == "flip" else steps + 1, batch, place.width)
            memory[0] = named[place.storage]
            storages[place.storage] = memory
            final[place.storage] = steps % 2 if place.kind == "flip" else steps
    return {f"state.{name}": final[f"state.{name}"] for name in compiled.fields}


def _lasts(compiled: Compiled, storage: str) -> bool:
    return any(one.storage == storage and one.kind == "stream" for one in compiled.forward.places)


def _add_matrix(
    grads: dict[str, Tensor | None],
    weight: Tensor,
    share: MatrixShare,
    storages: Mapping[str, Any],
    steps: int,
    low: bool,
) -> None:
    """Add one product's share to the gradient of its matrix."""
    grad, rows = (_over_time(storages, one, steps).flatten(0, 1) for one in (share.grad, share.rows))
    total = grads.get(share.name)
    if share.block is not None and total is None:
        total = torch.zeros_like(weight)
    part = total if share.block is None or total is None else total[share.block]
    part = window_gradient(grad, rows, part, low)
    grads[share.name] = part if share.block is None else total
