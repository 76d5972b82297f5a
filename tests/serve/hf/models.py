"""Tiny models under the interface of transformers."""

from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

from unrolled.cells import CELLS
from unrolled.hf import UnrolledConfig, UnrolledForCausalLM
from unrolled.model.memory import MEMORIES

__all__ = ["CACHE", "EXAMPLES", "FIVE", "V", "cache_of", "five", "ids", "loaded", "model_of"]

V = 29
CACHE = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"
FIVE = ("lstm", "mogrifier", "mamba", "rwkv7", "window_attention")
EXAMPLES: list[tuple[str, Any, dict[str, Any]]] = [
    *(
        (name, config, {})
        for name in CELLS
        for config in (CELLS[name].Config(), *CELLS[name].EXAMPLES)
        if not CELLS[name].causal_from(config)
    ),
    *(
        (name, CELLS.parse("lstm"), {"memory": config.model_dump(mode="json")})
        for name in MEMORIES
        for config in MEMORIES[name].EXAMPLES
    ),
]
"""Every causal cell, as it is by default and with the options of its examples; every memory's examples around one."""


def model_of(cell: Any, **options: Any) -> Any:
    """Two layers of a cell, drawn from one seed, in evaluation mode."""
    parsed = CELLS.parse(cell)
    multiple = CELLS[parsed.name].width_multiple(parsed)
    width = multiple * -(-8 // multiple)
    torch.manual_seed(3)
    values = {"cell": parsed.model_dump(mode="json"), "layers": 2, "width": width, **options}
    return UnrolledForCausalLM(UnrolledConfig(unrolled=values, vocab_size=V)).eval()


def five(name: str, **options: Any) -> Any:
    """One of the five models that every test runs on: tied or not, plain or residual stacks."""
    mixer = name in ("mamba", "rwkv7", "window_attention")
    stack = {"stack": {"kind": "residual", "norm": "rms"}} if mixer else {}
    model = model_of(name, embedding={"tied": name in ("mogrifier", "mamba")}, **stack, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            if not bool(parameter.any()):
                parameter.normal_(0, 0.3)
            elif parameter.dim() == 2:
                parameter.mul_(4.0)  # of small weights all texts look alike
    return model


def ids(batch: int, time: int, seed: int = 0) -> Tensor:
    """Random ids (batch, time)."""
    return torch.randint(V, (batch, time), generator=torch.Generator().manual_seed(seed))


def cache_of(output: Any) -> Any:
    """The carried state of an output, by the name that this transformers gives it."""
    return output[CACHE]


def loaded(folder: Any, **options: Any) -> Any:
    """A folder's model by the Auto class."""
    return AutoModelForCausalLM.from_pretrained(folder, **options)
