"""The layouts of the authors' code: which of their tensors make up which parameter of ours, and under what names."""

import re
from collections.abc import Iterator

import torch
from torch import Tensor

from unrolled.model.layout import Layout, Row, row
from unrolled.model.layouts_mixers import MIXER_LAYOUTS
from unrolled.model.lm import LanguageModel

__all__ = ["LAYOUTS", "Layout", "Row"]


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _turned(tensor: Tensor) -> Tensor:
    return tensor.t()


def _sum(one: Tensor, other: Tensor) -> Tensor:
    if one.shape != other.shape:
        raise ValueError("two shapes")
    return one + other


def _decoder(model: LanguageModel) -> Iterator[Row]:
    if model.config.embedding.tied:
        yield row("embedding.weight", "encoder.weight", "decoder.weight")
    else:
        yield row("embedding.weight", "encoder.weight")
        yield row("head.weight", "decoder.weight")
    if getattr(model.config.head, "bias", True):
        yield row("head.bias", "decoder.bias")
    if hasattr(model.head, "tail_vectors"):
        yield row("head.tail_vectors", "tail_vectors")
        yield row("head.tail_bias", "tail_bias")


def _awd_lstm(model: LanguageModel) -> Iterator[Row]:
    """``torch.nn.LSTM`` layers. Under weight drop the matrix is ``_raw``; the plain name is then a copy of the last
    forward pass, which may be masked."""
    yield from _decoder(model)
    for i, layer in enumerate(model.stack.cells()):
        own, place = f"stack.layers.{i}", f"rnns.{i}"
        yield row(f"{own}.weight_ih", f"{place}.weight_ih_l0_raw", f"{place}.weight_ih_l0")
        yield row(f"{own}.weight_hh", f"{place}.weight_hh_l0_raw", f"{place}.weight_hh_l0")
        biases = ((f"{place}.bias_ih_l0",), (f"{place}.bias_hh_l0",))
        if getattr(layer.config, "bias", "one") == "two":
            yield Row(f"{own}.bias_ih", biases[:1], _same)
            yield Row(f"{own}.bias_hh", biases[1:], _same)
        else:
            yield Row(f"{own}.bias", biases, _sum)


def _awd_qrnn(model: LanguageModel) -> Iterator[Row]:
    yield from _decoder(model)
    for i in range(len(model.stack.cells())):
        own, place = f"stack.layers.{i}", f"rnns.{i}.linear"
        yield row(f"{own}.weight", f"{place}.weight_raw", f"{place}.weight")
        yield row(f"{own}.bias", f"{place}.bias")


def _mos(model: LanguageModel) -> Iterator[Row]:
    yield from _awd_lstm(model)
    yield row("head.prior", "prior.weight")
    yield row("head.latent", "latent.0.weight")
    yield row("head.latent_bias", "latent.0.bias")


# What may stand before, and what fastai calls the same embedding under dropout.
_BEFORE = r"(?:[^.]+\.)*?"
_OUTER = re.compile(
    _BEFORE + r"((?:encoder|prior)\.weight|(?:decoder|latent\.0)\.(?:weight|bias)|tail_(?:vectors|bias))"
)
_LAYER = re.compile(_BEFORE + r"rnns\.(\d+)\.(?:[^.]+\.)*?(linear\.)?(?:module\.)?([^.]+)")
_DROPPED = re.compile(_BEFORE + r"(?:encoder_dp\.emb|encoder_with_dropout\.embed)\.weight")


def _plain(name: str) -> str:
    """``rnns.0.weight_hh_l0_raw`` for ``module.0.rnns.0.module.weight_hh_l0_raw`` and the like."""
    if found := _OUTER.fullmatch(name):
        return found[1]
    if _DROPPED.fullmatch(name):
        return "encoder.weight"
    if found := _LAYER.fullmatch(name):
        return f"rnns.{found[1]}.{found[2] or ''}{found[3]}"
    return name


def _sentiment_mlstm(model: LanguageModel) -> Iterator[Row]:
    """Arrays ``0`` ... ``14`` for an embedding of E, N units and V bytes; columns of 4N are four blocks of N, of the
    gates i, f, o and u (which is our g) in this order:

    0 embedding (V, E); 1 W_x (E, 4N); 2, 3, 4, 5 the four column blocks of W_m (N, 4N), each (N, N); 6 W_mx (E, N);
    7 W_mh (N, N); 8 bias (4N); 9, 10, 11, 12 the gains of W_x (4N), W_m (4N), W_mx (N), W_mh (N), one a column;
    13 output matrix (N, V); 14 its bias (V). A row of input times a matrix gives a row of output: ours are turned.
    """

    def gates(tensor: Tensor) -> Tensor:
        if len(tensor) % 4:
            raise ValueError("no four gates")
        i, f, o, u = tensor.chunk(4)
        return torch.cat([i, f, u, o])

    own = "stack.layers.0"
    yield row("embedding.weight", "0")
    yield row(f"{own}.weight_x", "1", make=lambda w: gates(w.t()))
    parts = tuple((str(number),) for number in (2, 3, 4, 5))
    yield Row(f"{own}.weight_m", parts, lambda *blocks: gates(torch.cat(blocks, 1).t()))
    yield row(f"{own}.weight_mx", "6", make=_turned)
    yield row(f"{own}.weight_mh", "7", make=_turned)
    yield row(f"{own}.bias", "8", make=gates)
    yield row(f"{own}.weight_x_gain", "9", make=gates)
    yield row(f"{own}.weight_m_gain", "10", make=gates)
    yield row(f"{own}.weight_mx_gain", "11")
    yield row(f"{own}.weight_mh_gain", "12")
    yield row("head.weight", "13", make=_turned)
    yield row("head.bias", "14")


def _number(name: str) -> str:
    """``7`` for ``model/7.npy``."""
    return name.rpartition("/")[2].removesuffix(".npy")


LAYOUTS: dict[str, Layout] = {
    "awd-lstm": Layout(_awd_lstm, _plain, "rnns.0.module.weight_hh_l0_raw"),
    "awd-qrnn": Layout(_awd_qrnn, _plain, "rnns.0.linear.module.weight_raw"),
    "mos": Layout(_mos, _plain, "latent.0.weight"),
    "sentiment-mlstm": Layout(_sentiment_mlstm, _number, "0"),
    **MIXER_LAYOUTS,
}
"""``awd-lstm``, ``awd-qrnn``: ``state_dict()`` of salesforce/awd-lstm-lm's RNNModel (of LSTMs, of QRNNs) and of its
forks and fastai, under any prefix, weight-dropped or not; with the split softmax that of its criterion too. ``mos``: of
zihangdai/mos's. ``sentiment-mlstm``: the arrays of openai/generating-reviews-discovering-sentiment (``model/0.npy`` ...
``model/14.npy``) under their numbers. The others: :data:`unrolled.model.layouts_mixers.MIXER_LAYOUTS`."""
