"""Checks of what a cell says about itself, and that it learns."""

import tempfile
from pathlib import Path

import pydantic
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from conformance.tolerance import assert_close
from unrolled.cells import ParameterRule
from unrolled.core.errors import UsageError
from unrolled.core.tree import leaves, load_tensors, save_tensors

from .build import BATCH, IN, WIDTH, MakeCell, build, finite, fitted, values


def check_num_params(make_cell: MakeCell) -> None:
    """The formula gives the number of parameters."""
    for wanted in ((IN, WIDTH), (3, 8), (8, 3)):
        cell = make_cell(*wanted)
        sizes = cell.in_width, cell.width
        formula = type(cell).num_params(cell.config, *sizes)
        assert formula == sum(p.numel() for p in cell.parameters()), f"num_params says {formula} at {sizes}"


def check_widths(make_cell: MakeCell) -> None:
    """The cell makes every width that it says it accepts, and refuses the others in a sentence with the nearest."""
    sample = make_cell(IN, WIDTH)
    multiple, entry = sample.width_multiple(sample.config), sample.in_width
    for width in range(1, 2 * multiple + 2):
        refusal = None
        try:
            assert fitted(make_cell).make(entry, width).width == width
        except UsageError as error:
            refusal = str(error)
        accepted = width % multiple == 0
        assert (refusal is None) == accepted, f"width {width}, multiples of {multiple}: {refusal or 'accepted'}"
        near = width - width % multiple or multiple
        assert refusal is None or str(near) in refusal, f"the refusal of {width} does not name {near}: {refusal}"


def check_rules(make_cell: MakeCell) -> None:
    """Rules of training are about parameters that there are."""
    cell = make_cell(IN, WIDTH)
    named = dict(cell.named_parameters())
    for name, rule in cell.parameter_rules.items():
        assert name in named, f"parameter_rules speaks of {name}, which is no parameter"
        assert isinstance(rule, ParameterRule)
        assert rule.rate > 0


def check_flops(make_cell: MakeCell) -> None:
    """The formula gives the arithmetic of the matrix products of one step, where all steps take the same."""
    if not build(make_cell).even_steps:
        return
    for wanted in ((IN, WIDTH), (3, 8)):
        cell = build(make_cell, backend="reference", sizes=wanted)
        sizes = cell.in_width, cell.width
        x, state = values(cell, BATCH, 1)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            cell(x, state)
        formula = type(cell).flops_per_token(cell.config, *sizes)
        counted = counter.get_total_flops() / BATCH
        assert formula == counted, f"flops_per_token says {formula} at {sizes}, the products are {counted}"


def check_state_size(make_cell: MakeCell) -> None:
    """state_size is the count of numbers carried per row."""
    cell = build(make_cell)
    _, state = cell(*values(cell, 1, 2))
    assert cell.state_size() == sum(part.numel() for part in leaves(state))


def check_config(make_cell: MakeCell) -> None:
    """The config survives a trip through JSON, is frozen, described, and refuses unknown keys."""
    config = make_cell(IN, WIDTH).config
    cls = type(config)
    assert issubclass(make_cell(IN, WIDTH).Config, cls)
    back = cls.model_validate_json(config.model_dump_json())
    assert back.model_dump() == config.model_dump(), "the config changes on the way through JSON"
    for key, field in cls.model_fields.items():
        assert key == "name" or field.description, f"the option {key} is not described"
    for wrong in (lambda: cls.model_validate({**config.model_dump(), "no_such_option": 1}), lambda: _assign(config)):
        try:
            wrong()
        except pydantic.ValidationError:
            continue
        raise AssertionError("the config takes unknown keys or is not frozen")


def _assign(config: object) -> None:
    config.name = "other"  # type: ignore[attr-defined]


def check_save_load(make_cell: MakeCell) -> None:
    """Weights saved to safetensors and loaded into another cell give the very same outputs."""
    cell = build(make_cell)
    torch.manual_seed(99)
    other = make_cell(IN, WIDTH).double()
    x, state = values(cell, BATCH, 3)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        save_tensors(Path(folder, "cell.safetensors"), cell.state_dict())
        other.load_state_dict(load_tensors(Path(folder, "cell.safetensors")))
        for a, b in zip(leaves(cell(x, state)), leaves(other(x, state)), strict=True):
            assert torch.equal(a, b), "the loaded cell computes something else"


def check_tap(make_cell: MakeCell) -> None:
    """Tracing shows finite (batch, ...) internals by name, one a step, and changes nothing."""
    cell = build(make_cell)
    x, state = values(cell, 3, 4)
    seen: dict[str, list[Tensor]] = {}
    traced = cell(x, state, tap=lambda name, value: seen.setdefault(name, []).append(value))
    assert seen, "a cell names its internals"
    for name, tensors in seen.items():
        assert len(tensors) == 4, f"{name} is tapped {len(tensors)} times in 4 steps"
        assert all(part.shape[0] == 3 and part.dim() >= 2 for part in tensors), f"{name} is not (batch, ...)"
        assert finite(tensors), f"{name} is not finite"
    for part, other in zip(leaves(traced), leaves(cell(x, state)), strict=True):
        assert_close(part, other, "traced against plain")


def check_memorises(make_cell: MakeCell) -> None:
    """A tiny language model learns a short text in which every second letter depends on the letter before the last.

    Without memory nothing below 0.34 nats a letter can be reached; so a cell that says that it has none must not.
    """
    text = torch.tensor([0, 1, 0, 2] * 4)
    torch.manual_seed(3)
    cell = make_cell(8, 16)
    embedding, head = torch.nn.Embedding(3, cell.in_width), torch.nn.Linear(cell.out_width, 3)
    optimizer = torch.optim.Adam([*embedding.parameters(), *cell.parameters(), *head.parameters()], lr=0.03)
    nats = float("inf")
    for _ in range(150):
        y, _ = cell(embedding(text[None, :-1]))
        # the first letters have no past to remember
        loss = cross_entropy(head(y)[0, 2:], text[3:])
        nats = loss.item()
        if nats < 0.1:
            assert cell.memory, "the cell remembers, and says that it does not"
            return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert not cell.memory, f"the loss is still {nats:.2f} nats a letter"
