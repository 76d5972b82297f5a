"""Weights of the published systems, in the layouts of their authors' code."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.core.registry import unknown_name
from unrolled.model.lm import LanguageModel

__all__ = ["LAYOUTS", "load_published"]


class _Row(NamedTuple):
    """One parameter of ours: its name, the names that its parts may have in the published file (one name of each
    group must be there), and how they make it up."""

    name: str
    sources: tuple[tuple[str, ...], ...]
    make: Callable[..., Tensor]


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _turned(tensor: Tensor) -> Tensor:
    return tensor.t()


def _row(name: str, *names: str, make: Callable[..., Tensor] = _same) -> _Row:
    return _Row(name, (names,), make)


def _decoder(model: LanguageModel) -> Iterator[_Row]:
    yield _row("embedding.weight", "encoder.weight")
    yield _row("head.bias", "decoder.bias")
    if not model.config.embedding.tied:
        yield _row("head.weight", "decoder.weight")


def _lstm_layers(model: LanguageModel) -> Iterator[_Row]:
    """``torch.nn.LSTM`` layers, wrapped for weight drop (``.module``, ``_raw``) or not."""
    for i, layer in enumerate(model.stack.cells()):
        own, places = f"stack.layers.{i}", (f"rnns.{i}.module", f"rnns.{i}")
        yield _row(f"{own}.weight_ih", *(f"{p}.weight_ih_l0" for p in places))
        raw = (f"{p}.weight_hh_l0{end}" for p in places for end in ("_raw", ""))
        yield _row(f"{own}.weight_hh", *raw)
        biases = [tuple(f"{p}.bias_{kind}_l0" for p in places) for kind in ("ih", "hh")]
        if getattr(layer.config, "bias", "one") == "two":
            yield _Row(f"{own}.bias_ih", (biases[0],), _same)
            yield _Row(f"{own}.bias_hh", (biases[1],), _same)
        else:
            yield _Row(f"{own}.bias", tuple(biases), torch.add)


def _awd_lstm(model: LanguageModel) -> Iterator[_Row]:
    yield from _decoder(model)
    yield from _lstm_layers(model)


def _awd_qrnn(model: LanguageModel) -> Iterator[_Row]:
    yield from _decoder(model)
    for i in range(len(model.stack.cells())):
        places = (f"rnns.{i}.linear.module", f"rnns.{i}.linear")
        yield _row(f"stack.layers.{i}.weight", *(f"{p}.weight{end}" for p in places for end in ("_raw", "")))
        yield _row(f"stack.layers.{i}.bias", *(f"{p}.bias" for p in places))


def _mos(model: LanguageModel) -> Iterator[_Row]:
    yield from _awd_lstm(model)
    yield _row("head.prior", "prior.weight")
    yield _row("head.latent", "latent.0.weight")
    yield _row("head.latent_bias", "latent.0.bias")


def _sentiment_mlstm(model: LanguageModel) -> Iterator[_Row]:
    """Arrays ``0`` ... ``14``: embedding; W_x; W_m in four row blocks; W_mx; W_mh; bias; the gains of W_x, W_m, W_mx,
    W_mh; output matrix and bias. All matrices (in, out); gates in the order i, f, o, g."""

    def gates(tensor: Tensor) -> Tensor:
        i, f, o, g = tensor.chunk(4)
        return torch.cat([i, f, g, o])

    own = "stack.layers.0"
    yield _row("embedding.weight", "0")
    yield _row(f"{own}.weight_x", "1", make=lambda w: gates(w.t()))
    parts = tuple((str(number),) for number in (2, 3, 4, 5))
    yield _Row(f"{own}.weight_m", parts, lambda *blocks: gates(torch.cat(blocks, 1).t()))
    yield _row(f"{own}.weight_mx", "6", make=_turned)
    yield _row(f"{own}.weight_mh", "7", make=_turned)
    yield _row(f"{own}.bias", "8", make=gates)
    yield _row(f"{own}.weight_x_gain", "9", make=gates)
    yield _row(f"{own}.weight_m_gain", "10", make=gates)
    yield _row(f"{own}.weight_mx_gain", "11")
    yield _row(f"{own}.weight_mh_gain", "12")
    yield _row("head.weight", "13", make=_turned)
    yield _row("head.bias", "14")


LAYOUTS: dict[str, Callable[[LanguageModel], Iterable[_Row]]] = {
    "awd-lstm": _awd_lstm,
    "awd-qrnn": _awd_qrnn,
    "mos": _mos,
    "sentiment-mlstm": _sentiment_mlstm,
}
"""Layout -> its rows for a model. ``awd-lstm``, ``awd-qrnn``: ``state_dict()`` of salesforce/awd-lstm-lm's RNNModel (of
LSTMs, of QRNNs). ``mos``: of zihangdai/mos's. ``sentiment-mlstm``: the arrays of openai/generating-reviews-discovering-
sentiment (``model/0.npy`` ... ``model/14.npy``) under their numbers."""


@torch.no_grad()
def load_published(model: LanguageModel, tensors: Mapping[str, Tensor], layout: str) -> None:
    """Copy published weights into a model of the same sizes.

    Args:
        tensors: name -> tensor in the published layout; a tied matrix may be there twice.
        layout: a key of :data:`LAYOUTS`.
    Raises:
        UsageError: unknown layout; a tensor is missing, of another shape, or belongs to no parameter. The model is
            then as it was.
    """
    if layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS)
    own, used, made = dict(model.named_parameters()), set(), {}
    for row in LAYOUTS[layout](model):
        if row.name not in own:
            raise UsageError(f"layout {layout} has a part for {row.name}, which this model lacks; check its config.")
        parts = []
        for names in row.sources:
            found = next((name for name in names if name in tensors), None)
            if found is None:
                raise UsageError(f"the weights lack {names[0]} for {row.name}; is the layout really {layout}?")
            used.add(found)
            parts.append(tensors[found])
        made[row.name] = row.make(*parts)
    if model.config.embedding.tied and "decoder.weight" in tensors:
        used.add("decoder.weight")
        if not torch.equal(tensors["decoder.weight"], tensors["encoder.weight"]):
            raise UsageError("the weights are of an untied model and this one is tied; set model.embedding.tied=false.")
    for name, value in own.items():
        if name not in made:
            raise UsageError(f"layout {layout} has nothing for {name} of this model; check its config.")
        if made[name].shape != value.shape:
            shapes = f"{tuple(made[name].shape)} for {name}, the model {tuple(value.shape)}"
            raise UsageError(f"the weights have shape {shapes}; set the sizes of the model to those of the weights.")
    odd = sorted(set(tensors) - used)
    if odd:
        raise UsageError(f"the weights have {odd[0]}, which layout {layout} does not know; check the model's config.")
    for name, value in own.items():
        value.copy_(made[name])
