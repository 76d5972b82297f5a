"""A predictor around another, for what is mixed into predictions or changes how they are made."""

from typing import Any

import torch

from unrolled.predict.base import Predictor

__all__ = ["WrappedPredictor"]


class WrappedPredictor(Predictor):
    """Forwards to the predictor inside all that its kind does not change.

    Args:
        inner: the predictor inside.

    Attributes:
        adds: what it adds to the name of the protocol.
    """

    adds: str

    def __init__(self, inner: Predictor):
        self.inner = inner
        self.vocab_size, self.start_id = inner.vocab_size, inner.start_id
        self.gives_hidden, self.lockstep = inner.gives_hidden, inner.lockstep
        self.independent = inner.independent

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """The inner predictor's."""
        return self.inner.device

    @property
    def precision(self) -> str:  # type: ignore[override]
        """The inner predictor's."""
        return self.inner.precision

    @property
    def kind(self) -> str:  # type: ignore[override]
        """``adds``, after the name of what adapts below it."""
        return self.adds if self.inner.kind == "static" else f"{self.inner.kind} + {self.adds}"

    @property
    def options(self) -> dict[str, Any]:
        """See :attr:`Predictor.options`."""
        return self.inner.options

    @property
    def told(self) -> dict[str, Any]:
        """See :attr:`Predictor.told`."""
        return self.inner.told

    @property
    def holds(self) -> frozenset[str]:  # type: ignore[override]
        """The inner predictor's."""
        return self.inner.holds

    @property
    def model(self) -> Any:  # type: ignore[override]
        """The inner predictor's."""
        return self.inner.model

    def shared_form(self, state: Any) -> Any:
        """See :meth:`Predictor.shared_form`; of a state that is the inner predictor's."""
        return self.inner.shared_form(state)

    def own_form(self, shared: Any) -> Any:
        """See :meth:`Predictor.own_form`; of a state that is the inner predictor's."""
        return self.inner.own_form(shared)

    def restore(self) -> None:
        """See :meth:`Predictor.restore`."""
        self.inner.restore()

    def forget(self) -> None:
        """See :meth:`Predictor.forget`."""
        self.inner.forget()
