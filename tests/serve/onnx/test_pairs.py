"""Complex numbers as pairs give what torch's own give, and a recorded program the values of its module."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from unrolled.core.errors import UnrolledError
from unrolled.serve.onnx.pairs import Pair, on_pairs
from unrolled.serve.onnx.program import RealProgram

aten = torch.ops.aten
X, Y = (torch.randn(3, 4, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
REAL = torch.randn(3, 4, generator=torch.Generator().manual_seed(3))


def pair(x: Tensor) -> Pair:
    return Pair(x.real.clone(), x.imag.clone())


def as_pairs(values: tuple) -> tuple:
    return tuple(pair(one) if isinstance(one, Tensor) and one.is_complex() else one for one in values)


CALLS: dict[str, tuple[Callable, tuple]] = {
    "mul": (aten.mul.Tensor, (X, Y)),
    "mul by a real": (aten.mul.Tensor, (X, REAL)),
    "mul of a real": (aten.mul.Tensor, (REAL, X)),
    "div": (aten.div.Tensor, (X, Y)),
    "div of a real": (aten.div.Tensor, (REAL, X)),
    "div by a real": (aten.div.Tensor, (X, REAL)),
    "add": (aten.add.Tensor, (X, REAL)),
    "sub": (aten.sub.Tensor, (REAL, X)),
    "exp": (aten.exp.default, (X,)),
    "reciprocal": (aten.reciprocal.default, (X,)),
    "abs": (aten.abs.default, (X,)),
    "conj": (aten.conj_physical.default, (X,)),
    "polar": (aten.polar.default, (REAL.abs(), REAL)),
    "complex": (aten.complex.default, (REAL, 2 * REAL)),
    "view_as_real": (aten.view_as_real.default, (X,)),
    "mm": (aten.mm.default, (X, Y.t())),
    "sum": (aten.sum.dim_IntList, (X, [1])),
    "unsqueeze": (aten.unsqueeze.default, (X, 0)),
    "to real": (aten._to_copy.default, (REAL,)),
}


@pytest.mark.parametrize("name", CALLS)
def test_operation(name: str) -> None:
    operation, arguments = CALLS[name]
    wanted = operation(*arguments)
    found = on_pairs(operation, as_pairs(arguments), {})
    wanted = wanted if wanted.is_complex() or not isinstance(found, Pair) else wanted + 0j
    assert isinstance(found, Pair) == wanted.is_complex()
    found = torch.complex(*found) if isinstance(found, Pair) else found
    torch.testing.assert_close(found, wanted.resolve_conj())


def test_an_operation_without_a_form_is_refused_by_name() -> None:
    with pytest.raises(UnrolledError, match=r"aten\.tanh\.default of complex numbers"):
        on_pairs(aten.tanh.default, (pair(X),), {})


class Turn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.angle, self.mix = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        factor = torch.polar(torch.ones_like(self.angle), self.angle) * torch.linalg.inv(self.mix).to(torch.complex64)
        turned = x.to(torch.complex64) @ factor
        return torch.view_as_real(turned), torch.cat([x, x @ self.mix.t()], 1).cummax(1).values


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own tracer
def test_a_program_of_pairs() -> None:
    torch.manual_seed(0)
    module, x = Turn(), torch.randn(2, 4)
    with torch.no_grad():
        recorded = torch.export.export(module, (x,), strict=False).run_decompositions({})
        program = RealProgram(recorded)
        for found, wanted in zip(program(2 * x), module(2 * x), strict=True):
            torch.testing.assert_close(found, wanted)
        again = torch.export.export(program, (x,), strict=False)
    text = str(again.graph)
    assert "complex" not in text
    assert "linalg" not in text, "what depends on weights alone is computed ahead"
    assert "cummax" not in text
    own = [name for name, value in program.named_buffers() if value.data_ptr() == module.mix.data_ptr()]
    assert len(own) == 1, "a view of weights is no copy"
