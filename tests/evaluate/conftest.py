"""The tiny models that the tests of predictors read, too."""

from predict.tiny import _private, predictor, tokenizer  # noqa: F401
