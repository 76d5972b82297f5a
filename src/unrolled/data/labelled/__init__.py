"""Rows with a label: texts, symbols or frames, and the table of where they come from.

A new kind is one file and one line here; the task ``classify``, its recipes and evaluation then know it.
"""

from typing import Annotated

from pydantic import BeforeValidator, SerializeAsAny

from unrolled.core.registry import Registry
from unrolled.data.labelled.base import LabelledConfig, LabelledSource, LabelledSplit
from unrolled.data.labelled.batches import LabelledBatches, padded

__all__ = [
    "LABELLED",
    "AnyLabelledConfig",
    "LabelledBatches",
    "LabelledConfig",
    "LabelledSource",
    "LabelledSplit",
    "padded",
]

LABELLED: "Registry[type[LabelledSource]]" = Registry(
    "kind of labelled rows",
    {
        "sst2": "unrolled.data.labelled.texts:Sst2",
        "files": "unrolled.data.labelled.texts:Files",
        "shapes": "unrolled.data.labelled.shapes:Shapes",
        "directions": "unrolled.data.labelled.shapes:Directions",
        "listops": "unrolled.data.labelled.listops:ListOps",
    },
)

AnyLabelledConfig = Annotated[SerializeAsAny[LabelledConfig], BeforeValidator(LABELLED.parse)]
"""A field that takes the config of any kind of labelled rows, or its name alone."""
