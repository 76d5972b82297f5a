"""What the names mean that cells give to ``tap``: one scheme for all of them.

A name has one meaning in every cell. That of a cell of your own which is not in the table is traced like the others
and has the role "other".
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.kernels.cell_loop import Tap, silent

__all__ = ["TAP_NAMES", "TapName", "tap_blocks", "tap_name", "tapped"]


class TapName(NamedTuple):
    """role: gate, decay, candidate, state, intermediate, pre-activation or other. high: a gate lies between 0 and
    this."""

    role: str
    meaning: str
    high: float = 1.0


TAP_NAMES = {
    "i": TapName("gate", "input gate: the share of the candidate that is written"),
    "f": TapName("gate", "forget gate: the share of c that is kept (QRNN: the paper's f, 1 - f of the equation here)"),
    "o": TapName("gate", "output gate"),
    "r": TapName("gate", "reset gate; recurrence gate of the RG-LRU, which forgets where it is open"),
    "z": TapName("gate", "update gate: the share of h that is kept"),
    "round*": TapName("gate", "gate of a Mogrifier round, 2σ(...): on x in odd rounds, on h in even ones", 2.0),
    "a": TapName("decay", "share of the state that is kept, by head or channel, where it is made of a gate and more"),
    "momentum": TapName("decay", "share of a learner's last step that is taken again"),
    "g": TapName("candidate", "what is written into c (z in the QRNN's equation)"),
    "n": TapName("candidate", "what is mixed into h"),
    "c": TapName("state", "cell state"),
    "hyper_c": TapName("state", "cell state of the smaller LSTM beside (HyperLSTM)"),
    "hyper_h": TapName("state", "output of the smaller LSTM beside, of which scales and biases are made"),
    "inputs": TapName("state", "what was read last, as it is or multiplied by a gate"),
    "recent": TapName("state", "part of a long convolution that the newest inputs make"),
    "future": TapName("state", "what the inputs so far will add to later outputs"),
    "recalled": TapName("intermediate", "what a memory of earlier segments gives"),
    "matrix": TapName("state", "matrix of a memory, of each head"),
    "matrix_norm": TapName("state", "its norm, of each head"),
    "states": TapName("state", "state vectors that go on from window to window"),
    "packed": TapName("state", "compressed inputs of earlier segments"),
    "maps_h": TapName("state", "outputs of all layers of a network in one cell"),
    "maps_c": TapName("state", "their cell states"),
    "maps_m": TapName("state", "their memory that climbs through the layers"),
    "h": TapName("state", "output, and in cells with a step the recurrent state"),
    "x": TapName("state", "input that is kept for the next step (QRNN of window 2, RWKV-4)"),
    "s": TapName(
        "state",
        "state of several numbers, modes or both parts of complex ones for each channel, or a matrix for each head",
    ),
    "keys": TapName("state", "keys of the slots of a memory, or of the last tokens"),
    "values": TapName("state", "values of the slots of a memory, or of the last tokens"),
    "decay": TapName("state", "logarithm of what each key kept has kept since its own token (FoX)"),
    "last_key": TapName("state", "key of the last token, before it was mixed with the one before (FoX)"),
    "last_value": TapName("state", "value of the last token, before it was mixed with the one before (FoX)"),
    "active": TapName("intermediate", "1 where a token's attention is switched on, else 0 (SeqBoat)"),
    "*_norm": TapName("intermediate", "norm of a matrix state, for each head"),
    "y": TapName("state", "recurrent output before the norm of its head (sLSTM)"),
    "normaliser": TapName("state", "what is divided by: the sum of the input gates, or of the keys, decayed alike"),
    "stabiliser": TapName("state", "logarithm by which exponential gates are scaled down"),
    "levels_h": TapName("state", "outputs that the levels of a TrellisNet read again"),
    "levels_c": TapName("state", "cell states that they read again"),
    "before": TapName("state", "weights of a learner, for each head, before its open chunk of tokens"),
    "weights": TapName("state", "weights of a learner, for each head"),
    "recalled_keys": TapName("state", "keys of what a memory recalled for the tokens of the open chunk (Titans)"),
    "recalled_values": TapName("state", "values of the same"),
    "sums": TapName("state", "steps of a learner summed up: of its open chunk, or with momentum"),
    "summary": TapName("state", "vector that stands for all older blocks (genCNN)"),
    "words": TapName("state", "last inputs, of which blocks are made"),
    "kappa": TapName("state", "place in the text of each Gaussian of a window"),
    "window": TapName("state", "what the window shows of the text"),
    "text": TapName("state", "the text that is to be written, a vector for each of its places"),
    "phi": TapName("intermediate", "weight of each place of the text in the window, and of the one behind it"),
    "conv": TapName("state", "inputs that a short convolution keeps"),
    "top": TapName("state", "largest decayed score, in units of whose exponential u and w are"),
    "u": TapName("state", "sum of the weights of all that was seen"),
    "w": TapName("state", "weighted sum of the values of all that was seen"),
    "seen": TapName("state", "1 once a token was read, 0 before"),
    "m": TapName("intermediate", "multiplicative intermediate state that all gates share"),
    "m_*": TapName("intermediate", "that of one gate: m_i, m_f, m_g, m_o, m_r, m_z, m_n"),
    "x*": TapName("intermediate", "x after an odd Mogrifier round, before the wrapped cell's step"),
    "h*": TapName("intermediate", "h after an even Mogrifier round, before the wrapped cell's step"),
    "delta": TapName("intermediate", "step size"),
    "cost": TapName("intermediate", "what a token costs: steps taken for it, and the halting weight left over (ACT)"),
    "c_norm": TapName("intermediate", "c after layer normalisation"),
    "hidden": TapName("intermediate", "hidden layer of an MLP"),
    "h_wide": TapName("intermediate", "output before the projection to h"),
    "*_pre": TapName("pre-activation", "what goes into the nonlinearity that makes the name before ``_pre``"),
}
"""Name -> what it is; ``*`` stands for a number, a gate's letter or, before ``_pre``, a name."""


def tap_name(name: str) -> TapName:
    """What a name stands for."""
    if name in TAP_NAMES:
        return TAP_NAMES[name]
    if name.endswith("_pre"):
        return TAP_NAMES["*_pre"]
    if name.startswith("m_"):
        return TAP_NAMES["m_*"]
    if name.endswith("_norm"):
        return TAP_NAMES["*_norm"]
    base = name.rstrip("0123456789")
    return TAP_NAMES.get(f"{base}*", TapName("other", "named by the cell alone"))


def tap_blocks(tap: Tap, names: Iterable[str], value: Tensor) -> None:
    """Tap equal blocks of (batch, k N) by name; free where nobody listens, for that the blocks are not even made."""
    if tap is not silent:
        names = list(names)
        for name, block in zip(names, value.chunk(len(names), -1), strict=True):
            tap(name, block)


def tapped(cls: Any, config: Any) -> list[str]:
    """Names that a cell taps, in its order. cls: the class; config: its configuration."""
    seen: dict[str, None] = {}
    multiple = cls.width_multiple(config)
    width = -(-12 // multiple) * multiple
    cell = cls(width, width, config)
    with torch.no_grad():
        cell(torch.zeros(1, 1, width), tap=lambda name, value: seen.setdefault(name))
    return list(seen)
