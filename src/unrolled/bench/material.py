"""Inputs and modules that rows share, and what a subject looks like to those who time and check it."""

import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Case", "Material"]


class Case(NamedTuple):
    """A subject with its inputs.

    wanted: what gradients are made of, by name. forward: gives the output (batch, time, width) and the parts of the
    final state. stepwise: the same by one call a step, the outputs in pieces; None where there are no steps.
    done: where a call may end early, which share of the whole the calls came to since this was last asked.
    """

    wanted: dict[str, Tensor]
    forward: Callable[[], tuple[Tensor, ...]]
    stepwise: Callable[[], tuple[list[Tensor], list[Tensor]]] | None
    done: Callable[[], float] | None = None


class Material:
    """Numbers and cells that rows share, each made once, the same in every process."""

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype
        self._made: dict[Any, Any] = {}

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What ``make`` gives, made at the first call with this key."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def normal(self, name: str, *shape: int) -> Tensor:
        """Normal numbers that depend on the name and the shape alone."""

        return self.once((name, shape), lambda: self._draw(name, shape))

    def _draw(self, name: str, shape: Sequence[int]) -> Tensor:
        generator = torch.Generator().manual_seed(zlib.crc32(repr((name, *shape)).encode()))
        return torch.randn(tuple(shape), generator=generator, dtype=torch.float64).to(self.dtype)

    def module(self, key: Any, make: Callable[[], nn.Module]) -> Any:
        """A module, its weights moved a little from where they begin, so that no bias is zero and no gain one."""

        def build() -> nn.Module:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                module = make().to(self.dtype)
            with torch.no_grad():
                for name, parameter in module.named_parameters():
                    parameter.add_(self._draw(name, parameter.shape), alpha=0.3 * parameter.shape[-1] ** -0.5)
            return module

        return self.once(key, build)
