"""Long expressive memory."""

from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.cells.base import CellConfig, StepCell, Tap, Weights
from unrolled.cells.init import Init, fill_matrix, fill_vectors, truncated_deviation, truncated_normal
from unrolled.cells.torch_form import bias_names
from unrolled.kernels.cell_loop import silent

__all__ = ["LEM", "LEMConfig", "LEMState"]


class LEMConfig(CellConfig):
    """Options of the long expressive memory."""

    name: Literal["lem"] = "lem"
    dt: float = Field(
        default=1.0, gt=0, le=1, description="largest step size, Δt of the equation; 1 is the published one for text"
    )
    bias: Literal["one", "two"] = Field(
        default="one", description="one bias vector, or two as in the authors' PyTorch code, whose sum acts"
    )
    init: Init = Field(default="uniform", description="initialisation of the matrices; uniform draws the biases too")


class LEMState(NamedTuple):
    """h: y of the equation. c: z of the equation. Both (batch, width)."""

    h: Tensor
    c: Tensor


class LEM(StepCell):
    r"""Long expressive memory (Rusch, Mishra, Erichson and Mahoney 2022): coupled equations with learned step sizes.

    .. math::
        \Delta &= \Delta t\, \sigma(W_1 y_{t-1} + V_1 x_t + b_1), \quad
            \bar\Delta = \Delta t\, \sigma(W_2 y_{t-1} + V_2 x_t + b_2) \\
        z_t &= (1 - \Delta) \odot z_{t-1} + \Delta \odot \tanh(W_z y_{t-1} + V_z x_t + b_z) \\
        y_t &= (1 - \bar\Delta) \odot y_{t-1} + \bar\Delta \odot \tanh(W_y z_t + V_y x_t + b_y)

    y is the output, h of the state here, and z its c. The new z goes into y, so a step has two products, one after the
    other. Blocks of ``weight_ih`` and the biases: Δ, Δ̄, z, y; of ``weight_hh`` Δ, Δ̄, z; W_y is ``weight_ch``. In the
    authors' PyTorch code (network.py, whose order of blocks is Δ̄, Δ, y, z in its maps of x) all weights and both
    bias vectors start uniform in ±1/sqrt(N), as here. Taps: i is Δ/Δt, and z is 1 - Δ̄/Δt; where Δt is 1 the share of h
    that is kept.

    Deviations: the authors' modified lamb drops units of y in the products alone, where ``state_in`` masks the y that
    is kept too. Parameters 4(NI + N² + N), 4N more with two biases.
    """

    Config = LEMConfig
    State = LEMState
    EXAMPLES = (LEMConfig(), LEMConfig(dt=0.3, bias="two"), LEMConfig(init="variance_scaling"))
    EQUATION = "c = (1-i)*c + i*g; h = z*h + (1-z)*tanh(W c + V x)"
    recurrent_weights = ("weight_hh", "weight_ch")

    def __init__(self, in_width: int, width: int, config: LEMConfig):
        super().__init__(in_width, width, config)
        self.weight_ih = nn.Parameter(torch.empty(4 * width, in_width))
        self.weight_hh = nn.Parameter(torch.empty(3 * width, width))
        self.weight_ch = nn.Parameter(torch.empty(width, width))
        for name in bias_names(config.bias):
            self.register_parameter(name, nn.Parameter(torch.empty(4 * width)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew; biases uniform, or truncated normal with fan-in N, as the matrices; else zero."""
        init, width = self.config.init, self.width
        fill_matrix(self.weight_ih, init, width, 4, recurrent=False)
        fill_matrix(self.weight_hh, init, width, 3)
        fill_matrix(self.weight_ch, init, width)
        deviation = truncated_deviation(init, width)
        for name in bias_names(self.config.bias):
            bias = self.get_parameter(name)
            if init == "uniform":
                nn.init.uniform_(bias, -(width**-0.5), width**-0.5)
            elif deviation is not None and not bias.is_meta:
                with torch.no_grad():
                    truncated_normal(bias, deviation)
            else:
                fill_vectors([bias])

    def project(self, x: Tensor, w: Weights) -> Tensor:
        """V x + b, (..., 4N)."""
        bias = w["bias"] if self.config.bias == "one" else w["bias_ih"] + w["bias_hh"]
        return w.linear("weight_ih", x, bias)

    def step(self, pre: Tensor, state: LEMState, w: Weights, tap: Tap) -> tuple[Tensor, LEMState]:
        """One step of the class's equations."""
        n, dt = self.width, self.config.dt
        i_pre, z_pre, g_pre = w.linear("weight_hh", state.h, pre[..., : 3 * n]).chunk(3, -1)
        i, o, g = torch.sigmoid(i_pre), torch.sigmoid(z_pre), torch.tanh(g_pre)
        of_c, of_h = (i, o) if dt == 1.0 else (dt * i, dt * o)
        c = state.c + of_c * (g - state.c)
        n_pre = w.linear("weight_ch", c, pre[..., 3 * n :])
        candidate = torch.tanh(n_pre)
        h = state.h + of_h * (candidate - state.h)
        if tap is not silent:
            for name, value in (("i_pre", i_pre), ("z_pre", -z_pre), ("g_pre", g_pre), ("n_pre", n_pre)):
                tap(name, value)
            for name, value in (("i", i), ("z", 1 - o), ("g", g), ("n", candidate), ("c", c), ("h", h)):
                tap(name, value)
        return h, LEMState(h, c)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """4(NI + N² + N), or + 4N with two biases."""
        return 4 * width * (in_width + width + len(bias_names(config.bias)))

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """8N(I + N)."""
        return 8 * width * (in_width + width)
