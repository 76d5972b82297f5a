"""learner_scan: its gradients against autograd, both rules token by token, the dual form, and what it is equal to."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from conformance.material import resets, wave
from conformance.tolerance import assert_close
from unrolled.core.errors import UnrolledError
from unrolled.kernels.learner_scan import Learned, Network, Norm, dual, learner_scan, read_with
from unrolled.kernels.learner_scan.inner import ACTIVATIONS, EPSILON, layers_of, slope_of
from unrolled.kernels.learner_scan.reference import gradient
from unrolled.kernels.matrix_scan import delta_scan, matrix_scan

B, T, H, D = 3, 13, 2, 4
NETWORKS = {
    "linear": Network((D, D)),
    "linear with bias": Network((D, D), biases=True),
    "two layers": Network((D, 7, D), biases=True),
    "three layers, silu": Network((D, 6, 5, D), activation="silu"),
    "two layers, gelu": Network((D, 3, D), activation="gelu"),
}


def plain(weights: Tensor, x: Tensor, network: Network, norm: Norm | None) -> Tensor:
    """The network of one head, from its numbers in their order, by torch's own functions."""
    entry, at = x, 0
    for place, (a, b) in enumerate(network.shapes()):
        x = ACTIVATIONS[network.activation][0](x) if place else x
        x = x @ weights[at : at + a * b].view(a, b)
        at += a * b
        if network.biases:
            x = x + weights[at : at + b]
            at += b
    return x if norm is None else entry + layer_norm(x, (D,), norm.gain[0], norm.bias[0], EPSILON)


def material(network: Network, shared: bool, norm: bool = False, chunk: int = 4, place: int = 0) -> dict[str, Any]:
    """Arguments of a call, and a state in the middle of a chunk where ``place`` is not zero."""
    numbers = network.numbers()
    q, k, v = (wave(B, T, H, D, phase=i) for i in range(3))
    first, second, third = (0.4 * wave(B, H, numbers, phase=i) for i in range(3, 6))
    gates = [wave(B, T, H, phase=i).sigmoid() for i in range(6, 9)]
    state = Learned(first, None if shared else second, third, torch.full((B,), place) + torch.arange(B) % chunk)
    state = state._replace(place=state.place % chunk)
    own = {"shares": 0.2 + wave(chunk, phase=9.0).square()} if shared else {"momentum": gates[1], "keep": gates[2]}
    norms = Norm(1 + 0.2 * wave(H, D, phase=1.5), 0.2 * wave(H, D, phase=2.5)) if norm else None
    return {"q": q, "k": k, "v": v, "step": 0.3 * gates[0], "network": network, "norm": norms, "chunk": chunk,
            "start": 0.4 * wave(H, numbers, phase=10.0), "state": state, **own}  # fmt: skip


