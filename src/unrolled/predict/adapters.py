"""The table of adapters: a test-time method is one file and one line here."""

from unrolled.core.registry import Registry
from unrolled.predict.adapter import Adapter

__all__ = ["ADAPTERS"]

ADAPTERS: Registry[type[Adapter]] = Registry(
    "setting at test time",
    {
        "temperature": "unrolled.predict.temperature:Temperature",
        "quantize": "unrolled.predict.packed:Quantization",
        "dropout": "unrolled.predict.monte_carlo:MonteCarlo",
        "dynamic": "unrolled.predict.dynamic:Dynamic",
        "recode": "unrolled.predict.recode:Recode",
        "recycle": "unrolled.predict.recycle:Recycled",
        "documents": "unrolled.predict.documents:Documents",
        "blocks": "unrolled.predict.blocks:BlocksAdapter",
        "sets": "unrolled.predict.sets:Sets",
        "clamp": "unrolled.predict.clamp:Clamping",
        "neighbours": "unrolled.predict.neighbours:Neighbours",
        "cache": "unrolled.predict.cache:Cache",
    },
)
