"""The layouts of public code for language models of mixers: of transformers, and of RWKV-7's own file."""

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from unrolled.model.layout import Layout, Row, row
from unrolled.model.lm import LanguageModel

__all__ = ["MIXER_LAYOUTS"]


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _taps(weight: Tensor) -> Tensor:
    """(channels, 1, kernel) -> (channels, kernel)."""
    return weight.squeeze(1)


def _flat(tensor: Tensor) -> Tensor:
    return tensor.flatten()


def _turned(tensor: Tensor) -> Tensor:
    return tensor.t()


def _outer(model: LanguageModel, embedding: str, head: str) -> Iterator[Row]:
    tied = model.config.embedding.tied
    yield row("embedding.weight", embedding, *([head] if tied else []))
    if not tied:
        yield row("head.weight", head)


def _norm(own: str, place: str, bias: bool) -> Iterator[Row]:
    yield row(f"{own}.weight", f"{place}.weight")
    if bias:
        yield row(f"{own}.bias", f"{place}.bias")


# ours -> theirs
_MAMBA = {
    "weight": "in_proj.weight",
    "conv.weight": "conv1d.weight",
    "conv.bias": "conv1d.bias",
    "weight_x": "x_proj.weight",
    "weight_delta": "dt_proj.weight",
    "bias_delta": "dt_proj.bias",
    "log_a": "A_log",
    "d": "D",
    "out": "out_proj.weight",
}
_MAMBA2 = {
    "weight": "in_proj.weight",
    "conv.weight": "conv1d.weight",
    "conv.bias": "conv1d.bias",
    "log_rate": "A_log",
    "step_bias": "dt_bias",
    "skip": "D",
    "norm.weight": "norm.weight",
    "out": "out_proj.weight",
}


def _mamba(model: LanguageModel, names: Mapping[str, str]) -> Iterator[Row]:
    yield from _outer(model, "embeddings.weight", "lm_head.weight")
    for i in range(len(model.stack.cells())):
        yield from _norm(f"stack.norms.{i}", f"layers.{i}.norm", False)
        for own, other in names.items():
            place = f"layers.{i}.mixer.{other}"
            yield (
                row(f"stack.layers.{i}.{own}", place, make=_taps)
                if own == "conv.weight"
                else row(f"stack.layers.{i}.{own}", place)
            )
    yield row("stack.final_norm.weight", "norm_f.weight")


_RWKV4 = {
    "mix_k": "time_mix_key", "mix_v": "time_mix_value", "mix_r": "time_mix_receptance", "decay": "time_decay",
    "bonus": "time_first", "weight_k": "key.weight", "weight_v": "value.weight", "weight_r": "receptance.weight",
    "out": "output.weight",
}  # fmt: skip
_RWKV4_CHANNEL = {name: _RWKV4[name] for name in ("mix_k", "mix_r", "weight_k", "weight_r", "weight_v")}


def _rwkv4(model: LanguageModel) -> Iterator[Row]:
    """Layers alternate: time mixing, channel mixing."""
    yield from _outer(model, "embeddings.weight", "head.weight")
    yield from _norm("stack.first_norm", "blocks.0.pre_ln", True)
    for i in range(len(model.stack.cells())):
        block, part = f"blocks.{i // 2}", "feed_forward" if i % 2 else "attention"
        yield from _norm(f"stack.norms.{i}", f"{block}.ln{1 + i % 2}", True)
        for own, other in (_RWKV4_CHANNEL if i % 2 else _RWKV4).items():
            yield row(f"stack.layers.{i}.{own}", f"{block}.{part}.{other}", make=_flat if own[0] == "m" else _same)
    yield from _norm("stack.final_norm", "ln_out", True)


