"""What a text may be. A further constraint is one file and one line in this table."""

from typing import Annotated

from pydantic import BeforeValidator, SerializeAsAny

from unrolled.core.registry import Registry
from unrolled.generate.constraints.base import Constraint, ConstraintConfig

__all__ = ["CONSTRAINTS", "AnyConstraintConfig", "Constraint", "ConstraintConfig"]

CONSTRAINTS: "Registry[type[Constraint]]" = Registry(
    "constraint",
    {
        "regex": "unrolled.generate.constraints.grammar:Regex",
        "grammar": "unrolled.generate.constraints.grammar:Grammar",
        "corpus": "unrolled.generate.constraints.corpus:Corpus",
        "number": "unrolled.generate.constraints.number:Number",
        "json": "unrolled.generate.constraints.grammar:JSON",
    },
)

AnyConstraintConfig = Annotated[SerializeAsAny[ConstraintConfig], BeforeValidator(CONSTRAINTS.parse)]
"""A field that takes the config of any constraint."""
