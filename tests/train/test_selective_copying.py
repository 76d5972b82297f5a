"""A cell whose gates do not see its state remembers what it chooses to: selective copying (Gu and Dao 2023)."""

import pytest
import torch
from torch import Tensor

from unrolled.model import LanguageModel, ModelConfig

SYMBOLS, DATA, BLANKS = 16, 16, 16
BLANK, CUE = SYMBOLS, SYMBOLS + 1


def _batch(rows: int, blanks: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Symbols at random places among blanks, then as many cues, at each of which the next symbol is to be said.

    Returns:
        tokens, targets and weights, each (rows, 2 * DATA + blanks).
    """
    length = DATA + blanks
    tokens = torch.full((rows, length + DATA), BLANK)
    tokens[:, length:] = CUE
    symbols = torch.randint(SYMBOLS, (rows, DATA), generator=generator)
    places = torch.rand(rows, length, generator=generator).argsort(1)[:, :DATA].sort(1).values
    tokens.scatter_(1, places, symbols)
    targets, weight = torch.zeros_like(tokens), torch.zeros(tokens.shape)
    targets[:, length:], weight[:, length:] = symbols, 1
    return tokens, targets, weight


def _accuracy(model: LanguageModel, tokens: Tensor, targets: Tensor) -> float:
    with torch.no_grad():
        said = model.head.log_prob(model(tokens).dropped)[0].argmax(-1)
    return float((said == targets)[:, -DATA:].double().mean())


@pytest.mark.slow
def test_three_layers_of_mingru_copy_sixteen_symbols() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    stack = {"kind": "residual", "norm": "rms", "mlp": 2.0}
    config = {"width": 64, "layers": 3, "cell": "mingru", "stack": stack}
    model = LanguageModel(ModelConfig.parse(config), SYMBOLS + 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0)
    draw, steps = torch.Generator().manual_seed(1), 3000
    # blanks come one by one over the first half; the rate falls to zero
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 100) * (1 - step / steps))
    for step in range(steps):
        tokens, targets, weight = _batch(64, min(BLANKS, 2 * BLANKS * step // steps), draw)
        loss = model.loss(tokens, targets, weight=weight)[0] / weight.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    tokens, targets, _ = _batch(500, BLANKS, torch.Generator().manual_seed(9))
    assert _accuracy(model, tokens, targets) > 0.95
