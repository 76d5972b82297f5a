"""The whole suite on mixers of three kinds, and they are trained, saved and read from by name."""

from collections.abc import Iterator

import pytest
import torch

from unrolled.cells import CELLS
from unrolled.core.tree import leaves
from unrolled.model import LanguageModel, ModelConfig
from unrolled.predict import NeuralPredictor

from .build import Case
from .checks import CHECKS
from .probes import PROBES

NAMES = {cls.EXAMPLES[0].name: cls for cls in PROBES}
CASES = [Case(name, index) for name, cls in NAMES.items() for index in range(len(cls.EXAMPLES))]


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    for name, cls in NAMES.items():
        CELLS.add(name, cls)
    yield
    for name in NAMES:
        CELLS.remove(name)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_probe(case: Case, check: str) -> None:
    CHECKS[check](case)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_them_reads_in_pieces_what_it_reads_at_once(name: str) -> None:
    torch.manual_seed(0)
    config = {"width": 12, "cell": f"{name}*2, mlp", "stack": {"kind": "residual"}}
    model = LanguageModel(ModelConfig.parse(config), 7).double()
    assert model.config.layers == 3
    tokens = torch.arange(24).view(2, 12) % 7
    reset = torch.zeros(2, 12, dtype=torch.bool)
    reset[1, 5] = True
    whole = model(tokens, reset=reset)
    state, parts = None, []
    for piece, flags in zip(tokens.split(5, 1), reset.split(5, 1), strict=True):
        out = model(piece, state, flags)
        state = out.state
        parts.append(out.raw)
    torch.testing.assert_close(torch.cat(parts, 1), whole.raw, rtol=1e-10, atol=1e-12)
    for part, other in zip(leaves(state), leaves(whole.state), strict=True):
        torch.testing.assert_close(part, other, rtol=1e-10, atol=1e-12)
    predictor = NeuralPredictor(model, 0)
    scores = predictor.window(predictor.begin(2), tokens)
    steps = predictor.begin(2)
    for t in range(12):
        nll = -predictor.predict(steps).log_prob.gather(1, tokens[:, t : t + 1])
        torch.testing.assert_close(nll[:, 0], scores.nll[:, t], rtol=1e-9, atol=1e-12)
        steps = predictor.observe(steps, tokens[:, t])