def outcome(given: dict[str, Any], **options: Any) -> list[Tensor]:
    """Outputs, the state, and all gradients."""
    flat = {name: x.detach().requires_grad_() for name, x in given.items() if isinstance(x, Tensor)}

    def leaf(x: Any) -> Any:
        return x if x is None or x.dtype == torch.int64 else x.detach().requires_grad_()

    state = Learned(*map(leaf, given["state"]))
    norm = None if given["norm"] is None else Norm(*(x.detach().requires_grad_() for x in given["norm"]))
    o, last = learner_scan(**{**given, **flat, "state": state, "norm": norm}, **options)
    parts = [o, *(x for x in last if x is not None)]
    loss = torch.stack([(x * wave(*x.shape, phase=0.5)).sum() for x in parts if x.is_floating_point()]).sum()
    entries = [*flat.values(), *(x for x in state if x is not None and x.requires_grad), *(norm or ())]
    grads = torch.autograd.grad(loss, entries, allow_unused=True)
    zeros = [torch.zeros_like(x) if g is None else g for g, x in zip(grads, entries, strict=True)]
    return [x.detach() for x in [*parts, *zeros]]


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_is_that_of_the_error(name: str, norm: bool) -> None:
    network = NETWORKS[name]
    given = material(network, shared=False, norm=norm)
    base, k, v = given["state"].base[:1, :1], given["k"][:1, 0, :1], given["v"][:1, 0, :1]
    one = None if given["norm"] is None else Norm(*(x[:1] for x in given["norm"]))
    weights = base[0, 0].clone().requires_grad_()
    error = 0.5 * (plain(weights, k[0, 0], network, one) - v[0, 0]).square().sum()
    (wanted,) = torch.autograd.grad(error, weights)
    assert_close(gradient(base, k, v, network, one)[0, 0], wanted, "gradient")
    read = read_with(base, k.unsqueeze(1), network, one)[0, 0, 0]
    assert_close(read, plain(weights, k[0, 0], network, one).detach(), "read")


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("chunk", [1, 4])
def test_both_rules_token_by_token(shared: bool, chunk: int) -> None:
    """The equations of the docstring with autograd for the gradient, one row and one head."""
    network = NETWORKS["two layers"]
    given = material(network, shared, norm=True, chunk=chunk)
    norm = Norm(*(x[:1] for x in given["norm"]))
    begin = given["start"].expand(B, -1, -1)
    state = Learned(begin, None if shared else begin, torch.zeros_like(begin), torch.zeros(B, dtype=torch.int64))
    o, last = learner_scan(**{**given, "state": state})
    weights = base = given["start"][0]
    sums = torch.zeros_like(base)
    for t in range(T):
        if t % chunk == 0:
            base, sums = weights, torch.zeros_like(sums) if shared else sums
        at = base.clone().requires_grad_()
        error = 0.5 * (plain(at, given["k"][0, t, 0], network, norm) - given["v"][0, t, 0]).square().sum()
        move = -given["step"][0, t, 0] * torch.autograd.grad(error, at)[0]
        if shared:
            sums = sums + move
            weights = base + given["shares"][t % chunk] * sums
        else:
            sums = given["momentum"][0, t, 0] * sums + move
            weights = given["keep"][0, t, 0] * weights + sums
        assert_close(o[0, t, 0], plain(weights, given["q"][0, t, 0], network, norm), f"token {t}")
    if last.now is not None:
        assert_close(last.now[0, 0], weights, "last weights")


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_dual_form_is_the_loop(name: str, shared: bool) -> None:
    """From rows at different places of their chunks, with documents that begin in chunks, of every length."""
    for chunk, place in ((1, 0), (4, 0), (16, 9)):
        given = material(NETWORKS[name], shared, norm=chunk == 4, chunk=chunk, place=place)
        for time in (1, min(chunk + 1, T), T):
            part = {
                **given,
                **{x: given[x][:, :time] for x in ("q", "k", "v", "step", "momentum", "keep") if x in given},
            }
            home = time == T and not shared
            for reset in (None, resets(B, time)):
                wanted = outcome(part, reset=reset, backend="reference", home=home)
                for group in (0, 2):
                    found = outcome(part, reset=reset, backend="dual", group=group, home=home)
                    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
                        assert_close(a, b, f"{name}, chunk {chunk}, time {time}, group {group}: {i}")


@pytest.mark.parametrize("shared", [True, False])
def test_any_cut_is_the_whole(shared: bool) -> None:
    given = material(NETWORKS["two layers"], shared, norm=True, chunk=5, place=2)
    reset = resets(B, T)
    names = [x for x in ("q", "k", "v", "step", "momentum", "keep") if x in given]
    o, last = learner_scan(**given, reset=reset)
    for pieces in ([1] * T, [6, 1, 6], [2, 11], [12, 1], [5, 5, 3]):
        state, outputs, at = given["state"], [], 0
        for size in pieces:
            part = slice(at, at + size)
            cut = {name: given[name][:, part] for name in names}
            y, state = learner_scan(**{**given, **cut, "state": state}, reset=reset[:, part])
            outputs.append(y)
            at += size
        assert_close(torch.cat(outputs, 1), o, f"pieces {pieces}")
        for a, b in zip(state, last, strict=True):
            if a is not None and b is not None:
                assert_close(a, b, f"state after {pieces}")


def test_weights_may_decay_to_their_start() -> None:
    """With nothing to learn what is left of the weights is keep^T, and the start has the rest."""
    given = material(NETWORKS["two layers"], shared=False, chunk=4)
    given |= {
        "momentum": None,
        "step": torch.zeros(B, T, H).double(),
        "keep": torch.full((B, T, H), 0.8, dtype=torch.float64),
    }
    given["state"] = given["state"]._replace(sums=torch.zeros_like(given["state"].sums))
    for backend in ("dual", "reference"):
        for home, part in ((False, 0.0), (True, 1.0)):
            now = learner_scan(**given, home=home, backend=backend)[1].now
            assert now is not None
            expected = given["state"].now + (part * given["start"] - given["state"].now) * (1 - 0.8**T)
            assert_close(now, expected, f"{backend}, home {home}")


