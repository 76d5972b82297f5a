"""With ``precision = "bf16"`` every product of weights has factors rounded to bf16, forwards and backwards, in whatever
part of the model; what stays in float32 is named in docs/concepts.md."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from unrolled.cells import CELLS, MixerCell, StepCell
from unrolled.kernels.cell_loop.native import execute
from unrolled.kernels.cpu import library, why_no_library
from unrolled.kernels.dispatch import Compute
from unrolled.model import LanguageModel, ModelConfig

# Number of the first factor among the arguments, and of the second.
_PRODUCTS = {
    "mm": (0, 1), "addmm": (1, 2), "bmm": (0, 1), "baddbmm": (1, 2), "linear": (0, 1), "mv": (0, 1), "addmv": (1, 2),
    "dot": (0, 1), "_mkl_linear": (0, 2), "mkldnn_linear": (0, 1),
}  # fmt: skip

_OF_STATES = ("matrix_scan", "learner_scan", "fft_conv", "bias_attention")
# cells with a step that multiplies the state by a matrix made of the input
_TURNS = ("urn",)


def rounded(x: Tensor) -> bool:
    return bool((x.bfloat16().to(x.dtype) == x).all())


class Watch(TorchDispatchMode):
    """Every product that torch makes, and whether its factors are numbers of bf16."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, bool]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__.removesuffix("_")
        if name in _PRODUCTS:
            self.seen.append((name, all(rounded(args[i]) for i in _PRODUCTS[name])))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def library_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, Any]]]:
    """(kind, whether in bf16) of every product that the native library makes."""
    calls: list[tuple[str, Any]] = []
    if why_no_library() is not None:
        yield calls
        return
    own = library()
    linear, add_gradient, call = own.linear, own.add_gradient, own.call

    def watched_linear(rows: Tensor, packed: Tensor, n: int, bias: Tensor | None, low: bool) -> Tensor:
        calls.append(("linear", low))
        return linear(rows, packed, n, bias, low)

    def watched_gradient(grad: Tensor, rows: Tensor, total: Tensor, add: bool, low: bool) -> Any:
        calls.append(("gradient", low))
        return add_gradient(grad, rows, total, add, low)

    def watched_call(name: str, dtype: torch.dtype, *args: Any, low: bool = False) -> Any:
        if name in ("softmax_losses", "softmax_gradients"):
            calls.append((name, low))
        return call(name, dtype, *args, low=low)

    make_call = execute.make_call

    def watched_program(*args: Any) -> Any:
        calls.append(("program", args[8] == "bf16_factors"))
        return make_call(*args)

    monkeypatch.setattr(execute, "make_call", watched_program)
    monkeypatch.setattr(own, "linear", watched_linear)
    monkeypatch.setattr(own, "add_gradient", watched_gradient)
    monkeypatch.setattr(own, "call", watched_call)
    yield calls


MODELS: dict[str, dict[str, Any]] = {
    "ptb-char-cpu": {"cell": "mlstm", "embedding": {"size": 24}},
    "residual": {"layers": 2, "stack": {"kind": "residual", "mlp": 2.0}, "embedding": {"size": 24}},
    "gated": {"stack": {"kind": "residual", "mlp": 2.0, "mlp_kind": "swiglu", "norm": "rms"}},
    "projected embedding": {"embedding": {"size": 24, "project": 16}},
    "layer mlp": {"cell": "qrnn, mlp"},
    "head project": {"head": {"name": "softmax", "project": 12}},
    "mos": {"head": {"name": "mos", "components": 3}},
    "split": {"head": {"name": "split", "cuts": [10, 20]}},
    **{name: {"cell": name} for name in CELLS},
}


@pytest.mark.parametrize("backend", ["auto", "generic", "reference"])
@pytest.mark.parametrize("name", MODELS)
def test_every_product_of_weights_is_lowered(name: str, backend: str, library_calls: list[tuple[str, Any]]) -> None:
    options = ModelConfig.parse({"width": 64, **MODELS[name]})
    cells = [CELLS[cell.name] for cell in options.layer_cells()]
    if backend == "generic" and not all(issubclass(cell, StepCell) for cell in cells):
        backend = "auto"
    torch.manual_seed(0)
    compute = Compute(precision="bf16", backend=backend)
    model = LanguageModel(options.model_copy(update={"compute": compute}), 40)
    tokens = torch.arange(160).view(8, 20) % 40
    if name == "split":
        model.head.use_counts(torch.arange(40, 0, -1))
    with Watch() as watch:
        total, _, _ = model.loss(tokens, tokens.roll(1, 0))
        total.backward()
    of_states = (issubclass(cell, MixerCell) and cell.operation in _OF_STATES for cell in cells)
    if any(of_states) or name in _TURNS:
        # there a batched product is one of states or keys, which stay in float32
        watch.seen = [(kind, low) for kind, low in watch.seen if kind not in ("bmm", "baddbmm")]
    wrong = sorted({kind for kind, low in watch.seen if not low} | {kind for kind, low in library_calls if not low})
    assert not wrong, f"in float32: {', '.join(wrong)}"
    assert watch.seen or library_calls


def test_float32_is_noticed() -> None:
    model, tokens = LanguageModel(ModelConfig.parse({"width": 8}), 9), torch.zeros(2, 3, dtype=torch.int64)
    with Watch() as watch:
        model.loss(tokens, tokens)[0].backward()
    assert any(not low for _, low in watch.seen)


def test_the_scores_of_the_pointer_stay_in_float32() -> None:
    """A product of states, not of weights."""
    config = {"width": 8, "head": {"name": "pointer", "length": 4}, "compute": {"precision": "bf16"}}
    model, tokens = LanguageModel(ModelConfig.parse(config), 9), torch.arange(6).view(2, 3)
    with Watch() as watch:
        model.loss(tokens, tokens)[0].backward()
    kinds = {low: {kind for kind, other in watch.seen if other == low} for low in (False, True)}
    assert kinds[False] == {"bmm", "mv"}, "scores with the keys and with the sentinel"
    assert "mm" in kinds[True]
