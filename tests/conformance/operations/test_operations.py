"""The table of operations: every backend against the reference, and every name that is none is refused."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from conformance.material import wave
from conformance.tolerance import assert_close
from unrolled.cells import CELLS
from unrolled.core.errors import UsageError
from unrolled.kernels import OPERATIONS
from unrolled.kernels.dispatch import (
    Backend,
    Compute,
    Operation,
    Sizes,
    choices,
    forget_choices,
    measurable,
    operation_named,
)
from unrolled.model import LanguageModel, ModelConfig

SIZES = (Sizes(1, 1, 1), Sizes(5, 2, 1), Sizes(8, 3, 7), Sizes(33, 5, 40))
WITH_INPUTS = [name for name in measurable() if operation_named(name).inputs is not None]


def draw(name: str, *shape: int) -> Tensor:
    return wave(*shape, phase=len(name))


def outcome(operation: Operation, sizes: Sizes, backend: str, precision: str = "float32") -> dict[str, Tensor]:
    """Outputs, and the gradients of a weighted sum of them with respect to every input, by name."""
    assert operation.inputs is not None
    assert operation.call is not None
    given = {name: value.detach() for name, value in operation.inputs(sizes, draw).items()}
    if precision == "bf16":
        given = {name: value.float() if value.is_floating_point() else value for name, value in given.items()}
    wanted = {name: value.requires_grad_() for name, value in given.items() if value.is_floating_point()}
    outputs = operation.call(given, backend, precision)
    found = {f"output {i}": part.detach() for i, part in enumerate(outputs)}
    loss = torch.stack([(part * wave(*part.shape, phase=1.0)).sum() for part in outputs if part.requires_grad]).sum()
    grads = torch.autograd.grad(loss, list(wanted.values()))
    return found | {f"gradient of {name}": grad for name, grad in zip(wanted, grads, strict=True)}


def serving(operation: Operation, sizes: Sizes, precision: str = "float32") -> list[str]:
    """Backends beside the reference that do not refuse."""
    found = []
    for name in operation.backends:
        try:
            outcome(operation, sizes, name, precision)
        except UsageError:
            continue
        found.append(name)
    return [name for name in found if name != "reference"]


def check(operation: Operation, sizes: Sizes) -> None:
    expected = outcome(operation, sizes, "reference")
    for name in serving(operation, sizes):
        found = outcome(operation, sizes, name)
        assert set(found) == set(expected)
        for part, value in expected.items():
            assert_close(found[part], value, f"{operation.name} by {name} at {tuple(sizes)}: {part}")


@pytest.mark.parametrize("name", WITH_INPUTS)
def test_backends_agree(name: str, poisoned: None) -> None:
    for sizes in SIZES:
        check(operation_named(name), sizes)


@pytest.mark.parametrize("name", WITH_INPUTS)
def test_bf16_is_near_and_other(name: str) -> None:
    operation, sizes = operation_named(name), SIZES[2]
    if "bf16" not in operation.precisions:
        return
    plain = outcome(operation, sizes, "reference")
    for backend in ["reference", *serving(operation, sizes, "bf16")]:
        found = outcome(operation, sizes, backend, "bf16")
        for part, value in plain.items():
            assert_close(found[part].double(), value, f"{name} by {backend}: {part}", torch.bfloat16)
        assert not torch.equal(found["output 0"].double(), plain["output 0"]), f"{backend} computes in float32"


def test_a_backend_that_computes_something_else_is_noticed() -> None:
    right = OPERATIONS["diag_scan"]

    def wrong(a: Tensor, b: Tensor, h0: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
        h, last = right.backends["reference"].run(a, b, h0, *others)
        return h * 1.001, last

    def call(given: Mapping[str, Tensor], backend: str, precision: str) -> tuple[Tensor, ...]:
        run = wrong if backend == "wrong" else right.backends["reference"].run
        return run(given["a"], given["b"], given["h0"], None, torch.zeros_like(given["h0"]))

    table = {name: Backend(name, lambda *_: None, wrong) for name in ("wrong", "reference")}
    with pytest.raises(AssertionError, match="diag_scan by wrong"):
        check(right._replace(backends=table, call=call), SIZES[2])


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_row_of_the_table(name: str) -> None:
    operation = OPERATIONS[name]
    assert operation.name == name
    assert operation.summary
    assert list(operation.backends)[-1] == "reference"
    assert operation.backends["reference"].refuse() is None, "the reference never refuses"
    assert operation.bound in ("products", "bytes")
    if operation.cell is not None:
        assert operation.cell in CELLS
        assert operation.inputs is None
        return
    assert operation.amount is not None
    for backward in (False, True):
        once, twice = (operation.amount(Sizes(8, batch, 3), backward) for batch in (2, 4))
        assert twice == 2 * once > 0, "twice the rows are twice the work"


@pytest.mark.parametrize("name", list(OPERATIONS))
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda name: {"backend": "nonsense"}, "unknown backend 'nonsense'"),
        (lambda name: {"backend": {name: "nonsense"}}, "unknown {name} backend 'nonsense'"),
        (lambda name: {"backend": f"{name}=nonsense"}, "unknown {name} backend 'nonsense'"),
        (lambda name: {"backend": f"{name}=auto,{name}=reference"}, "the backend of '{name}' is given twice"),
        (lambda name: {"backend": {name + "s": "auto"}}, "unknown operation '{name}s'; did you mean '{name}'"),
    ],
)
def test_nonsense_is_refused_by_the_config(name: str, make: Callable[[str], dict[str, Any]], words: str) -> None:
    with pytest.raises(UsageError, match=words.format(name=name)):
        Compute.parse(make(name))


@pytest.mark.parametrize("name", WITH_INPUTS)
@pytest.mark.parametrize("backend", ["nonsense", "fused", ""])
def test_nonsense_is_refused_by_the_operation(name: str, backend: str) -> None:
    operation = operation_named(name)
    assert operation.inputs is not None
    assert operation.call is not None
    with pytest.raises(UsageError, match=f"unknown {operation.name} backend '{backend}'"):
        operation.call(operation.inputs(SIZES[1], draw), backend, "float32")


def test_a_name_alone_is_the_cells_and_reference_is_everybodys() -> None:
    native = Compute(backend="inplace")
    assert [native.wish(name) for name in ("cell_loop", "diag_scan")] == ["inplace", "inplace"]
    assert [native.wish(name) for name in ("linear", "rms_norm", "softmax_loss")] == ["auto"] * 3
    assert {Compute(backend="reference").wish(name) for name in OPERATIONS} == {"reference"}
    table = Compute.parse({"backend": "rms_norm=reference, linear=window"})
    wishes = {name: table.wish(name) for name in OPERATIONS}
    assert wishes == dict.fromkeys(OPERATIONS, "auto") | {"rms_norm": "reference", "linear": "window"}
    assert Compute.parse(table.model_dump(mode="json")) == table


def test_a_model_asks_each_operation_for_what_its_table_says() -> None:
    wanted = dict.fromkeys(("cell_loop", "softmax_loss", "rms_norm"), "reference") | {"linear": "window"}
    config = {"width": 8, "stack": {"output_norm": "rms"}, "embedding": {"project": 8}, "compute": {"backend": wanted}}
    model, tokens = LanguageModel(ModelConfig.parse(config), 5), torch.zeros(2, 3, dtype=torch.int64)
    forget_choices()
    model.loss(tokens, tokens)
    assert {key.split()[0]: ran for key, ran in choices().items()} == wanted