def test_without_momentum_and_decay_they_are_left_out() -> None:
    given = material(NETWORKS["two layers"], shared=False, chunk=4, place=1)
    for backend in ("dual", "reference"):
        whole = learner_scan(**{**given, "momentum": None, "keep": None}, backend=backend)
        ones = {"momentum": torch.zeros(B, T, H).double(), "keep": torch.ones(B, T, H).double()}
        expected = learner_scan(**{**given, **ones}, backend=backend)
        assert_close(whole[0], expected[0], "outputs")
        assert whole[1].now is not None
        assert expected[1].now is not None
        assert_close(whole[1].now, expected[1].now, "weights")


def _zero_state(given: dict[str, Any], shared: bool) -> Learned:
    zero = torch.zeros(B, H, D * D, dtype=torch.float64)
    return Learned(zero, None if shared else zero, zero, torch.zeros(B, dtype=torch.int64))


@pytest.mark.parametrize("shared", [True, False])
def test_one_layer_at_every_token_is_the_delta_rule(shared: bool) -> None:
    given = material(NETWORKS["linear"], shared, chunk=1)
    given |= {"shares": torch.ones(1).double()} if shared else {"momentum": None, "keep": None}
    for backend in ("dual", "reference"):
        o, last = learner_scan(**{**given, "state": _zero_state(given, shared)}, backend=backend)
        expected, state = delta_scan(given["q"], given["k"], given["v"], given["step"])
        assert_close(o, expected, "outputs")
        weights = last.base if last.now is None else last.now
        assert_close(layers_of(weights, given["network"])[0].weight, state, "state")


def test_with_a_decay_it_is_a_matrix_state_with_a_part_of_rank_one() -> None:
    given: dict[str, Any] = material(NETWORKS["linear"], shared=False, chunk=1) | {"momentum": None}
    o, _ = learner_scan(**{**given, "state": _zero_state(given, False)})
    q, k, v, written = given["q"], given["k"], given["v"], given["step"].unsqueeze(-1) * given["k"]
    assert_close(o, matrix_scan(q, written, v, given["keep"].log(), -k, written)[0], "outputs")


def test_one_chunk_of_one_layer_is_linear_attention() -> None:
    given = material(NETWORKS["linear"], shared=True, chunk=T)
    given |= {"shares": torch.ones(T).double(), "step": torch.ones(B, T, H).double()}
    o, _ = learner_scan(**{**given, "state": _zero_state(given, True)})
    assert_close(o, matrix_scan(given["q"], given["k"], given["v"])[0], "outputs")


@pytest.mark.parametrize(("group", "times"), [(0, 1), (1, 2), (2, 2), (9, 1)])
def test_groups_are_computed_again(group: int, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, right = [0], dual.run

    def counting(*args: Any) -> Any:
        calls[0] += 1
        return right(*args)

    monkeypatch.setattr(dual, "run", counting)
    given = material(NETWORKS["linear"], shared=True, chunk=4)
    given["state"] = given["state"]._replace(place=torch.zeros(B, dtype=torch.int64))
    outcome(given, backend="dual", group=group)
    assert calls[0] == 4 * times, "four chunks, each once or twice"


def test_rules_are_not_mixed() -> None:
    given = material(NETWORKS["linear"], shared=True)
    with pytest.raises(UnrolledError, match="shares and no weights of now"):
        learner_scan(**given, keep=given["step"])
    with pytest.raises(UnrolledError, match="shares and no weights of now"):
        learner_scan(**{**given, "shares": None})


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes_and_their_slopes(name: str) -> None:
    x = (4 * wave(50, phase=0.2)).requires_grad_()
    (first,) = torch.autograd.grad(ACTIVATIONS[name][0](x).sum(), x, create_graph=True)
    found = slope_of(x, name)
    assert_close(found.detach(), first.detach(), "slope")
    (wanted,) = torch.autograd.grad((first * wave(50)).sum(), x)
    assert_close(torch.autograd.grad((found * wave(50)).sum(), x)[0], wanted, "slope of the slope")
    with torch.no_grad():
        assert_close(slope_of(x, name), first.detach(), "without a graph")
