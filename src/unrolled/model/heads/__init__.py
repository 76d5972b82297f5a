"""Heads by name."""

from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from unrolled.core.registry import Registry
from unrolled.model.heads.base import Head, HeadConfig

__all__ = ["HEADS", "AnyHeadConfig", "Head", "HeadConfig"]

HEADS: "Registry[Any]" = Registry(
    "head",
    {
        "softmax": "unrolled.model.heads.softmax:SoftmaxHead",
        "mos": "unrolled.model.heads.mos:MixtureHead",
        "adaptive": "unrolled.model.heads.adaptive:AdaptiveHead",
        "projected": "unrolled.model.heads.projected:ProjectedHead",
        "split": "unrolled.model.heads.split:SplitHead",
        "pointer": "unrolled.model.heads.pointer:PointerHead",
        "terminating": "unrolled.model.heads.terminating:TerminatingHead",
        "nodes": "unrolled.model.heads.nodes:NodesHead",
        "temporal": "unrolled.model.heads.temporal:TemporalHead",
        "perspectives": "unrolled.model.heads.perspectives:PerspectivesHead",
    },
    default="softmax",
)

AnyHeadConfig = Annotated[SerializeAsAny[HeadConfig], BeforeValidator(HEADS.parse)]
"""A field that takes the config of any registered head, or its name alone."""
