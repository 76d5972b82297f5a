"""A step in ONNX Runtime, known by its file alone."""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from unrolled.core.errors import UnrolledError

__all__ = ["FORMAT", "VERSION", "OnnxStep"]

FORMAT, VERSION = "unrolled step", 1

_TYPES = {
    "tensor(float)": np.float32,
    "tensor(int64)": np.int64,
    "tensor(double)": np.float64,
    "tensor(bool)": np.bool_,
}


class OnnxStep:
    """What ``unrolled export RUN step.onnx`` wrote, ready to run on a CPU.

    Args:
        model: path of the file, or its bytes. threads: of each operation.

    Attributes:
        metadata: the texts that the file carries, by name.
        state: names of the fields of the state, in order.
        scores: name of the first output, ``log_prob`` or ``logits``.
    Raises:
        UnrolledError: onnxruntime is not installed; a file that is no such step, or one of a newer format.
    """

    def __init__(self, model: str | os.PathLike[str] | bytes, threads: int = 1):
        try:
            import onnxruntime
        except ImportError as error:
            raise UnrolledError("running ONNX needs onnxruntime; pip install 'unrolled[export]'.") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        source = model if isinstance(model, bytes) else os.fspath(model)
        name = "the model" if isinstance(model, bytes) else str(source)
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's errors share no class
            raise UnrolledError(f"{name} is no model that ONNX Runtime can read; export it again.") from error
        self.metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        if self.metadata.get("format") != FORMAT:
            raise UnrolledError(f"{name} is no step of unrolled; write one with `unrolled export RUN step.onnx`.")
        try:
            version, self.state = int(self.metadata["format_version"]), self.metadata["state"].split()
            given = {one.name: one for one in self._session.get_inputs()}
            self._forms = {name: (_TYPES[given[name].type], given[name].shape[1:]) for name in self.state}
            self.initial()
        except (KeyError, ValueError, TypeError) as error:
            raise UnrolledError(f"what {name} says about itself is damaged; export it again.") from error
        if version > VERSION:
            raise UnrolledError(f"{name} is of a newer format; use the release that wrote it.")
        self.scores = self._session.get_outputs()[0].name

    @property
    def tokenizer(self) -> dict[str, Any]:
        """The tokenizer's file."""
        return json.loads(self.metadata["tokenizer"])

    @property
    def start_id(self) -> int:
        """The id fed before the first token."""
        return int(self.metadata["start_id"])

    def forms(self) -> list[tuple[str, str, list[int]]]:
        """Of each field of the state its name, its type and the shape of a row."""
        return [(name, np.dtype(dtype).name, list(shape)) for name, (dtype, shape) in self._forms.items()]

    def initial(self, batch: int = 1) -> dict[str, np.ndarray]:
        """The state before the first token."""
        found = {}
        for name, (dtype, shape) in self._forms.items():
            row = np.array(self.metadata[f"initial.{name}"].split(), np.float64).astype(dtype)
            found[name] = np.broadcast_to(row if len(row) == 1 else row.reshape(shape), (batch, *shape)).copy()
        return found

    def step(self, ids: np.ndarray, state: Mapping[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Read one token a row.

        Args:
            ids: (batch,) int64.
        Returns:
            (batch, V) log-probabilities of the next token, or logits, and the state after this one.
        """
        scores, *after = self._session.run(None, {"ids": ids.reshape(-1, 1), **state})
        return np.asarray(scores), dict(zip(self.state, map(np.asarray, after), strict=True))