_RWKV7 = {
    **{f"mu_{use}": f"x_{use}" for use in "rwkvag"},
    **{f"weight_{name[0]}": f"{name}.weight" for name in ("receptance", "key", "value")},
    **{f"{low}{i}": f"{low}{i}" for low in "wavg" for i in (1, 2)},
    **{name: name for name in ("w0", "a0", "v0", "k_k", "k_a", "r_k")},
    "norm.weight": "ln_x.weight",
    "norm.bias": "ln_x.bias",
    "out": "output.weight",
}
_LOW = re.compile("[wavg][12]")


def _rwkv7(model: LanguageModel) -> Iterator[Row]:
    """Layers alternate: time mixing, channel mixing. Low-rank matrices are stored to be multiplied from the left."""
    yield from _outer(model, "emb.weight", "head.weight")
    yield from _norm("stack.first_norm", "blocks.0.ln0", True)
    for i in range(len(model.stack.cells())):
        block, own = f"blocks.{i // 2}", f"stack.layers.{i}"
        yield from _norm(f"stack.norms.{i}", f"{block}.ln{1 + i % 2}", True)
        if i % 2:
            yield row(f"{own}.mu", f"{block}.ffn.x_k", make=_flat)
            yield row(f"{own}.weight_k", f"{block}.ffn.key.weight")
            yield row(f"{own}.weight_v", f"{block}.ffn.value.weight")
            continue
        for name, other in _RWKV7.items():
            low = _LOW.fullmatch(name)
            make = _turned if low else _flat if name.startswith(("mu", "w0", "a0", "v0", "k_", "r_")) else _same
            yield row(f"{own}.{name}", f"{block}.att.{other}", make=make)
    yield from _norm("stack.final_norm", "ln_out", True)


_XLSTM = ("q", "k", "v", "ogate_preact", "igate_preact", "fgate_preact")


def _below(*parts: Tensor) -> Tensor:
    return torch.cat(parts)


def _xlstm(model: LanguageModel) -> Iterator[Row]:
    """The 7B form: its six maps are one matrix here."""
    yield from _outer(model, "embeddings.weight", "lm_head.weight")
    for i in range(len(model.stack.cells())):
        own, place = f"stack.layers.{i}", f"blocks.{i}"
        layer = f"{place}.mlstm_layer"
        yield from _norm(f"stack.norms.{i}", f"{place}.norm_mlstm", False)
        yield Row(f"{own}.weight", tuple((f"{layer}.{name}.weight",) for name in _XLSTM), _below)
        yield Row(f"{own}.gate_bias", tuple((f"{layer}.{name}.bias",) for name in _XLSTM[-2:]), _below)
        yield row(f"{own}.norm.weight", f"{layer}.multihead_norm.weight")
        yield row(f"{own}.out", f"{layer}.out_proj.weight")
        yield from _norm(f"stack.mlp_norms.{i}", f"{place}.norm_ffn", False)
        for name, other in (("up", "proj_up"), ("gate", "proj_up_gate"), ("down", "proj_down")):
            yield row(f"stack.mlps.{i}.{name}.weight", f"{place}.ffn.{other}.weight")
    yield row("stack.final_norm.weight", "out_norm.weight")


def _plus_one(tensor: Tensor) -> Tensor:
    """Gains are stored less one."""
    return 1 + tensor


def _turned_blocks(tensor: Tensor) -> Tensor:
    return tensor.mT


# ours -> theirs, and what makes it
_RG_LRU = {
    "conv.weight": ("conv_1d.weight", _taps), "conv.bias": ("conv_1d.bias", _flat),
    "weight_a": ("rg_lru.recurrent_gate_weight", _turned_blocks), "bias_a": ("rg_lru.recurrent_gate_bias", _flat),
    "weight_i": ("rg_lru.input_gate_weight", _turned_blocks), "bias_i": ("rg_lru.input_gate_bias", _flat),
    "decay": ("rg_lru.recurrent_param", _flat), "out": ("linear_out.weight", _same),
    "out_bias": ("linear_out.bias", _flat),
}  # fmt: skip


