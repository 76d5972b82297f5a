"""The spatiotemporal LSTM: convolutional layers with a memory that climbs through them."""

from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, layer_norm, unfold

from unrolled.cells.base import CellConfig, ParameterRule
from unrolled.cells.matrix.base import by_fan_in, fill
from unrolled.cells.mixer import Given, MixerCell
from unrolled.core.errors import UsageError
from unrolled.kernels.linear import linear

__all__ = ["STLSTM", "STLSTMConfig"]


class STLSTMConfig(CellConfig):
    """Options of the spatiotemporal LSTM."""

    name: Literal["st_lstm"] = "st_lstm"
    grid: tuple[int, int] = Field(default=(2, 2), description="rows and columns of a frame")
    layers: int = Field(default=2, ge=1, le=64, description="layers of the whole network, which is one cell")
    kernel: int = Field(default=3, ge=1, le=31, description="side of the filters, an odd number")
    norm: bool = Field(default=False, description="a layer norm over maps and points after each convolution of gates")
    forget_bias: float = Field(default=1.0, ge=-1e3, le=1e3, description="added to both forget gates")


class GridState(NamedTuple):
    """maps_h, maps_c: h and c, (batch, layers, maps, rows, columns). maps_m: m, (batch, maps, rows,
    columns)."""

    maps_h: Tensor
    maps_c: Tensor
    maps_m: Tensor


