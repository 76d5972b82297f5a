"""Layouts of public language models of mixers: names, shapes, and where each tensor goes. What loaded models compute
was compared with transformers' (docs/results/published-code.md)."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unrolled.core.errors import UsageError
from unrolled.model import LanguageModel, ModelConfig
from unrolled.model.published import load_published

D, V = 8, 11
GOLDEN = Path(__file__).parents[1] / "golden"


def model(cell: str | dict[str, Any], layers: int, **options: Any) -> LanguageModel:
    torch.manual_seed(0)
    config = {"width": D, "layers": layers, "cell": cell, "head": {"name": "softmax", "bias": False}, **options}
    return LanguageModel(ModelConfig.parse(config), V)


def drawn(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


RMS = {"kind": "residual", "norm": "rms", "norm_epsilon": 1e-5}
LAYER = {"kind": "residual", "norm": "layer", "input_norm": "layer"}


def mamba(layers: int = 2) -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {"backbone.embeddings.weight": (V, D), "backbone.norm_f.weight": (D,)}
    for i in range(layers):
        place = f"backbone.layers.{i}"
        shapes |= {f"{place}.norm.weight": (D,)} | {
            f"{place}.mixer.{name}": shape
            for name, shape in {
                "in_proj.weight": (4 * D, D), "conv1d.weight": (2 * D, 1, 4), "conv1d.bias": (2 * D,),
                "x_proj.weight": (1 + 2 * 3, 2 * D), "dt_proj.weight": (2 * D, 1), "dt_proj.bias": (2 * D,),
                "A_log": (2 * D, 3), "D": (2 * D,), "out_proj.weight": (D, 2 * D),
            }.items()
        }  # fmt: skip
    return drawn(shapes)


def norm(name: str) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (D,), f"{name}.bias": (D,)}


def rwkv7(layers: int = 2) -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {"emb.weight": (V, D), "head.weight": (V, D), **norm("ln_out")}
    shapes |= norm("blocks.0.ln0")
    for i in range(layers):
        place = f"blocks.{i}"
        shapes |= norm(f"{place}.ln1") | norm(f"{place}.ln2") | norm(f"{place}.att.ln_x")
        shapes |= {f"{place}.att.x_{use}": (1, 1, D) for use in "rwkvag"}
        shapes |= {f"{place}.att.{name}.weight": (D, D) for name in ("receptance", "key", "value", "output")}
        shapes |= {f"{place}.att.{name}": (1, 1, D) for name in ("w0", "a0", "v0", "k_k", "k_a")}
        shapes |= {f"{place}.att.{low}1": (D, 3) for low in "wavg"} | {f"{place}.att.{low}2": (3, D) for low in "wavg"}
        shapes |= {f"{place}.att.r_k": (2, 4), f"{place}.ffn.x_k": (1, 1, D)}
        shapes |= {f"{place}.ffn.key.weight": (4 * D, D), f"{place}.ffn.value.weight": (D, 4 * D)}
    return drawn(shapes)


def test_mamba() -> None:
    tensors, own = mamba(), model({"name": "mamba", "states": 3}, 2, stack=RMS, embedding={"tied": True})
    load_published(own, {**tensors, "lm_head.weight": tensors["backbone.embeddings.weight"]}, "mamba")
    found, place = dict(own.named_parameters()), "backbone.layers.1.mixer"
    assert torch.equal(found["stack.layers.1.conv.weight"], tensors[f"{place}.conv1d.weight"][:, 0])
    assert torch.equal(found["stack.layers.1.log_a"], tensors[f"{place}.A_log"])
    assert torch.equal(found["stack.norms.0.weight"], tensors["backbone.layers.0.norm.weight"])
    assert torch.equal(found["embedding.weight"], tensors["backbone.embeddings.weight"])
    assert own.stack.norms[0].eps == 1e-5  # type: ignore[index]


def test_rwkv7() -> None:
    cells = ({"name": "rwkv7", "head": 4, "ranks": [3, 3, 3, 3]}, {"name": "rwkv7_channel"}) * 2
    tensors, own = rwkv7(), model(cells, 4, stack=LAYER, embedding={"tied": False})  # type: ignore[arg-type]
    load_published(own, tensors, "rwkv7")
    found = dict(own.named_parameters())
    assert torch.equal(found["stack.layers.2.w1"], tensors["blocks.1.att.w1"].t())
    assert torch.equal(found["stack.layers.2.r_k"], tensors["blocks.1.att.r_k"].flatten())
    assert torch.equal(found["stack.layers.3.mu"], tensors["blocks.1.ffn.x_k"].flatten())
    assert torch.equal(found["stack.first_norm.bias"], tensors["blocks.0.ln0.bias"])
    assert torch.equal(found["stack.norms.3.weight"], tensors["blocks.1.ln2.weight"])


def xlstm(layers: int = 2) -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {"backbone.embeddings.weight": (V, D), "lm_head.weight": (V, D)}
    shapes |= {"backbone.out_norm.weight": (D,)}
    for i in range(layers):
        place = f"backbone.blocks.{i}"
        layer = f"{place}.mlstm_layer"
        shapes |= {f"{layer}.{name}.weight": (D // 2, D) for name in ("q", "k")}
        shapes |= {f"{layer}.{name}.weight": (D, D) for name in ("v", "ogate_preact", "out_proj")}
        shapes |= {f"{layer}.{name}.weight": (2, D) for name in ("igate_preact", "fgate_preact")}
        shapes |= {f"{layer}.{name}.bias": (2,) for name in ("igate_preact", "fgate_preact")}
        shapes |= {f"{place}.{name}.weight": (D,) for name in ("norm_mlstm", "norm_ffn", "mlstm_layer.multihead_norm")}
        shapes |= {f"{place}.ffn.{name}.weight": (3 * D, D) for name in ("proj_up", "proj_up_gate")}
        shapes |= {f"{place}.ffn.proj_down.weight": (D, 3 * D)}
    return drawn(shapes)


XLSTM = {"kind": "residual", "norm": "rms", "mlp": 3.0, "mlp_kind": "swiglu", "mlp_bias": False}


def test_xlstm() -> None:
    """Against the equations of the public code, token by token: capped gates, norm of heads, capped logits."""
    cell = {"name": "matrix_lstm", "form": "large", "heads": 2}
    tensors, own = xlstm(), model(cell, 2, stack=XLSTM, head={"name": "softmax", "bias": False, "cap": 2.0})
    load_published(own, tensors, "xlstm")
    found = dict(own.named_parameters())
    place = "backbone.blocks.1"
    assert torch.equal(found["stack.layers.1.weight"][-2:], tensors[f"{place}.mlstm_layer.fgate_preact.weight"])
    assert torch.equal(found["stack.layers.1.gate_bias"][:2], tensors[f"{place}.mlstm_layer.igate_preact.bias"])
    assert torch.equal(found["stack.mlps.1.gate.weight"], tensors[f"{place}.ffn.proj_up_gate.weight"])
    own, named = own.double(), {name.removeprefix("backbone."): value.double() for name, value in tensors.items()}
    tokens = torch.arange(9).view(1, 9) % V
    log_prob = own.head.log_prob(own(tokens).raw)[0]

    def rms(x: Tensor, weight: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * weight

    x = named["embeddings.weight"][tokens[0]]
    for i in range(2):
        part = {k.removeprefix(f"blocks.{i}."): v for k, v in named.items() if k.startswith(f"blocks.{i}.")}
        read = rms(x, part["norm_mlstm.weight"])
        q, k, v, o = (read @ part[f"mlstm_layer.{n}.weight"].t() for n in ("q", "k", "v", "ogate_preact"))
        gates = {}
        for n in "if":
            gate = f"mlstm_layer.{n}gate_preact"
            gates[n] = 15 * torch.tanh((read @ part[f"{gate}.weight"].t() + part[f"{gate}.bias"]) / 15)
        outs = []
        for head in range(2):
            c, n, m, rows = torch.zeros(2, 4).double(), torch.zeros(2).double(), torch.zeros(()).double(), []
            for t in range(9):
                qt, kt, vt = q[t].view(2, 2)[head], k[t].view(2, 2)[head] * 2**-0.5, v[t].view(2, 4)[head]
                log_f, log_i = nn.functional.logsigmoid(gates["f"][t, head]), gates["i"][t, head]
                top = torch.maximum(log_f + m, log_i)
                keep, write, m = (log_f + m - top).exp(), (log_i - top).exp(), top
                c, n = keep * c + write * torch.outer(kt, vt), keep * n + write * kt
                rows.append(qt @ c / (torch.maximum((qt @ n).abs(), (-m).exp()) + 1e-6))
            r = torch.stack(rows)
            outs.append((r - r.mean(-1, keepdim=True)) * torch.rsqrt(r.var(-1, unbiased=False, keepdim=True) + 1e-6))
        h = torch.cat(outs, -1) * part["mlstm_layer.multihead_norm.weight"] * torch.sigmoid(o)
        x = x + h @ part["mlstm_layer.out_proj.weight"].t()
        read = rms(x, part["norm_ffn.weight"])
        hidden = nn.functional.silu(read @ part["ffn.proj_up_gate.weight"].t()) * (
            read @ part["ffn.proj_up.weight"].t()
        )
        x = x + hidden @ part["ffn.proj_down.weight"].t()
    logits = rms(x, named["out_norm.weight"]) @ named["lm_head.weight"].t()
    torch.testing.assert_close(log_prob[0], torch.log_softmax(2 * torch.tanh(logits / 2), -1))


def recurrent_gemma() -> dict[str, Tensor]:
    """Two recurrent layers and one of attention, as transformers has them."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (V, D), "model.final_norm.weight": (D,)}
    for i in range(3):
        place = f"model.layers.{i}"
        shapes |= {f"{place}.{name}.weight": (D,) for name in ("temporal_pre_norm", "channel_pre_norm")}
        for name, (rows, columns) in {"gate": (3 * D, D), "up": (3 * D, D), "down": (D, 3 * D)}.items():
            shapes |= {f"{place}.mlp_block.{name}_proj.weight": (rows, columns)}
            shapes |= {f"{place}.mlp_block.{name}_proj.bias": (rows,)}
        block = f"{place}.temporal_block"
        if i == 2:
            shapes |= {f"{block}.{name}_proj.weight": (D if name in "qo" else D // 2, D) for name in "qkvo"}
            shapes |= {f"{block}.o_proj.bias": (D,)}
            continue
        for name in ("y", "x", "out"):
            shapes |= {f"{block}.linear_{name}.weight": (D, D), f"{block}.linear_{name}.bias": (D,)}
        shapes |= {f"{block}.conv_1d.weight": (D, 1, 4), f"{block}.conv_1d.bias": (D,)}
        shapes |= {f"{block}.rg_lru.recurrent_param": (D,)}
        for gate in ("input", "recurrent"):
            shapes |= {f"{block}.rg_lru.{gate}_gate_weight": (2, D // 2, D // 2)}
            shapes |= {f"{block}.rg_lru.{gate}_gate_bias": (2, D // 2)}
    return {name: 0.5 * tensor for name, tensor in drawn(shapes).items()}


GRIFFIN = {"kind": "residual", "norm": "rms", "mlp": 3.0, "mlp_kind": "geglu_tanh"}


def test_recurrent_gemma() -> None:
    """The log-probabilities that transformers 4.57.1 gives with these tensors."""
    recurrent = {"name": "rg_lru", "heads": 2}
    attention = {
        "name": "window_attention", "heads": 2, "groups": 1, "context": 8, "rotary_share": 0.5, "bias": "out"
    }  # fmt: skip
    cells: Any = [recurrent, recurrent, attention]
    head = {"name": "softmax", "bias": False, "cap": 30.0}
    # they round the root of the width to bf16
    own = model(cells, 3, stack=GRIFFIN, head=head, embedding={"tied": True, "multiplier": 2.828125})
    load_published(own, recurrent_gemma(), "recurrent_gemma")
    tokens = torch.arange(7).view(1, 7) * 3 % V
    found = own.head.log_prob(own(tokens).raw)[0][0]
    golden = json.loads((GOLDEN / "recurrent_gemma.json").read_text())
    torch.testing.assert_close(found, torch.tensor(golden), rtol=0, atol=1e-5)


def test_what_is_missing_is_named() -> None:
    tensors = mamba()
    del tensors["backbone.layers.1.mixer.D"]
    with pytest.raises(UsageError, match=r"layers.1.mixer.D"):
        load_published(model({"name": "mamba", "states": 3}, 2, stack=RMS, embedding={"tied": True}), tensors, "mamba")
    plain = {"kind": "residual", "norm": "layer"}
    with pytest.raises(UsageError):
        load_published(
            model("rwkv7, rwkv7_channel", 2, width=64, stack=plain, embedding={"tied": False}), rwkv7(), "rwkv7"
        )


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_norms_of_the_input_and_what_they_add(kind: str) -> None:
    tokens = torch.arange(6).view(1, 6)
    raw = {}
    for name, stack in {
        "none": {}, "normed": {"input_norm": kind}, "wide": {"input_norm": kind, "norm_epsilon": 1.0},
    }.items():  # fmt: skip
        torch.manual_seed(1)
        raw[name] = LanguageModel(ModelConfig.parse({"width": D, "stack": {"norm": kind, **stack}}), V)(tokens).raw
    assert not torch.allclose(raw["none"], raw["normed"])
    assert not torch.allclose(raw["wide"], raw["normed"])
