"""What a training step minimises. A further objective is one file and one line in this table."""

from typing import Annotated

from pydantic import BeforeValidator, SerializeAsAny

from unrolled.core.registry import Registry
from unrolled.train.objectives.base import Extra, ExtraConfig, Given
from unrolled.train.objectives.regular import ObjectiveConfig, add_l2, divisor, objective

__all__ = [
    "OBJECTIVES",
    "AnyObjectiveConfig",
    "Extra",
    "ExtraConfig",
    "Given",
    "ObjectiveConfig",
    "add_l2",
    "divisor",
    "objective",
]

OBJECTIVES: "Registry[type[Extra]]" = Registry(
    "objective",
    {
        "auxiliary": "unrolled.train.objectives.auxiliary:Auxiliary",
        "calibrate": "unrolled.train.objectives.calibrate:Calibrate",
        "distill": "unrolled.train.objectives.distill:Distill",
        "match": "unrolled.train.objectives.match:Match",
        "phrase": "unrolled.train.objectives.phrase:Phrase",
        "recycle": "unrolled.train.objectives.recycle:Recycle",
        "reweigh": "unrolled.train.objectives.reweigh:Reweigh",
        "smooth": "unrolled.train.objectives.smooth:Smooth",
        "smooth_sequence": "unrolled.train.objectives.smooth_sequence:SmoothSequence",
        "smooth_similar": "unrolled.train.objectives.smooth_similar:SmoothSimilar",
        "transport": "unrolled.train.objectives.transport:Transport",
        "twin": "unrolled.train.objectives.twin:Twin",
    },
)

AnyObjectiveConfig = Annotated[SerializeAsAny[ExtraConfig], BeforeValidator(OBJECTIVES.parse)]
"""A field that takes the config of any further objective, or its name alone."""