class STLSTM(MixerCell):
    r"""The network PredRNN (Wang et al. 2017, 2021, arXiv:2103.09504), all of its layers as one cell: a memory m enters
    the lowest layer from the highest one of the frame before, and climbs.

    .. math::
        (i, f, g, i', f', g', o) &= W_x * x_t + [W_h * h_{t-1} : i, f, g, o] + [W_m * m : i', f', g'] \\
        c_t &= \sigma(f + 1) \odot c_{t-1} + \sigma(i) \odot \tanh(g), \quad
        m \leftarrow \sigma(f' + 1) \odot m + \sigma(i') \odot \tanh(g') \\
        h_t &= \sigma(o + W_o * [c_t, m]) \odot \tanh(W_1 * [c_t, m])

    Each layer reads the h of the one below; convolutions have no biases and keep the size of the frame, W_1 is 1 x 1.
    A frame is its channels one after another, each row after row; so is the output, h of the highest layer, with N /
    (rows columns) maps. An input that is no whole channels goes through a matrix first, to one. The cell hands ``cost``
    upwards, by which the two memories are kept apart: the mean of the absolute cosines, over the points, between what
    is written into c and into m, both through the same 1 x 1 map (``train.objective.cost``, 0.1 in the paper for moving
    digits). Filters start as those of ``Conv2d``.

    Parameters of a layer k²(7In + 9n²) + 2n² with n maps, I of them (channels in the lowest layer) below, and with
    norms 30 n rows columns; n² of the shared map.
    """

    Config = STLSTMConfig
    State = GridState
    EXAMPLES = (
        STLSTMConfig(grid=(2, 2), layers=2, kernel=3),
        STLSTMConfig(grid=(2, 3), layers=2, kernel=1, norm=True, forget_bias=0.5),
    )
    EQUATION = "c = f c + i g; m = f' m + i' g'; h = o tanh(W [c, m]), by convolutions"
    operation = "linear"
    hands = ("cost",)
    parameter_rules = {}

    def __init__(self, in_width: int, width: int, config: STLSTMConfig):
        super().__init__(in_width, width, config)
        rows, columns = config.grid
        if min(rows, columns) < 1 or config.kernel % 2 == 0:
            raise UsageError("a grid has a row and a column at least, and the side of a filter is odd; correct them.")
        points, n = rows * columns, width // (rows * columns)
        self.maps, self.channels = n, _channels(in_width, points)
        self.entry = nn.Parameter(torch.empty(points, in_width)) if in_width % points else None

        def filters(out: int, entry: int, side: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(out, entry, side, side))

        below = [self.channels, *[n] * (config.layers - 1)]
        side = config.kernel
        self.weight_x = nn.ParameterList(filters(7 * n, entry, side) for entry in below)
        self.weight_h = nn.ParameterList(filters(4 * n, n, side) for _ in below)
        self.weight_m = nn.ParameterList(filters(3 * n, n, side) for _ in below)
        self.weight_o = nn.ParameterList(filters(n, 2 * n, side) for _ in below)
        self.mixed = nn.ParameterList(filters(n, 2 * n, 1) for _ in below)
        self.apart = filters(n, n, 1)
        self.gains: nn.ParameterList | None = None
        if config.norm:
            sizes = [count * n for _ in below for count in (7, 4, 3, 1)]
            self.gains = nn.ParameterList(nn.Parameter(torch.empty(2, size, rows, columns)) for size in sizes)
            rule = ParameterRule(decay=False, drawn=False)
            self.parameter_rules = {f"gains.{place}": rule for place in range(len(sizes))}
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        fill(by_fan_in, [self.entry])
        groups = (self.weight_x, self.weight_h, self.weight_m, self.weight_o, self.mixed, [self.apart])
        for weight in (one for group in groups for one in group):
            if not weight.is_meta:
                bound = weight[0].numel() ** -0.5
                nn.init.uniform_(weight, -bound, bound)
        for gain in self.gains or ():
            if not gain.is_meta:
                gain[0].fill_(1.0)
                gain[1].zero_()

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """The points of a frame."""
        return config.grid[0] * config.grid[1]

    def backends(self) -> list[str]:
        """The one body that there is; convolutions are torch's."""
        return ["reference"]

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> GridState:
        """Zeros."""
        n = self.width // (self.config.grid[0] * self.config.grid[1])
        h = torch.zeros(batch, self.config.layers, n, *self.config.grid, device=device, dtype=dtype)
        return GridState(h, torch.zeros_like(h), h.new_zeros(batch, n, *self.config.grid))

    def _conv(self, x: Tensor, weight: Tensor, norm: int | None = None) -> Tensor:
        # as a product, so that precision and backend mean here what they mean everywhere
        side = weight.shape[-1]
        columns = unfold(x, side, padding=side // 2).transpose(1, 2)
        wish = "reference" if self.wish == "reference" else self.compute.wish("linear")
        y = linear(columns, weight.flatten(1), None, self.compute.precision, wish, self.name)
        y = y.transpose(1, 2).unflatten(2, x.shape[2:])
        if norm is None or self.gains is None:
            return y
        gain, bias = self.gains[norm]
        return layer_norm(y, gain.shape, gain, bias)

    def mix(self, x: Tensor, state: GridState, given: Given) -> tuple[Tensor, GridState]:
        """One window of the class's equations."""
        x = x if self.entry is None else self.linear("entry", x)
        frames = x.unflatten(2, (self.channels, *self.config.grid))
        # what the lowest layer makes of the input alone, for all frames at once
        entry = self._conv(frames.flatten(0, 1), self.weight_x[0], 0).unflatten(0, x.shape[:2])
        outputs, costs = [], []
        for t in range(x.shape[1]):
            if given.reset is not None:
                keep = (~given.reset[:, t]).to(x.dtype).view(-1, 1, 1, 1)
                state = GridState(
                    state.maps_h * keep.unsqueeze(1), state.maps_c * keep.unsqueeze(1), state.maps_m * keep
                )
            state, cost = self._frame(entry[:, t], state)
            outputs.append(state.maps_h[:, -1].flatten(1))
            costs.append(cost)
        cost, below = torch.stack(costs, 1).unsqueeze(-1), given.handed.get("cost")
        given.handed["cost"] = cost if below is None else below + cost
        return torch.stack(outputs, 1), state

    def _frame(self, entry: Tensor, state: GridState) -> tuple[GridState, Tensor]:
        """All layers on one frame; the cost (batch,)."""
        hs, cs, m, cost, bias = [], [], state.maps_m, entry.new_zeros(entry.shape[0]), self.config.forget_bias
        for layer in range(self.config.layers):
            whole = entry if layer == 0 else self._conv(hs[-1], self.weight_x[layer], 4 * layer)
            x_i, x_f, x_g, y_i, y_f, y_g, x_o = whole.chunk(7, 1)
            h_i, h_f, h_g, h_o = self._conv(state.maps_h[:, layer], self.weight_h[layer], 4 * layer + 1).chunk(4, 1)
            m_i, m_f, m_g = self._conv(m, self.weight_m[layer], 4 * layer + 2).chunk(3, 1)
            into_c = torch.sigmoid(x_i + h_i) * torch.tanh(x_g + h_g)
            c = torch.sigmoid(x_f + h_f + bias) * state.maps_c[:, layer] + into_c
            into_m = torch.sigmoid(y_i + m_i) * torch.tanh(y_g + m_g)
            m = torch.sigmoid(y_f + m_f + bias) * m + into_m
            both = torch.cat([c, m], 1)
            o = torch.sigmoid(x_o + h_o + self._conv(both, self.weight_o[layer], 4 * layer + 3))
            hs.append(o * torch.tanh(self._conv(both, self.mixed[layer])))
            cs.append(c)
            apart = [self._conv(part, self.apart).flatten(2) for part in (into_c, into_m)]
            cost = cost + cosine_similarity(*apart, dim=-1).abs().mean(1) / self.config.layers
        return GridState(torch.stack(hs, 1), torch.stack(cs, 1), m), cost

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """The sum over layers of k²(7In + 9n²) + 2n², norms, and n²."""
        points = config.grid[0] * config.grid[1]
        n, below = width // points, _channels(in_width, points) + (config.layers - 1) * (width // points)
        own = config.kernel**2 * (7 * n * below + config.layers * 9 * n**2) + config.layers * 2 * n**2 + n**2
        own += points * in_width if in_width % points else 0
        return own + (config.layers * 2 * 15 * n * points if config.norm else 0)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """Twice the filters at every point; the shared map twice a layer."""
        points = config.grid[0] * config.grid[1]
        n, below = width // points, _channels(in_width, points) + (config.layers - 1) * (width // points)
        own = config.kernel**2 * (7 * n * below + config.layers * 9 * n**2) + config.layers * 4 * n**2
        return 2 * points * own + (2 * points * in_width if in_width % points else 0)


def _channels(in_width: int, points: int) -> int:
    """Of an input; one where it is no whole frames, and goes through a matrix first."""
    return in_width // points if in_width % points == 0 else 1
