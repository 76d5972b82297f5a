"""Head scales of attention without positions: one number a head, trained alone, never below 1."""

import torch

from unrolled.core.parameters import freeze, rules_of
from unrolled.model import LanguageModel, ModelConfig
from unrolled.optim.optimizers import AdamConfig, build_optimizer

HEADS, LAYERS, V = 3, 2, 11
CELL = {"name": "window_attention", "heads": HEADS, "context": 32, "positions": "none"}


def model(scaled: bool) -> LanguageModel:
    torch.manual_seed(0)
    cell = {**CELL, "head_scale": scaled}
    stack = {"kind": "residual", "mlp": 2.0}
    return LanguageModel(ModelConfig.parse({"width": 12, "layers": LAYERS, "cell": cell, "stack": stack}), V)


def test_scales_of_one_change_no_bit() -> None:
    plain, scaled = model(False), model(True)
    missing, unexpected = scaled.load_state_dict(plain.state_dict(), strict=False)
    assert [name.rsplit(".", 1)[1] for name in missing] == ["head_scale"] * LAYERS
    assert not unexpected
    tokens = torch.arange(20).view(1, 20) % V
    assert torch.equal(plain(tokens).raw, scaled(tokens).raw)


def test_tuning_moves_the_scales_alone_and_keeps_them_above_one() -> None:
    tuned = model(True)
    before = {name: value.clone() for name, value in tuned.state_dict().items()}
    freeze(tuned, ["*.head_scale"])
    assert sum(p.numel() for p in tuned.parameters() if p.requires_grad) == HEADS * LAYERS
    optimizer = build_optimizer(AdamConfig(lr=0.1), tuned.parameters(), rules_of(tuned))
    tokens = torch.arange(20).view(1, 20) * 7 % V
    least = []
    for _ in range(5):
        optimizer.zero_grad()
        total, _, _ = tuned.loss(tokens[:, :-1], tokens[:, 1:])
        total.backward()
        gradients = [p.grad for p in tuned.parameters() if p.requires_grad]
        assert all(grad is not None and bool(grad.any()) for grad in gradients)
        optimizer.step()
        least.append(min(float(p.detach().min()) for p in tuned.parameters() if p.requires_grad))
    assert min(least) == 1.0, "Adam moves each by its rate, down as well as up, and the bound holds"
    moved = {name for name, value in tuned.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.endswith(".head_scale") for name in moved)
