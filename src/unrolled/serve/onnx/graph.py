"""The ONNX graph of a step."""

import contextlib
import io
import logging
import warnings
from typing import Any

import torch
from torch import Tensor

from unrolled.core.errors import UnrolledError
from unrolled.serve.onnx.program import RealProgram
from unrolled.serve.onnx.step import Step

__all__ = ["OPSET", "needs", "onnx_graph"]

OPSET = 20
_EXAMPLE = 3  # rows; any number that is no size of a model by itself would do: 1 and 2 are special to the tracer


def needs() -> None:
    """Raises UnrolledError where a library is not installed."""
    from importlib.util import find_spec

    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise UnrolledError(f"export to ONNX needs {' and '.join(missing)}; pip install 'unrolled[export]'.")


def onnx_graph(step: Step, batch: int | None = None) -> Any:
    """The step as an ``onnx.ModelProto``.

    Inputs ``ids`` (batch, 1) and the state by name, outputs ``log_prob`` (batch, V), or ``logits``, and ``NAME.next``.

    Args:
        batch: rows of every call; None: any number.
    Raises:
        UnrolledError: the step has an operation that cannot be written in ONNX, or a library is missing.
    """
    needs()
    rows = _EXAMPLE if batch is None else batch
    names = list(step.start)
    ids = torch.zeros(rows, 1, dtype=torch.int64)
    inputs = (ids, *step.initial(rows).values())
    try:
        with torch.no_grad(), _quiet():
            first = _recorded(step, inputs, batch).run_decompositions({})
            second = _recorded(RealProgram(first), inputs, batch)
            made = torch.onnx.export(
                second,
                dynamo=True,
                opset_version=OPSET,
                input_names=["ids", *names],
                output_names=[step.output, *(f"{name}.next" for name in names)],
                verbose=False,
            )
    except UnrolledError:
        raise
    except Exception as error:  # whatever the tracer and the converter raise: they have no class of their own
        reason = " ".join(str(error).split("## Exception summary")[-1].split())[:300]
        raise UnrolledError(f"the model cannot be written in ONNX: {reason}") from error
    assert made is not None
    return _named(made.model_proto)


def _named(proto: Any) -> Any:
    """The graph with its one size that varies called ``batch``, and without the tracer's notes on what is inside."""
    graph = proto.graph
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.HasField("dim_param"):
                size.dim_param = "batch"
    for node in graph.node:
        del node.metadata_props[:]
    return proto


def _recorded(module: torch.nn.Module, inputs: tuple[Tensor, ...], batch: int | None) -> torch.export.ExportedProgram:
    shapes: Any = None
    if batch is None:
        rows = torch.export.Dim("batch", min=1)
        each = tuple({0: rows} for _ in inputs)
        shapes = (each,) if isinstance(module, RealProgram) else (each[0], each[1:])[: len(inputs)]
    return torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False)


@contextlib.contextmanager
def _quiet() -> Any:
    """Without what the exporter says on its way."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
