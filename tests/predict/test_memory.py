"""A model with a memory over segments, read by predictors: whole, token by token, and with packed weights."""

import pytest
import torch

from unrolled.kernels.cpu import why_no_library
from unrolled.model import LanguageModel, ModelConfig
from unrolled.predict import NeuralPredictor
from unrolled.predict.packed import PackedPredictor


@pytest.mark.parametrize("cell", ["lstm", "window_attention"])
def test_windows_steps_and_packed_weights_agree(cell: str) -> None:
    torch.manual_seed(0)
    shape = {"width": 8, "layers": 2, "cell": cell, "memory": {"name": "tokens", "segment": 5, "slots": 2}}
    model = LanguageModel(ModelConfig.model_validate(shape), 11).eval()
    ids = torch.randint(0, 11, (1, 17), generator=torch.Generator().manual_seed(1))
    plain = NeuralPredictor(model, 0)
    wanted = plain.window(plain.begin(1), ids).nll
    predictors = [plain] if why_no_library() else [plain, PackedPredictor(model, 0)]
    for predictor in predictors:
        state, found = predictor.begin(1), []
        for token in ids[0]:
            found.append(-predictor.predict(state).log_prob[0, token])
            state = predictor.observe(state, token.view(1))
        torch.testing.assert_close(torch.stack(found), wanted[0], rtol=1e-5, atol=1e-5)
