"""Bound vectors, beside direct sums and outputs of the published code."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conformance.material import wave
from conformance.tolerance import assert_close
from unrolled.cells.encoders.hrrformer import Hrrformer, HrrformerConfig, bind, unbind, unit_modulus

GOLDEN = Path(__file__).parents[1] / "golden" / "hrrformer.json"
"""Outputs of the published layers (texts and images) and of its attention with a mask, computed in float64 with jax
0.10.2, flax and hrr 1.2.3, at the weights of :func:`_published`."""


@pytest.mark.parametrize("n", [1, 2, 5, 8, 9])
def test_binding_is_the_circular_sum(n: int) -> None:
    x, y = wave(3, n), wave(3, n, phase=1.0)
    wanted = torch.stack([sum(x[:, j] * y[:, (i - j) % n] for j in range(n)) for i in range(n)], -1)  # type: ignore[arg-type]
    assert float((bind(x, y) - wanted).abs().max()) < 1e-14
    # the approximate inverse is the key in reverse order
    back = torch.cat([y[:, :1], y[:, 1:].flip(1)], 1)
    assert_close(unbind(x, y, "approximate"), bind(x, back), "approximate")


@pytest.mark.parametrize("n", [5, 8])
def test_what_was_bound_comes_back(n: int) -> None:
    key, value = wave(4, n), wave(4, n, phase=1.0)
    bound = bind(key, value)
    assert_close(unbind(bound, key, "exact"), value, "exact")
    assert float((unbind(bound, key, "approximate") - value).abs().max()) > 0.1
    unit = unit_modulus(key)
    for inverse in ("approximate", "exact"):
        assert_close(unbind(bind(unit, value), unit, inverse), value, f"unit modulus, {inverse}")  # type: ignore[arg-type]
    assert_close(unit_modulus(unit), unit, "again")


def test_a_spectrum_with_zeros_is_guarded() -> None:
    key = torch.ones(1, 6).double().requires_grad_()  # all of its spectrum but the first number is zero
    for y in (unbind(wave(1, 6), key, "exact"), unit_modulus(key)):
        (grad,) = torch.autograd.grad(y.sum(), key)
        assert y.isfinite().all()
        assert grad.isfinite().all()
    assert torch.allclose(unit_modulus(key), torch.full((1, 6), 1 / 6).double())


def _looped(cell: Hrrformer, x: Tensor) -> Tensor:
    """The mixing alone of one row (time, width), by direct sums."""
    c, n = cell.config, cell.width // cell.config.heads
    parts = (x @ cell.weight.T).split(cell.width, -1)  # type: ignore[union-attr]
    rows = []
    for h in range(c.heads):
        q, k, v = (part[:, h * n : (h + 1) * n] for part in parts)

        def circulant(z: Tensor) -> Tensor:
            return torch.stack([z[(torch.arange(n) - j) % n] for j in range(n)], -1)

        bound = sum(circulant(key) @ value for key, value in zip(k, v, strict=True))
        cosines = []
        for query, value in zip(q, v, strict=True):
            turned = circulant(query)
            found = torch.linalg.solve(turned, bound) if c.inverse == "exact" else turned.T @ bound  # type: ignore[arg-type,operator]
            cosines.append(value @ found / value.norm() / found.norm())
        rows.append(torch.stack(cosines).softmax(0)[:, None] * v)
    return torch.cat(rows, -1) @ cell.out.T  # type: ignore[union-attr]


@pytest.mark.parametrize("inverse", ["approximate", "exact"])
@pytest.mark.parametrize("heads", [1, 2, 5])
def test_is_what_direct_sums_give(inverse: Any, heads: int) -> None:
    torch.manual_seed(0)
    config = HrrformerConfig(heads=heads, inverse=inverse, block=False, positions="none")
    cell = Hrrformer(10, 10, config).double()
    x, reset = wave(2, 9, 10), torch.zeros(2, 9, dtype=torch.bool)
    reset[0, 0] = reset[1, 4] = True
    y, _ = cell(x, None, reset)
    assert_close(y[0], _looped(cell, x[0]), "a full row")
    assert_close(y[1, 4:], _looped(cell, x[1, 4:]), "a row behind padding")


def test_unit_keys_make_both_inverses_one() -> None:
    x = wave(2, 6, 8)
    found = {}
    for unit in (False, True):
        for inverse in ("approximate", "exact"):
            torch.manual_seed(0)
            config = HrrformerConfig(heads=2, unit_keys=unit, inverse=inverse)  # type: ignore[arg-type]
            found[unit, inverse] = Hrrformer(8, 8, config).double()(x)[0]
    assert_close(found[True, "exact"], found[True, "approximate"], "unit keys")
    assert not torch.allclose(found[False, "exact"], found[False, "approximate"])
    assert not torch.allclose(found[True, "exact"], found[False, "exact"])


def _published(**options: Any) -> Hrrformer:
    cell = Hrrformer(16, 16, HrrformerConfig(heads=2, positions="none", **options)).double()
    shapes = {"weight": (48, 16), "out": (16, 16)}
    if cell.config.block:
        hidden = round(16 * cell.config.factor)
        shapes |= {"up": (hidden, 16), "up_bias": (hidden,), "down": (16, hidden)}
    values = {name: wave(*shape, phase=k) for k, (name, shape) in enumerate(shapes.items(), 1)}
    scaled = {name: (0.2 if name == "up_bias" else 0.4) * value for name, value in values.items()}
    if cell.config.block:
        scaled |= {"gain": 1 + 0.2 * wave(2, 16, phase=6), "gain_bias": 0.2 * wave(2, 16, phase=7)}
    cell.load_state_dict(scaled)
    return cell


def test_is_the_published_layer() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    x = wave(2, 9, 16)
    for name, options in (("text", {}), ("image", {"norm_first": False, "factor": 0.5})):
        y, _ = _published(**options)(x)
        assert float((y.detach() - torch.tensor(golden[name]).double()).abs().max()) < 1e-5, name
    # its sum takes what is bound at padding, so that there must be next to nothing there
    reset = torch.zeros(2, 9, dtype=torch.bool)
    reset[0, 0] = reset[1, 3] = True
    y, _ = _published(block=False)(x, None, reset)
    there = torch.ones(2, 9, dtype=torch.bool)
    there[1, :3] = False
    assert float((y.detach() - torch.tensor(golden["masked"]).double())[there].abs().max()) < 1e-5
