"""All scores of a window at once, and torch's own attention."""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from unrolled.kernels.bias_attention.reference import EMPTY, WEIGHTS, Inputs

__all__ = ["attend", "attend_torch", "refuse_torch", "seen_of"]


def seen_of(given: Inputs) -> Tensor:
    """Boolean (batch or 1, 1 or heads, time, keys): what each query sees."""
    time, keys = given.q.shape[1], given.k.shape[1]
    place = torch.arange(keys, device=given.q.device)
    past = place <= place[keys - time :, None]
    if given.first is None:
        return past.view(1, 1, time, keys)
    first = given.first.transpose(1, 2).unsqueeze(-1)
    return past & ((place >= first) | (place < given.always))


def _biased(given: Inputs) -> Tensor | None:
    """What is added to the scores, broadcast to (batch, heads, time, keys); None where nothing is."""
    bias = given.bias
    if given.level is not None:
        level, time, always = given.level.transpose(1, 2), given.q.shape[1], given.always
        between = level[:, :, -time:].unsqueeze(-1) - level.unsqueeze(-2)
        between = torch.cat([torch.zeros_like(between[..., :always]), between[..., always:]], -1)
        bias = between if bias is None else between + bias
    return bias


def _shared(part: Tensor, heads: int) -> Tensor:
    """(batch, keys, groups, n) -> (batch, heads, keys, n)."""
    groups = part.shape[2]
    part = part.transpose(1, 2)
    return part if groups == heads else part.repeat_interleave(heads // groups, 1)


def attend(given: Inputs) -> tuple[Tensor, Tensor | None]:
    """See :func:`unrolled.kernels.bias_attention.reference.attend`."""
    heads = given.q.shape[2]
    k, v = _shared(given.k, heads), _shared(given.v, heads)
    s = given.scale * (given.q.transpose(1, 2) @ k.mT)
    if (bias := _biased(given)) is not None:
        s = s + bias
    seen = seen_of(given)
    if given.weights != "softmax":
        return (WEIGHTS[given.weights](s).masked_fill(~seen, 0) @ v).transpose(1, 2), None
    some = seen.any(-1, keepdim=True)
    s = s.masked_fill(~seen, EMPTY)
    lse = torch.where(some, torch.logsumexp(s, -1, keepdim=True), EMPTY) if given.lse else None
    y = (torch.softmax(s, -1).masked_fill(~seen, 0) @ v).transpose(1, 2)
    return y, None if lse is None else lse.squeeze(-1).transpose(1, 2)


def refuse_torch(given: Inputs) -> str | None:
    """The reason why torch's attention cannot serve the call, or None."""
    if given.weights != "softmax":
        return "torch has the softmax alone"
    if given.lse:
        return "torch does not give the logarithm of the sum of weights"
    if given.v.shape[-1] != given.q.shape[-1]:
        return "it has values as wide as keys"
    return None


def attend_torch(given: Inputs) -> tuple[Tensor, None]:
    """See :func:`unrolled.kernels.bias_attention.reference.attend`."""
    heads, time, keys = given.q.shape[2], given.q.shape[1], given.k.shape[1]
    q, k, v = given.q.transpose(1, 2), _shared(given.k, heads), _shared(given.v, heads)
    bias = _biased(given)
    if bias is None and given.first is None and time == keys:
        y = scaled_dot_product_attention(q, k, v, is_causal=True, scale=given.scale)
        return y.transpose(1, 2), None
    seen = seen_of(given)
    some = seen.any(-1, keepdim=True)
    mask = seen | ~some  # a query that sees nothing would become NaN; its output is put to zero below
    if bias is not None:
        mask = bias.expand(q.shape[0], heads, time, keys).masked_fill(~mask, -torch.inf)
    y = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=given.scale)
    return (y * some).transpose(1, 2), None
