"""Memories that are carried from segment to segment of a text, by name."""

from typing import Annotated

from pydantic import BeforeValidator, SerializeAsAny

from unrolled.core.registry import Registry
from unrolled.model.memory.base import Memory, MemoryConfig

__all__ = ["MEMORIES", "AnyMemoryConfig", "Memory", "MemoryConfig"]

MEMORIES: "Registry[type[Memory]]" = Registry(
    "memory",
    {
        "tokens": "unrolled.model.memory.tokens:TokenMemory",
        "associative": "unrolled.model.memory.associative:AssociativeMemory",
        "summary": "unrolled.model.memory.summary:SummaryMemory",
        "prompt": "unrolled.model.memory.prompt:PromptMemory",
        "slots": "unrolled.model.memory.slots:SlotMemory",
        "latents": "unrolled.model.memory.latents:LatentMemory",
        "nugget": "unrolled.model.memory.nugget:NuggetMemory",
    },
)

AnyMemoryConfig = Annotated[SerializeAsAny[MemoryConfig], BeforeValidator(MEMORIES.parse)]
"""A field that takes the config of any registered memory, or its name alone."""
