"""Cells broken in what they do with the tokens that come together, or say of them."""

import torch

from .base import RightJRT, RightLSTM

__all__ = [
    "ClaimsAPrefix",
    "DeniesItsPrefix",
    "GoesOnInItsPrefix",
    "LosesItsPrefix",
    "MixesItsDocuments",
    "SeesPastItsPrefix",
]


class LosesItsPrefix(RightJRT):
    """Reads it in the window that has it and keeps nothing of it."""

    def _prefix(self, x, q, early, document):
        read, written = super()._prefix(x, q, early, document)
        return read, torch.zeros_like(written)


class GoesOnInItsPrefix(RightJRT):
    def _refuse(self, first):
        pass


class MixesItsDocuments(RightJRT):
    def _prefix(self, x, q, early, document):
        return super()._prefix(x, q, early, torch.zeros_like(document))


class SeesPastItsPrefix(RightJRT):
    @classmethod
    def causal_from(cls, config):
        return config.prefix - 1


class DeniesItsPrefix(RightJRT):
    @classmethod
    def causal_from(cls, config):
        return 0


class ClaimsAPrefix(RightLSTM):
    @classmethod
    def causal_from(cls, config):
        return 2
