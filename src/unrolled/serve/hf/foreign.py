"""Configs of transformers' own recurrent models as ours: one function and one row a ``model_type``."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from unrolled.core.errors import UsageError

__all__ = ["FOREIGN", "Made"]


class Made(NamedTuple):
    """model: plain values of a :class:`ModelConfig`. layout: of its weights in the table of published layouts."""

    model: dict[str, Any]
    layout: str


class _Values:
    """``config.json``, asked for one value after the other. Raises UsageError for what is no number, or cannot be."""

    def __init__(self, kind: str, values: Mapping[str, Any]):
        self.kind, self._values = kind, values

    def get(self, name: str, default: Any = None) -> Any:
        value = self._values.get(name)
        return default if value is None else value

    def number(self, name: str, default: float | None = None) -> Any:
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
            raise UsageError(f"{name} of this {self.kind} is no number that it could be; get the config again.")
        return value

    def only(self, name: str, default: Any, *allowed: Any) -> None:
        """Refuse what there is no cell for."""
        value = self.get(name, default)
        if value not in (allowed or (default,)):
            raise UsageError(
                f"this {self.kind} has {name}={value!r}, and the cell here computes {name}={default!r} alone."
            )


def _lm(values: _Values, tied: bool, cell: Any, layers: int, stack: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    embedding = {"tied": bool(values.get("tie_word_embeddings", tied)), **more.pop("embedding", {})}
    return {
        "width": int(values.number("hidden_size")),
        "layers": layers,
        "cell": cell,
        "embedding": embedding,
        "stack": {"kind": "residual", **stack},
        "head": {"name": "softmax", "bias": False, **more.pop("head", {})},
    }


def _mamba(given: Mapping[str, Any], falcon: bool = False) -> Made:
    values = _Values("falcon_mamba" if falcon else "mamba", given)
    width = values.number("hidden_size", 768)
    for name, default in (("use_bias", False), ("use_conv_bias", True), ("hidden_act", "silu")):
        values.only(name, default)
    rank = math.ceil(width / 16)
    values.only("time_step_rank", rank, rank, "auto")
    cell = {"name": "mamba", "states": values.number("state_size", 16), "kernel": values.number("conv_kernel", 4)}
    cell["expand"] = values.number("intermediate_size", int(values.number("expand", 2) * width)) / width
    if falcon:
        values.only("mixer_rms_eps", 1e-6)
        cell["norms"] = True
    stack = {"norm": "rms", "norm_epsilon": values.number("layer_norm_epsilon", 1e-5)}
    return Made(_lm(values, True, cell, values.number("num_hidden_layers", 32), stack), "mamba")


def _mamba2(given: Mapping[str, Any]) -> Made:
    values = _Values("mamba2", given)
    for name, default in (("use_bias", False), ("use_conv_bias", True), ("hidden_act", "silu")):
        values.only(name, default)
    limit = list(values.get("time_step_limit", [0.0, math.inf]))
    if limit[0] or not isinstance(limit[-1], dict | float) or (isinstance(limit[-1], float) and limit[-1] < 1e9):
        raise UsageError("this mamba2 has a time_step_limit, which no cell here computes.")
    cell = {
        "name": "mamba2",
        "states": values.number("state_size", 128),
        "head": values.number("head_dim", 64),
        "expand": values.number("expand", 2),
        "groups": values.number("n_groups", 8),
        "kernel": values.number("conv_kernel", 4),
    }
    values.only("layer_norm_epsilon", 1e-5)
    stack = {"norm": "rms", "norm_epsilon": 1e-5}
    return Made(_lm(values, False, cell, values.number("num_hidden_layers", 64), stack), "mamba2")


def _rwkv(given: Mapping[str, Any]) -> Made:
    values = _Values("rwkv", given)
    width = values.number("hidden_size", 4096)
    values.only("attention_hidden_size", width)
    factor = values.number("intermediate_size", 4 * width) / width
    layers = values.number("num_hidden_layers", 32)
    cells = [{"name": "rwkv4"}, {"name": "rwkv4_channel", "factor": factor}] * layers
    stack = {"norm": "layer", "input_norm": "layer", "norm_epsilon": values.number("layer_norm_epsilon", 1e-5)}
    return Made(_lm(values, False, cells, 2 * layers, stack), "rwkv4")


def _xlstm(given: Mapping[str, Any]) -> Made:
    values = _Values("xlstm", given)
    width = values.number("hidden_size", values.get("embedding_dim", 4096))
    fixed = {"use_bias": False, "weight_mode": "single", "add_out_norm": True, "gate_soft_cap": 15.0, "eps": 1e-6}
    for name, default in {**fixed, "norm_eps": 1e-6}.items():
        values.only(name, default)

    def rounded(size: float, multiple: int) -> int:
        return int(-(-size // multiple) * multiple)

    # the published code rounds both to multiples of 64, so that narrow models have other shares than they name
    keys, all_values = (
        rounded(width * values.number(name, default), 64)
        for name, default in (("qk_dim_factor", 0.5), ("v_dim_factor", 1.0))
    )
    if all_values != width:
        raise UsageError(f"this xlstm has values of width {all_values}, and the cell here has the model's, {width}.")
    hidden = rounded(
        width * values.number("ffn_proj_factor", 2.667), int(values.number("ffn_round_up_to_multiple_of", 64))
    )
    cell = {
        "name": "matrix_lstm",
        "form": "large",
        "heads": values.number("num_heads", 8),
        "keys": keys / width,
    }
    stack = {
        "norm": "rms",
        "norm_epsilon": 1e-6,
        "mlp": hidden / width,
        "mlp_kind": "swiglu",
        "mlp_bias": False,
    }
    head = {"cap": values.number("output_logit_soft_cap", 30.0)}
    layers = values.number("num_hidden_layers", values.get("num_blocks", 32))
    return Made(_lm(values, False, cell, layers, stack, head=head), "xlstm")


def _recurrent_gemma(given: Mapping[str, Any]) -> Made:
    import torch

    values = _Values("recurrent_gemma", given)
    width = values.number("hidden_size", 2560)
    for name, default in (("attention_bias", False), ("hidden_activation", "gelu_pytorch_tanh"), ("conv1d_width", 4)):
        values.only(name, default)
    heads = values.number("num_attention_heads", 10)
    rope = values.get("rope_parameters", {})
    rope = rope if isinstance(rope, dict) else {}
    if rope.get("rope_type", "default") != "default":
        raise UsageError("this recurrent_gemma has scaled rotary positions, which no cell here computes.")
    attention = {
        "name": "window_attention",
        "heads": heads,
        "groups": values.number("num_key_value_heads", heads),
        "context": values.number("attention_window_size", 2048),
        "rotary_share": rope.get("partial_rotary_factor", values.get("partial_rotary_factor", 0.5)),
        "rotary_base": rope.get("rope_theta", values.get("rope_theta", 10000.0)),
        "bias": "out",
    }
    kinds = {
        "recurrent": {"name": "rg_lru", "heads": heads, "expand": values.number("lru_width", width) / width},
        "attention": attention,
    }
    named, layers = (
        values.get("block_types", ["recurrent", "recurrent", "attention"]),
        values.number("num_hidden_layers", 26),
    )
    if not isinstance(named, list | tuple) or not named or any(name not in kinds for name in named):
        raise UsageError("block_types of this recurrent_gemma are not recurrent and attention; get the config again.")
    stack = {
        "norm": "rms",
        "norm_epsilon": values.number("rms_norm_eps", 1e-6),
        "mlp": values.number("intermediate_size", 3 * width) / (2 * width),
        "mlp_kind": "geglu_tanh",
    }
    # the published code rounds the root of the width to bf16
    root = float(torch.tensor(width**0.5).bfloat16())
    return Made(
        _lm(
            values, True, [kinds[named[i % len(named)]] for i in range(layers)], layers, stack,
            embedding={"multiplier": root}, head={"cap": values.number("logits_soft_cap", 30.0)},
        ),
        "recurrent_gemma",
    )  # fmt: skip


def _falcon_mamba(given: Mapping[str, Any]) -> Made:
    return _mamba(given, falcon=True)


FOREIGN: dict[str, Callable[[Mapping[str, Any]], Made]] = {
    "mamba": _mamba,
    "mamba2": _mamba2,
    "falcon_mamba": _falcon_mamba,
    "rwkv": _rwkv,
    "xlstm": _xlstm,
    "recurrent_gemma": _recurrent_gemma,
}
"""``model_type`` -> the function that makes our config of theirs."""
