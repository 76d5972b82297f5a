"""The joint of some frames at a time, so that its distributions never exist at once."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["lattice", "losses"]


def losses(
    encoded: Tensor,
    predicted: Tensor,
    matrix: Tensor,
    bias: Tensor,
    labels: Tensor,
    frames: Tensor,
    lengths: Tensor,
    blank: int,
    block: int,
) -> Tensor:
    """See :func:`unrolled.kernels.rnnt_loss.rnnt_loss`. Two numbers a node are kept for the backward pass."""
    step = max(1, block // (predicted.shape[0] * predicted.shape[1] * len(bias)))
    return _Losses.apply(encoded, predicted, matrix, bias, labels, frames, lengths, blank, step)  # type: ignore


class _Losses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        encoded: Tensor,
        predicted: Tensor,
        matrix: Tensor,
        bias: Tensor,
        labels: Tensor,
        frames: Tensor,
        lengths: Tensor,
        blank: int,
        step: int,
    ) -> Tensor:
        silent, spoken = [], []
        for part in encoded.split(step, 1):
            _, logits = _joint(part, predicted, matrix, bias)
            norm = logits.logsumexp(-1)
            silent.append(logits[..., blank] - norm)
            aimed = logits[:, :, :-1].gather(3, _aims(labels, part)).squeeze(3)
            spoken.append(aimed - norm[:, :, :-1])
        nats, by_blank, by_label = lattice(torch.cat(silent, 1), torch.cat(spoken, 1), frames, lengths)
        ctx.save_for_backward(encoded, predicted, matrix, bias, labels, by_blank, by_label)
        ctx.blank, ctx.step = blank, step
        return nats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        encoded, predicted, matrix, bias, labels, by_blank, by_label = ctx.saved_tensors
        weight = grad.view(-1, 1, 1)
        by_blank, by_label = by_blank * weight, by_label * weight
        of_encoded, of_predicted = [], torch.zeros_like(predicted)
        of_matrix, of_bias = torch.zeros_like(matrix), torch.zeros_like(bias)
        for part, silent, spoken in zip(
            encoded.split(ctx.step, 1), by_blank.split(ctx.step, 1), by_label.split(ctx.step, 1), strict=True
        ):
            hidden, logits = _joint(part, predicted, matrix, bias)
            whole = silent.clone()
            whole[:, :, :-1] += spoken
            d = torch.softmax(logits, -1).mul_(-whole.unsqueeze(3))
            d[..., ctx.blank] += silent
            d[:, :, :-1].scatter_add_(3, _aims(labels, part), spoken.unsqueeze(3))
            flat = d.flatten(0, 2)
            of_matrix += flat.t() @ hidden.flatten(0, 2)
            of_bias += flat.sum(0)
            inner = (d @ matrix).mul_(1 - hidden.square())
            of_encoded.append(inner.sum(2))
            of_predicted += inner.sum(1)
        return torch.cat(of_encoded, 1), of_predicted, of_matrix, of_bias, *[None] * 5


def _joint(encoded: Tensor, predicted: Tensor, matrix: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The hidden values (batch, t, U+1, D) and the logits (batch, t, U+1, V)."""
    hidden = torch.tanh(encoded.unsqueeze(2) + predicted.unsqueeze(1))
    return hidden, hidden @ matrix.t() + bias


def _aims(labels: Tensor, part: Tensor) -> Tensor:
    """Labels as indices (batch, t, U, 1)."""
    return labels.view(len(labels), 1, -1, 1).expand(-1, part.shape[1], -1, -1)


@torch.no_grad()
def lattice(blank: Tensor, label: Tensor, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The sum over all alignments by the forward-backward algorithm, one anti-diagonal t+u after another.

    Args:
        blank: (batch, T, U+1), label: (batch, T, U) log-probabilities of the two ways out of a node.
        frames, lengths: (batch,), the nodes that a row has.
    Returns:
        nats (batch,), and their gradients with respect to ``blank`` and ``label``: minus the chance of each way.
    """
    batch, time, said = blank.shape
    device, none = blank.device, -torch.inf
    last = frames + lengths - 1  # each row's last anti-diagonal
    u = torch.arange(said, device=device)
    inside = (torch.arange(time, device=device).view(1, -1, 1) < frames.view(-1, 1, 1)) & (
        u.view(1, 1, -1) <= lengths.view(-1, 1, 1)
    )
    # (anti-diagonal, batch, u); label has no way out of the last u
    silent = _turned(torch.where(inside, blank, none))
    way = torch.nn.functional.pad(label, (0, 1), value=none)
    spoken = _turned(torch.where(inside & (u < lengths.view(-1, 1)).unsqueeze(1), way, none))
    alpha = torch.full_like(silent, none)
    alpha[0, :, 0] = 0
    for n in range(1, len(alpha)):
        alpha[n] = alpha[n - 1] + silent[n - 1]
        alpha[n, :, 1:] = torch.logaddexp(alpha[n, :, 1:], alpha[n - 1, :, :-1] + spoken[n - 1, :, :-1])
    beta = torch.full((len(alpha) + 1, batch, said + 1), none, dtype=blank.dtype, device=device)
    rows = torch.arange(batch, device=device)
    beta[last + 1, rows, lengths] = 0  # after the last blank
    ways = torch.full_like(silent, none), torch.full_like(spoken, none)
    for n in range(len(alpha) - 1, -1, -1):
        ways[0][n], ways[1][n] = silent[n] + beta[n + 1, :, :said], spoken[n] + beta[n + 1, :, 1:]
        # a row's own end, which lies on the next anti-diagonal, is kept
        beta[n, :, :said] = torch.logaddexp(beta[n, :, :said], torch.logaddexp(ways[0][n], ways[1][n]))
    total = beta[0, :, 0]
    by_blank, by_label = (_back(-(alpha + one - total.view(-1, 1)).exp(), time) for one in ways)
    return -total, by_blank, by_label[:, :, :-1]


def _turned(nodes: Tensor) -> Tensor:
    """(batch, T, U+1) -> (T+U, batch, U+1): node (t, u) at anti-diagonal t+u; -inf where there is none."""
    time, said = nodes.shape[1:]
    u = torch.arange(said, device=nodes.device)
    t = torch.arange(time + said - 1, device=nodes.device).unsqueeze(1) - u
    there = (t >= 0) & (t < time)
    return torch.where(there.unsqueeze(1), nodes[:, t.clamp(0, time - 1), u].transpose(0, 1), -torch.inf)


def _back(turned: Tensor, time: int) -> Tensor:
    """The inverse of :func:`_turned`."""
    u = torch.arange(turned.shape[2], device=turned.device)
    t = torch.arange(time, device=turned.device).unsqueeze(1)
    return turned[t + u, :, u].permute(2, 0, 1)
