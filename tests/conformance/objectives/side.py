"""An objective with parameters of its own, in one file: a map of the outputs is to be 1 everywhere."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.train.objectives import Extra, ExtraConfig, Given

__all__ = ["Ones", "OnesConfig"]


class OnesConfig(ExtraConfig):
    """Options."""

    name: Literal["ones"] = "ones"
    detached: bool = Field(default=False, description="keep its gradient from the model")


class Ones(Extra):
    """mean (u h + noise - 1)^2, the noise drawn anew for each batch."""

    Config = OnesConfig
    EXAMPLES = (OnesConfig(), OnesConfig(detached=True, weight=3.0))

    def side(self, model: Any) -> nn.Module:
        return nn.Linear(model.stack.out_width, 1)

    def value(self, given: Given) -> Tensor:
        h = given.seen.out.raw.detach() if self.config.detached else given.seen.out.raw
        noise = 0.1 * torch.randn(h.shape[:2], generator=self.streams.generator("ones", given.position))
        return (given.side(h).squeeze(2) + noise.to(h.dtype) - 1).square().mean()
