"""What each head is held to; every check takes a case."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from conformance.material import resets
from conformance.tolerance import assert_close
from unrolled.core.random import RandomStreams
from unrolled.core.tree import flatten
from unrolled.model import LanguageModel, ModelConfig
from unrolled.model.heads.matrix import MatrixHead

from .build import BATCH, IN, TIME, VOCABULARY, Case, cell_for, inputs, make, plain, registered, ties
from .life import check_life

__all__ = ["CHECKS"]


def begin(head: Any, dtype: torch.dtype = torch.float64) -> Any:
    return head.initial_state(BATCH, dtype=dtype)


def check_probabilities(case: Case) -> None:
    """They sum to one; under a floor, to one and the floor of every token."""
    for tied in ties(case):
        head, (h, targets, _) = make(case, tied), inputs()
        state = begin(head)
        if state is not None:
            _, _, state = head.loss(h, targets, None, state)
        log_prob, _ = head.log_prob(h[:, -1], state)
        assert log_prob.shape == (BATCH, VOCABULARY)
        mass = 1 + VOCABULARY * getattr(head.config, "floor", 0.0)
        wanted = torch.full((BATCH,), mass, dtype=torch.float64)
        assert_close(log_prob.exp().sum(-1), wanted, "sum of the probabilities")
        if state is None:
            assert_close(head.log_prob(h)[0][:, -1], log_prob, "log_prob of a window")


def check_loss(case: Case) -> None:
    """The loss is -log of the probabilities, in value and every gradient, however many logits are held at once."""
    for tied in ties(case):
        for block in (1, 100, 2**22):
            head, (h, targets, weight) = make(case, tied, block=block), inputs()
            state = begin(head)
            parameters = {name: one for name, one in head.named_parameters() if one.requires_grad}
            wanted = plain(head, h, targets, state)
            total, nll, _ = head.loss(h, targets, weight, state)
            assert_close(nll, wanted, "nats")
            assert_close(total, (wanted * weight).sum(), "weighted sum")
            found = torch.autograd.grad(2 * total, [h, *parameters.values()])
            if state is None:  # what a state carries has gradients that single steps do not see
                grads = torch.autograd.grad(2 * (wanted * weight).sum(), [h, *parameters.values()])
                for name, a, b in zip(["h", *parameters], found, grads, strict=True):
                    assert_close(a, b, f"gradient of {name} in blocks of {block}")
            with torch.no_grad():
                assert_close(head.loss(h, targets, weight, state)[0], total, "without gradients")
            assert_close(head.loss(h, targets, None, state)[0], wanted.sum(), "without weights")


def check_weights(case: Case) -> None:
    """A weight of zero leaves a position out: its target does not matter, and no weight at all is no gradient."""
    head, (h, targets, weight) = make(case), inputs()
    weight[:, -1] = 0
    total, nll, _ = head.loss(h, targets, weight, begin(head))
    assert_close(total, (nll * weight).sum(), "weighted sum")
    other = targets.clone()
    other[:, -1] = (other[:, -1] + 1) % VOCABULARY
    assert_close(head.loss(h, other, weight, begin(head))[0], total, "with another target where the weight is zero")
    parameters = [h, *(one for one in head.parameters() if one.requires_grad)]
    for part in torch.autograd.grad(total, parameters)[0][:, -1]:
        assert not part.any(), "a gradient of h where the weight is zero"
    nothing, _, _ = head.loss(h, targets, torch.zeros_like(weight), begin(head))
    assert not any(grad.any() for grad in torch.autograd.grad(nothing, parameters)), "a gradient without any weight"


def check_masks(case: Case) -> None:
    """Dropout acts on the projected output, by masks of its width; heads without one draw none."""
    head, (h, targets, _) = make(case), inputs()
    for per_step in (False, True):
        masks = head.draw_masks(BATCH, TIME, 0.5, per_step, RandomStreams(1), 0)
        mask = getattr(masks, "projected", masks if isinstance(masks, torch.Tensor) else None)
        if head.projected_width is None:
            assert mask is None
            continue
        assert mask is not None
        assert mask.shape == (BATCH, TIME if per_step else 1, head.projected_width)
        head.eval()
        masks = head.draw_masks(BATCH, TIME, 0.5, per_step, RandomStreams(1), 0)
        total, nll, _ = head.loss(h, targets, masks=masks)
        total.backward()
        assert (nll - head.loss(h, targets)[1]).abs().max() > 1e-6, "the mask does nothing"
        again = head.draw_masks(BATCH, TIME, 0.5, per_step, RandomStreams(1), 0)
        assert_close(head.loss(h, targets, masks=again)[1], nll, "the same mask again")
        other = head.draw_masks(BATCH, TIME, 0.5, per_step, RandomStreams(1), 1)
        assert (nll - head.loss(h, targets, masks=other)[1]).abs().max() > 1e-6, "every window has the same mask"
        head.train()


def check_pieces(case: Case) -> None:
    """A window in pieces with the state carried between them is the window; a reset begins anew."""
    head, (h, targets, weight) = make(case), inputs()
    reset, parameters = resets(BATCH, TIME), [h, *(one for one in head.parameters() if one.requires_grad)]
    total, nll, last = head.loss(h, targets, weight, begin(head), reset)
    grads = torch.autograd.grad(total, parameters)
    for pieces in ((1, 2, 4), (1,) * TIME):
        state, nats, sums, low = begin(head), [], torch.zeros((), dtype=torch.float64), 0
        for size in pieces:
            part = slice(low, low + size)
            ids = targets[:, part].contiguous()
            more, each, state = head.loss(h[:, part], ids, weight[:, part], state, reset[:, part])
            sums, low = sums + more, low + size
            nats.append(each)
        assert_close(torch.cat(nats, 1), nll, f"nats in pieces of {pieces}")
        for a, b in zip(torch.autograd.grad(sums, parameters), grads, strict=True):
            assert_close(a, b, f"a gradient in pieces of {pieces}")
        for name, value in flatten(last).items():
            assert_close(flatten(state)[name].double(), value.double(), f"state {name}")
    row, start = 0, TIME // 2
    fresh = head.loss(h[:, start:], targets[:, start:], weight[:, start:], begin(head))[1]
    assert_close(fresh[row], nll[row, start:], "after a reset")
    if begin(head) is not None:
        carried = head.loss(h, targets, weight, begin(head))[1]
        assert (carried[row, start:] - fresh[row]).abs().max() > 1e-6, "the state does nothing"


def check_temperature(case: Case) -> None:
    """A temperature acts on loss and probabilities alike, shares the parameters, and leaves the head as it was."""
    head, (h, targets, _) = make(case), inputs()
    h, hot = h.detach(), head.tempered(1.7)
    before, _ = head.log_prob(h[:, 0], begin(head))
    assert head.tempered(1.0) is head
    assert head.logit_scale == 1.0
    assert all(a is b for a, b in zip(head.parameters(), hot.parameters(), strict=True))
    assert_close(hot.loss(h, targets, None, begin(head))[1], plain(hot, h, targets, begin(head)), "tempered loss")
    after, _ = hot.log_prob(h[:, 0], begin(head))
    assert not torch.allclose(after, before), "the temperature does nothing"
    assert (hot.loss(h, targets)[1] - head.loss(h, targets)[1]).abs().max() > 1e-6, "nor to the loss"
    hottest, _ = head.tempered(1e9).log_prob(h[:, 0], begin(head))
    assert hottest.isfinite().all()


def check_flops(case: Case) -> None:
    """The model counts the products that one token takes."""
    with registered(case):
        config = ModelConfig.parse(
            {"width": IN, "cell": cell_for(case), "head": case.config, "compute": {"backend": "reference"}}
        )
        model = LanguageModel(config, VOCABULARY)
        state = model.initial_state(1)
        with torch.no_grad():  # what is prepared once for given weights is no part of a token's cost
            model.head.log_prob(model(torch.zeros(1, 1, dtype=torch.int64), state).raw[:, 0], state.head)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            out = model(torch.zeros(1, 1, dtype=torch.int64), state)
            model.head.log_prob(out.raw[:, 0], state.head)
        counted, said = counter.get_total_flops(), model.flops_per_token()
        assert abs(counted - said) <= 0.02 * said, f"{said} flops are said and {counted} are done"


def check_bf16(case: Case) -> None:
    """Products in bf16 are near those in float32, and other (torch's own module knows float32 alone)."""
    head, (h, targets, _) = make(case).float(), inputs()
    h, state = h.detach().float(), begin(head, torch.float32)
    _, exact, _ = head.loss(h, targets, None, state)
    head.compute = head.compute.model_copy(update={"precision": "bf16"})
    total, low, _ = head.loss(h, targets, None, state)
    assert total.dtype == torch.float32
    assert low.isfinite().all()
    error = float((low - exact).abs().max())
    assert error < 0.2, f"bf16 is {error:.2g} nats off"
    assert error > 0 or not isinstance(head, MatrixHead), "computes in float32"
    mass = 1 + VOCABULARY * getattr(head.config, "floor", 0.0)
    assert (head.log_prob(h[:, 0], state)[0].exp().sum(-1) - mass).abs().max() < 2e-3


CHECKS: dict[str, Callable[[Case], None]] = {
    check.__name__.removeprefix("check_"): check
    for check in (
        check_probabilities, check_loss, check_weights, check_masks, check_pieces, check_temperature, check_flops,
        check_bf16, check_life,
    )
}  # fmt: skip
