"""Decoding as a row: a whole model that predicts and reads one token a call."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unrolled.bench.made import MadeSource
from unrolled.bench.material import Case, Material
from unrolled.bench.onnx_peer import onnx_step, why_no_onnx
from unrolled.bench.opened import opened
from unrolled.bench.plan import ONNX, PREPARED, Row, Sizes
from unrolled.bench.writing import model_amount, writing_case
from unrolled.cells import CELLS
from unrolled.core.errors import UsageError
from unrolled.model import LanguageModel, ModelConfig
from unrolled.predict import NeuralPredictor, PackedPredictor
from unrolled.predict.packed_program import why_not_packed

__all__ = ["cannot_decode", "decode_amount", "decode_case", "why_not_written"]

_TRIED = 3

_BYTES = {"float32": 4, "bf16": 2, "int8": 1}


def cannot_decode(row: Row) -> str | None:
    """Why a row cannot be measured, None where it can."""
    if row.run:
        if row.backend != PREPARED:
            return None
        return why_not_packed(opened(row.run).model, _quantize(row))
    if row.config is None:
        return "decoding is measured with whole models of a cell."
    if row.backend == ONNX:
        if row.subject != "lstm" or row.config != CELLS["lstm"].Config():
            return "the model in ONNX is made for plain LSTMs."
        return why_no_onnx() if row.precision != "bf16" else "ONNX Runtime has no LSTM with bf16 weights on a CPU."
    if row.backend != PREPARED:
        return None if row.precision == "float32" else "only prepared weights are kept in fewer bits."
    with torch.random.fork_rng(devices=[]):
        model = LanguageModel(_model_config(row, row.sizes.width), 2)  # the vocabulary does not matter
        return why_not_packed(model, _quantize(row))


def decode_amount(row: Row) -> int:
    """Bytes of weights that a call reads: those of all products, once a token."""
    if row.run:
        return _BYTES[row.precision] * model_amount(opened(row.run).model) * row.sizes.window
    assert row.config is not None
    cls, width = CELLS[row.subject], row.sizes.width
    streams = cls.streams(row.config)  # which are multiplied by the same matrices, read once
    of_layer = cls.flops_per_token(row.config, streams * width, width) // (2 * streams)
    return _BYTES[row.precision] * (row.layers * of_layer + row.vocabulary * width) * row.sizes.window


def _model_config(row: Row, width: int) -> ModelConfig:
    return ModelConfig.parse({"width": width, "layers": row.layers, "cell": row.config.model_dump()})  # type: ignore


def _quantize(row: Row) -> Any:
    return None if row.precision == "float32" else row.precision


def decode_case(row: Row, sizes: Sizes, material: Material) -> Case:
    """The row as a case whose output is (batch, window, V): what each token of a fixed text was predicted with."""
    vocabulary, source = row.vocabulary, None
    if row.run:
        model = opened(row.run).model
    else:
        config, key = _model_config(row, sizes.width), ("model", row.config, row.layers, vocabulary, sizes.width)
        model: LanguageModel = material.module(key, lambda: LanguageModel(config, vocabulary))
        if row.way:
            source = material.once(("source", row.text, *key), lambda: MadeSource(model, row.text))
    if row.way:
        return writing_case(row, model, sizes, source)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary, (sizes.window, sizes.batch), generator=generator)
    run = _with_onnx(row, model, ids) if row.backend == ONNX else _with_predictor(row, model, ids)
    return Case({}, run, None)


def why_not_written(row: Row, sizes: Sizes, material: Material) -> str | None:
    """Why nothing is written in the row's way, found by a few tokens; None where it is."""
    try:
        decode_case(row, sizes._replace(window=min(sizes.window, _TRIED)), material).forward()
    except UsageError as error:
        return str(error)
    return None


def _predictor(row: Row, model: LanguageModel) -> NeuralPredictor:
    if row.backend == PREPARED:
        return PackedPredictor(model, 0, quantize=_quantize(row))
    return NeuralPredictor(model, 0)


def _with_predictor(row: Row, model: LanguageModel, ids: Tensor) -> Callable[[], tuple[Tensor, ...]]:
    predictor = _predictor(row, model)
    steps = list(ids.unbind(0))
    start = predictor.begin(ids.shape[1])

    def run() -> tuple[Tensor, ...]:
        # in one place: small tensors that are kept between the parts of a large state would spoil its memory
        state, found = start, torch.empty(*ids.t().shape, row.vocabulary)
        for t, token in enumerate(steps):
            found[:, t] = predictor.predict(state).log_prob
            state = predictor.observe(state, token)
        return (found,)

    return run


def _with_onnx(row: Row, model: LanguageModel, ids: Tensor) -> Callable[[], tuple[Tensor, ...]]:
    step, start = onnx_step(model, ids.shape[1], row.precision == "int8")
    first = torch.zeros(1, ids.shape[1], dtype=torch.int64)
    tokens = [one.numpy() for one in torch.cat([first, ids[:-1]]).split(1)]  # what is read before each token

    def run() -> tuple[Tensor, ...]:
        state, found = start, []
        for token in tokens:
            log_prob, state = step(token, state)
            found.append(log_prob)
        return (torch.from_numpy(np.stack(found, 1)),)

    return run
