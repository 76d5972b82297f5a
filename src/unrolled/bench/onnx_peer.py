"""The same language model in ONNX Runtime, one token a call, as it is or with its dynamic 8-bit quantisation."""

import logging
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unrolled.model import LanguageModel

__all__ = ["onnx_step", "why_no_onnx"]

Step = Callable[[np.ndarray, dict[str, np.ndarray]], tuple[np.ndarray, dict[str, np.ndarray]]]
"""ids (1, batch) and the state by name -> log-probabilities (batch, V) and the new state."""

_OPSET = 17


def why_no_onnx() -> str | None:
    """The reason why there is no ONNX Runtime to measure, with the remedy; None where there is."""
    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    return f"{' and '.join(missing)} not installed; pip install 'unrolled[export]'" if missing else None


def onnx_step(model: LanguageModel, batch: int, quantise: bool) -> tuple[Step, dict[str, np.ndarray]]:
    """One step of a model of plain LSTM layers, and the state that it begins with.

    Args:
        quantise: ONNX Runtime's dynamic quantisation with its defaults, weights as signed 8-bit integers.
    """
    import onnx
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(_graph(model), path)
        if quantise:
            logging.disable(logging.WARNING)  # it advises a preparation that changes nothing here
            try:
                quantize_dynamic(path, Path(folder) / "int8.onnx", weight_type=QuantType.QInt8)
            finally:
                logging.disable(logging.NOTSET)
            path = Path(folder) / "int8.onnx"
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def step(ids: np.ndarray, state: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        log_prob, *parts = session.run(None, {"ids": ids, **state})
        return np.asarray(log_prob)[0], dict(zip(state, map(np.asarray, parts), strict=True))

    layers: list[Any] = model.stack.cells()
    zeros = {
        f"{part}{i}": np.zeros((1, batch, layer.width), np.float32) for i, layer in enumerate(layers) for part in "hc"
    }
    return step, zeros


def _graph(model: LanguageModel) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    def given(name: str, value: np.ndarray) -> None:
        weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))

    def array(tensor: Any) -> np.ndarray:
        return tensor.detach().numpy()

    weights: list[Any] = []
    head: Any = model.head
    given("table", array(model.embedding.table()))
    given("output", array(head.weight).T)
    given("output_bias", array(head.bias))
    given("first", np.array([1]))
    nodes = [helper.make_node("Gather", ["table", "ids"], ["x0"])]
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, "batch"])]
    outputs = [helper.make_tensor_value_info("log_prob", TensorProto.FLOAT, [1, "batch", model.vocab_size])]
    layers: list[Any] = model.stack.cells()
    for i, layer in enumerate(layers):
        for name, value in (("w", layer.weight_ih), ("r", layer.weight_hh)):
            given(f"{name}{i}", _gates(array(value))[None])
        bias = _gates(array(layer.bias))
        given(f"b{i}", np.concatenate([bias, np.zeros_like(bias)])[None])
        shape = [1, "batch", layer.width]
        inputs += [helper.make_tensor_value_info(f"{part}{i}", TensorProto.FLOAT, shape) for part in "hc"]
        outputs += [helper.make_tensor_value_info(f"{part}{i}_new", TensorProto.FLOAT, shape) for part in "hc"]
        read, made = [f"x{i}", f"w{i}", f"r{i}", f"b{i}", "", f"h{i}", f"c{i}"], [f"y{i}", f"h{i}_new", f"c{i}_new"]
        nodes.append(helper.make_node("LSTM", read, made, hidden_size=layer.width))
        nodes.append(helper.make_node("Squeeze", [f"y{i}", "first"], [f"x{i + 1}"]))
    nodes.append(helper.make_node("MatMul", [f"x{len(layers)}", "output"], ["product"]))
    nodes.append(helper.make_node("Add", ["product", "output_bias"], ["logits"]))
    last = "logits"
    if head.config.cap is not None:
        given("cap", np.array(head.config.cap, np.float32))
        for kind, read in (("Div", [last, "cap"]), ("Tanh", ["Div"]), ("Mul", ["Tanh", "cap"])):
            nodes.append(helper.make_node(kind, read, [kind]))
        last = "Mul"
    nodes.append(helper.make_node("LogSoftmax", [last], ["log_prob"], axis=-1))
    graph = helper.make_graph(nodes, "model", inputs, outputs, weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
    made.ir_version = 9  # the one that goes with the opset: older runtimes refuse newer ones
    return made


def _gates(rows: np.ndarray) -> np.ndarray:
    """From our order of gates, i f g o, to that of ONNX, i o f g."""
    i, f, g, o = np.split(rows, 4)
    return np.concatenate([i, o, f, g])
