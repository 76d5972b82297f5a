"""The tiny models that the tests of evaluation read, too."""

from predict.tiny import _private, predictor, tokenizer  # noqa: F401
