"""An exported step beside the predictor, over drawn tokens."""

from typing import Any

import numpy as np
import torch

from unrolled.model import LanguageModel, ModelConfig
from unrolled.predict import NeuralPredictor
from unrolled.predict.base import Predictor
from unrolled.serve.onnx.graph import onnx_graph
from unrolled.serve.onnx.quantised import quantise_products
from unrolled.serve.onnx.session import OnnxStep
from unrolled.serve.onnx.step import Step, plain_model
from unrolled.serve.onnx.write import described

VOCABULARY, STEPS = 23, 12


def tiny_model(**settings: Any) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(ModelConfig.parse({"width": 12, "layers": 2, **settings}), VOCABULARY).eval()


def exported_step(model: LanguageModel, int8: bool = False, logits: bool = False, batch: int | None = None) -> OnnxStep:
    """The step, read back from the bytes of its file."""
    plain = plain_model(model)
    if int8:
        quantise_products(plain)
    step = Step(plain, logits)
    return OnnxStep(described(onnx_graph(step, batch), step, {"start_id": "0"}))


def largest_error(
    step: OnnxStep, model: LanguageModel, predictor: Predictor | None = None, carry: bool = True
) -> float:
    """Over all log-probabilities of some steps, of one row and of several.

    Args:
        carry: pass the state on, as one must.
    """
    predictor = predictor or NeuralPredictor(model, 0)
    worst = 0.0
    generator = torch.Generator().manual_seed(1)
    for batch in (1, 3):
        ids = torch.zeros(batch, dtype=torch.int64)
        state, own = predictor.begin(batch), step.initial(batch)
        for _ in range(STEPS):
            scores, after = step.step(ids.numpy(), own)
            own = after if carry else own
            found = torch.log_softmax(torch.from_numpy(scores), -1) if step.scores == "logits" else scores
            worst = max(worst, float(np.abs(np.asarray(found) - predictor.predict(state).log_prob.numpy()).max()))
            ids = torch.randint(model.vocab_size, (batch,), generator=generator)
            state = predictor.observe(state, ids)
    return worst
