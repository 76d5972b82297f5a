"""softmax_scan: every backend against the plain loop, and the loop against softmax attention and decayed sums."""

import pytest
import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.kernels.cpu import why_no_library
from unrolled.kernels.dispatch import choose
from unrolled.kernels.softmax_scan import BACKENDS, Weighted, empty, softmax_scan

FAST = [name for name in BACKENDS if name != "reference"]
DECAYS = {"none": None, "per channel": (5,), "per step": (3, None, 5), "of the step alone": (1, None, 1)}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs(time: int, decay: str, bonus: bool, heads: bool = False) -> dict[str, Tensor]:
    given = {"s": 3 * draw(3, time, 5, seed=1), "v": draw(3, time, 5, *([4] if heads else []), seed=2)}
    given |= {"m": draw(3, 5, seed=5), "u": draw(3, 5, seed=6).exp(), "w": draw(*given["v"][:, 0].shape, seed=7)}
    shape = DECAYS[decay]
    if shape is not None:
        given["log_decay"] = -draw(*(time if size is None else size for size in shape), seed=3).exp()
    return given | ({"bonus": draw(5, seed=4)} if bonus else {})


def outcome(backend: str, given: dict[str, Tensor], reset: Tensor | None) -> dict[str, Tensor]:
    given = {name: part.detach().requires_grad_() for name, part in given.items()}
    start = Weighted(given["m"], given["u"], given["w"])
    rest = (given.get("log_decay"), given.get("bonus"), start, reset, backend)
    y, state = softmax_scan(given["s"], given["v"], *rest)
    found = {"y": y, **{f"last {name}": part for name, part in state._asdict().items()}}
    loss = torch.stack([(part * draw(*part.shape, seed=9)).sum() for part in found.values()]).sum()
    grads = torch.autograd.grad(loss, list(given.values()))
    return found | {f"gradient of {name}": grad for name, grad in zip(given, grads, strict=True)}


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("time", [1, 2, 3, 17])
@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("bonus", [False, True])
@pytest.mark.parametrize("resets", [False, True])
def test_backends_agree(backend: str, time: int, decay: str, bonus: bool, resets: bool) -> None:
    if backend == "native" and why_no_library():
        with pytest.raises(UsageError, match="cannot run scan: "):
            softmax_scan(draw(1, 1, 1), draw(1, 1, 1), backend=backend)
        return
    reset = torch.zeros(3, time, dtype=torch.bool) if resets else None
    if reset is not None:
        reset[1, 0] = reset[0, time // 2] = reset[2, ::3] = reset[2, -1] = True
    for heads in (False, True):
        given = inputs(time, decay, bonus, heads)
        wanted = outcome("reference", given, reset)
        for name, found in outcome(backend, given, reset).items():
            torch.testing.assert_close(
                found, wanted[name], rtol=1e-9, atol=1e-10, msg=lambda said, n=name: f"{n}: {said}"
            )


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_decay_it_is_attention_over_each_prefix(backend: str) -> None:
    if backend == "native" and why_no_library():
        return
    s, v = 3 * draw(2, 11, 3), draw(2, 11, 3, 4, seed=1)
    y, _ = softmax_scan(s, v, backend=backend)
    for t in range(11):
        weights = torch.softmax(s[:, : t + 1], 1)
        torch.testing.assert_close(y[:, t], (weights.unsqueeze(-1) * v[:, : t + 1]).sum(1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_with_decay_and_bonus_it_is_the_wkv_of_rwkv(backend: str) -> None:
    """The sums as the paper writes them, without any care for their range."""
    if backend == "native" and why_no_library():
        return
    k, v, decay, bonus = draw(2, 9, 3), draw(2, 9, 3, seed=1), -draw(3, seed=2).exp(), draw(3, seed=3)
    y, _ = softmax_scan(k, v, decay, bonus, backend=backend)
    for t in range(9):
        past = torch.stack([decay * (t - 1 - i) + k[:, i] for i in range(t)] + [bonus + k[:, t]], 1).exp()
        torch.testing.assert_close(y[:, t], (past * v[:, : t + 1]).sum(1) / past.sum(1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_extreme_scores_stay_finite(backend: str) -> None:
    if backend == "native" and why_no_library():
        return
    s = torch.tensor([300.0, -300.0, 40.0, -40.0, 1000.0, 0.0]).view(1, 6, 1).requires_grad_()
    v = draw(1, 6, 1).float().requires_grad_()
    for bonus in (None, torch.tensor([50.0])):
        y, state = softmax_scan(s, v, torch.tensor([-20.0]), bonus, backend=backend)
        grads = torch.autograd.grad(y.sum() + state.w.sum(), (s, v))
        assert all(bool(part.isfinite().all()) for part in (y, *state, *grads))
        low, high = v.detach().aminmax()
        assert bool(((y > low - 1e-6) & (y < high + 1e-6)).all()), "a mean lies among the values"


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_state_of_a_long_window_is_exact_in_float32(backend: str) -> None:
    """Decays of a whole window are large sums; the differences that weights are made of are not."""
    if backend == "native" and why_no_library():
        return
    s, v, decay = draw(1, 4096, 2), draw(1, 4096, 2, seed=1), torch.tensor([-8.0, -0.001], dtype=torch.float64)
    wanted, _ = softmax_scan(s, v, decay, backend="reference")
    y, _ = softmax_scan(s.float(), v.float(), decay.float(), backend=backend)
    assert float((y - wanted).abs().max()) < 2e-5


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_reset_leaves_the_empty_state_before_the_step(backend: str) -> None:
    if backend == "native" and why_no_library():
        return
    given = inputs(4, "per channel", True)
    start, rest = Weighted(given["m"], given["u"], given["w"]), (given["log_decay"], given["bonus"])
    reset = torch.tensor([[0, 0, 0, 1]] * 3, dtype=torch.bool)
    found = softmax_scan(given["s"], given["v"], *rest, start, reset, backend)
    alone = softmax_scan(given["s"][:, 3:], given["v"][:, 3:], *rest, empty(given["w"]), backend=backend)
    assert torch.equal(found[0][:, 3:], alone[0])
    assert all(torch.equal(part, other) for part, other in zip(found[1], alone[1], strict=True))


def test_gradients_are_those_of_finite_differences() -> None:
    given = inputs(4, "per channel", True)
    names, parts = list(given), [part[:2] if part.dim() > 1 else part for part in given.values()]

    def run(*parts: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(names, parts, strict=True))
        start = Weighted(named["m"], named["u"], named["w"])
        y, state = softmax_scan(named["s"], named["v"], named["log_decay"], named["bonus"], start, backend="reference")
        return (y, *state)

    assert torch.autograd.gradcheck(run, [part.requires_grad_() for part in parts], fast_mode=True)


def test_other_devices_have_no_loop_over_time() -> None:
    s, m = torch.ones(2, 9, 3, device="meta"), torch.zeros(2, 3, device="meta")
    assert choose("softmax_scan", BACKENDS, "auto", "test", s, s, None, None, m, m, m, None).name == "closed"
