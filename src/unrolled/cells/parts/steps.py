"""Step sizes of state-space models: softplus of a bias that starts log-uniform."""

import math

import torch
from torch import Tensor

__all__ = ["fill_step_bias"]


def fill_step_bias(bias: Tensor, low: float = 1e-3, high: float = 0.1, floor: float = 1e-4) -> None:
    """Draw a bias anew such that softplus(bias) is log-uniform on [low, high], and at least ``floor`` (Gu and Dao
    2023)."""
    least, most = math.log(low), math.log(high)
    step = (least + (most - least) * torch.rand_like(bias)).exp().clamp_min(floor)
    bias.copy_(step + torch.log(-torch.expm1(-step)))
