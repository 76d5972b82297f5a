"""The definition: the whole joint, and the recurrence node by node."""

import torch
from torch import Tensor

__all__ = ["losses"]


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
    """See :func:`unrolled.kernels.rnnt_loss.rnnt_loss`; (batch, T, U+1, V) numbers are held."""
    joint = torch.tanh(encoded.unsqueeze(2) + predicted.unsqueeze(1)) @ matrix.t() + bias
    log_prob = torch.log_softmax(joint, -1)
    batch, time, said = log_prob.shape[:3]
    rows = torch.arange(batch, device=encoded.device)
    alpha: list[list[Tensor]] = []
    for t in range(time):
        alpha.append([])
        for u in range(said):
            ways = [alpha[t - 1][u] + log_prob[:, t - 1, u, blank]] if t else []
            if u:
                ways.append(alpha[t][u - 1] + log_prob[rows, t, u - 1, labels[:, u - 1]])
            first = log_prob.new_zeros(batch)
            alpha[t].append(torch.logaddexp(ways[0], ways[1]) if len(ways) > 1 else ways[0] if ways else first)
    ends = torch.stack([torch.stack(row) for row in alpha])[frames - 1, lengths, rows]
    return -(ends + log_prob[rows, frames - 1, lengths, blank])
