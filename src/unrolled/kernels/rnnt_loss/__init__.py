"""``rnnt_loss``: negative log-likelihoods of label strings by a recurrent neural network transducer (Graves 2012).

Backends: ``blocks`` (the joint of some frames at a time, forwards and again backwards; the lattice along its
anti-diagonals, with a backward pass by hand) and ``reference`` (the whole joint and the recurrence node by node, under
autograd).
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.kernels.dispatch import Backend, Operation, Sizes, choose
from unrolled.kernels.rnnt_loss import blocks, reference

__all__ = ["BACKENDS", "OPERATION", "rnnt_loss"]

BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("blocks", lambda *_: None, blocks.losses),
        Backend("reference", lambda *_: None, reference.losses),
    )
}


def rnnt_loss(
    encoded: Tensor,
    predicted: Tensor,
    matrix: Tensor,
    bias: Tensor,
    labels: Tensor,
    frames: Tensor,
    lengths: Tensor,
    blank: int = 0,
    block: int = 2**22,
    backend: str = "auto",
    subject: str = "transducer",
) -> Tensor:
    r"""-log P of label strings, the sum over all alignments of labels to frames.

    At frame t, with u labels said, the joint gives a distribution over the labels and the blank:

    .. math::
        \log p_{t,u} = \log \mathrm{softmax}(W \tanh(e_t + g_u) + b)

    A label is followed by the same frame and u+1, the blank by the next frame; the last frame ends with a blank. Any
    number of labels may be said in a frame, so a string may be longer than there are frames.

    Args:
        encoded: (batch, T, D), projected outputs of the encoder, T >= 1. predicted: (batch, U+1, D), of the prediction
            network before the first label and after each.
        matrix: (V, D), bias: (V,), the blank's row among them.
        labels: (batch, U) ids, none of them the blank within a row's length.
        frames: (batch,) and lengths: (batch,), what of T and U a row has; each at least 1 frame. Beyond them nothing
            counts. blank: its id.
        block: logits held at once. backend: ``auto`` or a backend. subject: who asks, for the record of choices.
    Returns:
        (batch,) nats, differentiable. Types narrower than float32 are computed in float32.
    Raises:
        UsageError: shapes that do not fit; frames or lengths beyond them; a blank among the labels.
    """
    batch, time, width = encoded.shape
    fits = predicted.shape == (batch, labels.shape[1] + 1, width) and matrix.shape == (len(bias), width)
    if not fits or not len(labels) == len(frames) == len(lengths) == batch:
        raise UsageError(
            f"rnnt_loss: encoded {tuple(encoded.shape)}, predicted {tuple(predicted.shape)}, matrix "
            f"{tuple(matrix.shape)} and labels {tuple(labels.shape)} do not fit; predicted has one step more than "
            "labels, and all have one width."
        )
    if bool(((frames < 1) | (frames > time) | (lengths < 0) | (lengths > labels.shape[1])).any()):
        raise UsageError("rnnt_loss: a row has no frame, or more frames or labels than there are; correct its lengths.")
    said = torch.arange(labels.shape[1], device=labels.device) < lengths.unsqueeze(1)
    if bool((said & ((labels == blank) | (labels < 0) | (labels >= len(bias)))).any()):
        raise UsageError(f"rnnt_loss: a label is the blank ({blank}) or none of the {len(bias)} ids; correct it.")
    labels = torch.where(said, labels, 0 if blank else len(bias) - 1)
    work = torch.promote_types(encoded.dtype, torch.float32)
    given = [part.to(work) for part in (encoded, predicted, matrix, bias)]
    chosen = choose("rnnt_loss", BACKENDS, backend, subject)
    return chosen.run(*given, labels, frames, lengths, blank, block).to(encoded.dtype)


_VOCABULARY, _FRAMES = 4, 4  # ids for each number of the width, frames for each label, where it is measured


def _labels(window: int) -> int:
    return -(-window // _FRAMES)


def _amount(sizes: Sizes, backward: bool) -> int:
    """Two operations a weight and node; backwards once more, and two for the gradients."""
    nodes = sizes.batch * sizes.window * (_labels(sizes.window) + 1)
    return (4 if backward else 1) * 2 * _VOCABULARY * sizes.width**2 * nodes


def _inputs(sizes: Sizes, draw: Callable[..., Tensor]) -> dict[str, Tensor]:
    ids, said, row = _VOCABULARY * sizes.width, _labels(sizes.window), torch.arange(sizes.batch)
    labels = 1 + (draw("labels", sizes.batch, said).abs() * ids).long() % (ids - 1)
    return {
        "encoded": draw("encoded", sizes.batch, sizes.window, sizes.width),
        "predicted": draw("predicted", sizes.batch, said + 1, sizes.width),
        "matrix": draw("matrix", ids, sizes.width) * sizes.width**-0.5,
        "bias": draw("bias", ids),
        "labels": labels,
        "frames": (sizes.window - row).clamp(min=1),
        "lengths": (said - row).clamp(min=0),
    }


def _call(given: Mapping[str, Tensor], backend: str, precision: str) -> tuple[Tensor, ...]:
    parts = (given[name] for name in ("encoded", "predicted", "matrix", "bias", "labels", "frames", "lengths"))
    encoded, predicted, matrix, bias, labels, frames, lengths = parts
    return (rnnt_loss(encoded, predicted, matrix, bias, labels, frames, lengths, backend=backend),)


OPERATION = Operation(
    "rnnt_loss", "-log P of label strings by a transducer, over all alignments", BACKENDS, "products", amount=_amount,
    inputs=_inputs, call=_call, request=lambda given: (),
)  # fmt: skip
