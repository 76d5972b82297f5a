"""A private cache and a generated text; the table holds the task of the tests."""

from train.conftest import _private, text

__all__ = ["_private", "text"]
