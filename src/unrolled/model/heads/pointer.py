"""Pointer sentinel mixture."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.model.heads.blocks import blockwise_loss
from unrolled.model.heads.matrix import MatrixConfig, MatrixHead

__all__ = ["PointerConfig", "PointerHead", "PointerState"]

# scores held at once: columns x steps x positions pointed at
_SCORES = 2**22


class PointerConfig(MatrixConfig):
    """Options of the pointer sentinel mixture."""

    name: Literal["pointer"] = "pointer"
    length: int = Field(default=100, ge=1, le=1 << 20, description="last words L that the pointer may point at")
    gate_loss: float = Field(
        default=0.0,
        ge=0,
        le=1e6,
        description="in training, times -log of the gate's share of the right answer: the sentinel's mass plus that of "
        "the positions that hold the target (a term of the paper, remembered, not checked)",
    )


class PointerState(NamedTuple):
    """The last L positions, newest last. keys: (batch, L, D) outputs h. ids: (batch, L) the words that followed them.
    fill: (batch, 1) how many of them are filled, counted from the last reset."""

    keys: Tensor
    ids: Tensor
    fill: Tensor


class PointerHead(MatrixHead):
    r"""Pointer sentinel mixture (Merity, Xiong, Bradbury and Socher 2017).

    .. math::
        q &= \tanh(W_q h + b_q), \quad z_i = q \cdot h_i \; (i < t, \text{ the last } L), \quad z_s = q \cdot s \\
        a &= \operatorname{softmax}([z; z_s]), \quad g = a_s \\
        p(w) &= g \, p_{\text{softmax}}(w) + \sum_{i: x_{i+1} = w} a_i

    s is the sentinel, a learned vector. h is the last output as the head receives it: dropped in training. The last L
    positions are part of the head's state and are carried from window to window; a reset empties them.
    """

    Config = PointerConfig
    EXAMPLES = (
        PointerConfig(length=4),
        PointerConfig(length=9, bias=False, project=4),
        PointerConfig(length=1, bias_init="unigram", init="orthogonal"),
    )

    def __init__(self, in_width: int, vocab_size: int, config: PointerConfig, tied: nn.Parameter | None = None):
        super().__init__(in_width, vocab_size, config, tied)
        self.query = nn.Parameter(torch.empty(in_width, in_width))
        self.query_bias = nn.Parameter(torch.empty(in_width))
        self.sentinel = nn.Parameter(torch.empty(in_width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Query and sentinel start as ``torch.nn.Linear``."""
        super().reset_parameters()
        for parameter in (self.query, self.query_bias, self.sentinel):
            nn.init.uniform_(parameter, -(self.in_width**-0.5), self.in_width**-0.5)

    def extra_flops(self) -> int:
        """See :meth:`Head.extra_flops`: the scores."""
        return 2 * (self.config.length + 1) * self.in_width

    def initial_state(self, batch: int, device: Any = None, dtype: Any = None) -> PointerState:
        """Nothing to point at."""
        length = self.config.length
        keys = torch.zeros(batch, length, self.in_width, device=device, dtype=dtype)
        ids = torch.zeros(batch, length, device=device, dtype=torch.int64)
        return PointerState(keys, ids, torch.zeros(batch, 1, device=device, dtype=torch.int64))

    def learn(self, h: Tensor, ids: Tensor, state: PointerState) -> PointerState:
        """See :meth:`Head.learn`."""
        keys, known = torch.cat([state.keys, h.unsqueeze(1)], 1), torch.cat([state.ids, ids.unsqueeze(1)], 1)
        return PointerState(keys[:, 1:], known[:, 1:], (state.fill + 1).clamp_max(self.config.length))

    def _attention(self, h: Tensor, keys: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithms of the positions' shares and of the gate.

        Args:
            h: (batch, time, D). keys: (batch, positions, D). valid: (batch, time, positions), where it may point.
        """
        q = torch.tanh(self.linear(h, self.query, self.query_bias))
        scores = (q @ keys.transpose(1, 2)).masked_fill(~valid, -torch.inf)
        both = torch.log_softmax(torch.cat([scores, (q @ self.sentinel).unsqueeze(-1)], -1), -1)
        return both[..., :-1], both[..., -1]

    def _window(
        self, h: Tensor, targets: Tensor, state: PointerState, reset: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Keys and ids of the L positions before the window and those in it, and for each its number of resets before
        and whether it is filled."""
        keys, ids = torch.cat([state.keys, h], 1), torch.cat([state.ids, targets], 1)
        length = self.config.length
        since = torch.zeros_like(targets) if reset is None else reset.cumsum(1)
        since = torch.cat([torch.zeros_like(state.ids), since], 1)
        places = torch.arange(length, device=h.device)
        filled = torch.cat([places >= length - state.fill, torch.ones_like(targets, dtype=torch.bool)], 1)
        return keys, ids, since, filled

    def _mass(
        self, h: Tensor, targets: Tensor, state: PointerState, reset: Tensor | None
    ) -> tuple[Tensor, Tensor, PointerState]:
        """Logarithms of the gate and of the pointer's mass on each target, both (batch, time), and the new state."""
        keys, ids, since, filled = self._window(h, targets, state, reset)
        length, (batch, time) = self.config.length, targets.shape
        steps = max(1, int((_SCORES / batch) ** 0.5) - length)
        # finite in place of log 0: the logarithm of an empty sum has no gradient
        nothing = torch.finfo(h.dtype).min / 4
        gates, masses = [], []
        for low in range(0, time, steps):
            high = min(low + steps, time)
            part = slice(low, high + length)
            # position i of the slice stands before step t of it when i < t + L, and not too far when i >= t
            offset = (
                torch.arange(high - low + length, device=h.device) - torch.arange(high - low, device=h.device)[:, None]
            )
            valid = ((offset >= 0) & (offset < length)).unsqueeze(0) & filled[:, None, part]
            valid = valid & (since[:, None, part] == since[:, low + length : high + length, None])
            share, gate = self._attention(h[:, low:high], keys[:, part], valid)
            hit = valid & (ids[:, None, part] == targets[:, low:high, None])
            gates.append(gate)
            masses.append(share.masked_fill(~hit, nothing).logsumexp(-1))
        current = since[:, -1:] == since[:, -length:]
        fill = (filled[:, -length:] & current).sum(1, keepdim=True)
        new = PointerState(keys[:, -length:], ids[:, -length:], fill)
        return torch.cat(gates, 1), torch.cat(masses, 1), new

    def _nll(self, inputs: Sequence[Tensor], targets: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        h, gate, mass = inputs
        logits = self.linear(h, parameters[0], parameters[1] if len(parameters) > 1 else None)
        chosen = logits.gather(1, targets.unsqueeze(1)).squeeze(1) - logits.logsumexp(1)
        return -torch.logaddexp(gate + chosen, mass)

    def loss(
        self,
        h: Tensor,
        targets: Tensor,
        weight: Tensor | None = None,
        state: PointerState | None = None,
        reset: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, PointerState]:
        """See :meth:`Head.loss`; the reported nats are without the gate's term."""
        state = state if state is not None else self.initial_state(h.shape[0], h.device, h.dtype)
        gate, mass, new = self._mass(h, targets, state, reset)
        inputs = [self.project(h, masks).flatten(0, 1), gate.flatten(), mass.flatten()]
        parameters = [p for p in (self.weight, self.scaled_bias) if p is not None]
        each = None if weight is None else weight.flatten().to(h.dtype)
        rows = self.config.block // self.vocab_size
        total, nll = blockwise_loss(self._nll, inputs, targets.flatten(), parameters, each, rows)
        if self.config.gate_loss and torch.is_grad_enabled():
            missed = -torch.logaddexp(gate, mass)
            total = total + self.config.gate_loss * (missed if weight is None else missed * weight).sum()
        return total, nll.view_as(targets), new

    def log_prob(
        self, h: Tensor, state: PointerState | None = None, masks: Tensor | None = None
    ) -> tuple[Tensor, PointerState | None]:
        """See :meth:`Head.log_prob`; h is (batch, in_width), or any shape without a state, which is then empty."""
        log_vocab = self.softmax(self.project(h, masks))
        if state is None:
            return log_vocab, None
        places = torch.arange(self.config.length, device=h.device)
        valid = (places >= self.config.length - state.fill).unsqueeze(1)
        share, gate = self._attention(h.unsqueeze(1), state.keys, valid)
        pointed = torch.zeros_like(log_vocab).scatter_add(1, state.ids, share.squeeze(1).exp())
        return torch.logaddexp(gate + log_vocab, pointed.clamp_min(torch.finfo(h.dtype).tiny).log()), state
