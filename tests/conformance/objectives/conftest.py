"""A private cache and a generated text."""

from train.conftest import _private, text

__all__ = ["_private", "text"]