def _griffin(model: LanguageModel) -> Iterator[Row]:
    """Layers of ``rg_lru`` and ``window_attention`` in any order, an MLP behind each."""
    yield from _outer(model, "embed_tokens.weight", "lm_head.weight")
    for i, cell in enumerate(model.stack.cells()):
        own, block = f"stack.layers.{i}", f"layers.{i}.temporal_block"
        yield row(f"stack.norms.{i}.weight", f"layers.{i}.temporal_pre_norm.weight", make=_plus_one)
        if cell.name == "window_attention":
            parts = tuple((f"{block}.{name}_proj.weight",) for name in "qkv")
            yield Row(f"{own}.weight", parts, _below)
            yield row(f"{own}.out", f"{block}.o_proj.weight")
            yield row(f"{own}.out_bias", f"{block}.o_proj.bias")
        else:
            for kind in ("weight", "bias"):
                parts = tuple((f"{block}.linear_{name}.{kind}",) for name in "yx")
                yield Row(f"{own}.{kind}", parts, _below)
            for name, (other, make) in _RG_LRU.items():
                yield row(f"{own}.{name}", f"{block}.{other}", make=make)
        yield row(f"stack.mlp_norms.{i}.weight", f"layers.{i}.channel_pre_norm.weight", make=_plus_one)
        for name in ("up", "gate", "down"):
            for kind in ("weight", "bias"):
                yield row(f"stack.mlps.{i}.{name}.{kind}", f"layers.{i}.mlp_block.{name}_proj.{kind}")
    yield row("stack.final_norm.weight", "final_norm.weight", make=_plus_one)


def _inner(name: str) -> str:
    """Without the module that all stand in."""
    return re.sub(r"^(?:[^.]+\.)*?(backbone|rwkv|model)\.", "", name)


MIXER_LAYOUTS: dict[str, Layout] = {
    "mamba": Layout(lambda model: _mamba(model, _MAMBA), _inner, "backbone.layers.0.mixer.A_log"),
    "mamba2": Layout(lambda model: _mamba(model, _MAMBA2), _inner, "backbone.layers.0.mixer.A_log"),
    "rwkv4": Layout(_rwkv4, _inner, "rwkv.blocks.0.attention.time_decay"),
    "rwkv7": Layout(_rwkv7, _inner, "blocks.0.att.receptance.weight"),
    "recurrent_gemma": Layout(_griffin, _inner, "model.layers.0.temporal_block.rg_lru.recurrent_param"),
    "xlstm": Layout(_xlstm, _inner, "backbone.blocks.0.mlstm_layer.q.weight"),
}
"""``mamba``, ``mamba2``, ``rwkv4``: ``state_dict()`` of transformers' MambaForCausalLM, Mamba2ForCausalLM and
RwkvForCausalLM; the model is a residual stack with the norms of theirs, ``rms`` with ``norm_epsilon = 1e-5``, or
``layer`` with ``input_norm = "layer"`` and the cells ``rwkv4, rwkv4_channel``. ``mamba`` with ``norms`` is
FalconMambaForCausalLM. transformers normalises each group of Mamba-2 from 5.23 on; where a release normalises all at
once, the two agree for one group alone. ``rwkv7``: the public RWKV-x070 files, cells
``rwkv7, rwkv7_channel``. ``xlstm``: ``state_dict()`` of transformers' xLSTMForCausalLM with separate weights
(``weight_mode = "single"``), as those of xLSTM 7B are; the cell is ``matrix_lstm`` of form ``large`` in a residual
stack with ``norm = "rms"``, ``mlp_kind = "swiglu"``, ``mlp_bias = false`` and the published hidden width as ``mlp``
times the width, and the head has ``cap = 30`` (their ``output_logit_soft_cap``). ``recurrent_gemma``: ``state_dict()``
of transformers' RecurrentGemmaForCausalLM; recipe ``recurrentgemma-2b``."""
