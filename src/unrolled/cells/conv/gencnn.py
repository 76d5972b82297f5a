"""genCNN."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn.functional import pad

from unrolled.cells.base import CellConfig
from unrolled.cells.mixer import Given, MixerCell
from unrolled.core.errors import UsageError
from unrolled.kernels.linear import linear

__all__ = ["GenCNN", "GenCNNConfig", "GenCNNState", "Tower"]

# Inputs that a map sees, and levels of maps; each halves the number of positions.
_KERNEL, _LEVELS = 3, 2


class GenCNNConfig(CellConfig):
    """Options of genCNN."""

    name: Literal["gencnn"] = "gencnn"
    alpha: int = Field(default=16, ge=4, le=1024, description="places of the newest words, one of them the summary's")
    beta: int = Field(default=16, ge=4, le=1024, description="places of a block of older words, the same")
    flow: int = Field(default=64, ge=1, le=1 << 16, description="maps whose weights are the same at all places")
    arrow: int = Field(
        default=64,
        ge=0,
        le=1 << 16,
        description="maps with weights of their own at each place, of the newest words alone",
    )

    @field_validator("alpha", "beta")
    @classmethod
    def _halved(cls, value: int) -> int:
        if value % 2**_LEVELS:
            raise UsageError(f"two levels halve the places, so their number is a multiple of 4, not {value}.")
        return value


class GenCNNState(NamedTuple):
    """summary: (batch, in_width), of all blocks that are folded. words: (batch, alpha + beta - 3, in_width),
    the last inputs. fill: (batch,), how many of them belong to the document and are in no block yet."""

    summary: Tensor
    words: Tensor
    fill: Tensor


class Tower(nn.Module):
    """Parameters of one network over places: ``levels`` with ``flow`` (F, 3d), ``arrow`` (n, A, 3d), their biases and
    ``gate`` (kinds of maps, 6d) at each; ``out`` (out, n F + n A) and ``out_bias``."""

    def __init__(self, in_width: int, out_width: int, length: int, flow: int, arrow: int):
        super().__init__()
        self.flow, self.arrow, self.length = flow, arrow, length
        self.levels = nn.ModuleList()
        for n, d in _sizes(in_width, length, flow + arrow):
            level = nn.Module()
            level.flow, level.flow_bias = (nn.Parameter(torch.empty(flow, *rest)) for rest in ((_KERNEL * d,), ()))
            if arrow:
                level.arrow = nn.Parameter(torch.empty(n, arrow, _KERNEL * d))
                level.arrow_bias = nn.Parameter(torch.empty(n * arrow))
            level.gate = nn.Parameter(torch.empty(2 if arrow else 1, 2 * _KERNEL * d))
            self.levels.append(level)
        top = length // 2**_LEVELS * (flow + arrow)
        self.out, self.out_bias = nn.Parameter(torch.empty(out_width, top)), nn.Parameter(torch.empty(out_width))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew: matrices uniform, of variance 2 / inputs before a rectifier, else 1 / inputs."""
        for name, parameter in self.named_parameters():
            scale = 6 if name.endswith(("flow", "arrow")) else 3
            bound = 0.0 if name.endswith("bias") else (scale / parameter.shape[-1]) ** 0.5
            parameter.uniform_(-bound, bound)

    @staticmethod
    def num_params(in_width: int, out_width: int, length: int, flow: int, arrow: int) -> int:
        """Σ of the levels 3d(F + nA) + F + nA and 6d a kind of map, and out(n(F + A) + 1)."""
        kinds, total = 2 if arrow else 1, out_width * (length // 2**_LEVELS * (flow + arrow) + 1)
        for n, d in _sizes(in_width, length, flow + arrow):
            total += (_KERNEL * d + 1) * (flow + n * arrow) + kinds * 2 * _KERNEL * d
        return total

    @staticmethod
    def flops(in_width: int, out_width: int, length: int, flow: int, arrow: int) -> int:
        """Operations of the products of one pass."""
        kinds, total = 2 if arrow else 1, out_width * (length // 2**_LEVELS) * (flow + arrow)
        for n, d in _sizes(in_width, length, flow + arrow):
            total += n * _KERNEL * d * (flow + arrow) + n // 2 * kinds * 2 * _KERNEL * d
        return 2 * total


def _sizes(in_width: int, length: int, maps: int) -> Iterator[tuple[int, int]]:
    """(places, width of the input) of each level."""
    for level in range(_LEVELS):
        yield length >> level, maps if level else in_width


class GenCNN(MixerCell):
    r"""genCNN, our reconstruction of Wang, Lu, Li, Jiang and Liu 2015 (arXiv:1503.05034), from its abstract and what is
    said of it elsewhere; there is no public code.

    A network over places reads the newest words (α), another folds older ones, block by block, into a vector that is
    the first word of the next block, and of α (β), so that the history has no end. With windows
    :math:`w_j = [z_{j-1}; z_j; z_{j+1}]` of the places, zeros beyond the ends, two levels of

    .. math::
        y_j &= \max(W w_j + b, 0) \quad \text{(time-flow)}, \quad \max(W^{(j)} w_j + b^{(j)}, 0)
        \quad \text{(time-arrow)} \\
        g_j &= \sigma(v \cdot [w_{2j-1}; w_{2j}]), \quad z_j = g_j y_{2j-1} + (1 - g_j) y_{2j}

    and a linear map of all that is left. Time-flow maps share their weights over places, time-arrow maps have their
    own at each; α has both side by side, each kind with a gate of its own, β has time-flow alone.

    α's places are the summary and the last ``alpha`` - 1 words, the newest last, zeros before the document. Words that
    have left α wait until they are a block of ``beta`` - 1, counted from the document's beginning; then β makes the new
    summary of the old one and the block. Until then they are not seen. A window is computed at once, but for the chain
    of summaries. The output is a linear map of α's top, where the paper has its softmax. Starts are ours: uniform by
    fan-in, no biases. Prepared for decoding the shared maps are packed, those of each place are not.

    Parameters: see :meth:`Tower.num_params`, of α to N and of β to I.
    """

    Config = GenCNNConfig
    State = GenCNNState
    EXAMPLES = (
        GenCNNConfig(alpha=4, beta=4, flow=6, arrow=2),
        GenCNNConfig(alpha=4, beta=4, flow=3, arrow=0),
    )
    EQUATION = "y = cnn(summary of older blocks, last words)"
    operation = "linear"
    even_steps = False

    def __init__(self, in_width: int, width: int, config: GenCNNConfig):
        super().__init__(in_width, width, config)
        self.alpha, self.beta = (Tower(*sizes) for sizes in _towers(config, in_width, width))
        self.newest, self.block = config.alpha - 1, config.beta - 1
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        self.alpha.reset_parameters()
        self.beta.reset_parameters()

    def backends(self) -> list[str]:
        """Those of ``linear``."""
        return ["window", "reference"]

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> GenCNNState:
        """Zeros, and no words."""
        carry = torch.zeros(batch, self.in_width, device=device, dtype=dtype)
        words = torch.zeros(batch, self.newest + self.block - 1, self.in_width, device=device, dtype=dtype)
        return GenCNNState(carry, words, torch.zeros(batch, device=device, dtype=torch.int64))

    def tower(self, name: str, z: Tensor) -> Tensor:
        """What the network ``alpha`` or ``beta`` makes of its places (..., length, in_width): (..., out)."""
        tower: Tower = getattr(self, name)
        for k in range(_LEVELS):
            place = f"{name}.levels.{k}"
            around = pad(z, (0, 0, 1, 1))
            windows = torch.cat([around[..., j : j + z.shape[-2], :] for j in range(_KERNEL)], -1)
            maps = [self.linear(f"{place}.flow", windows, f"{place}.flow_bias")]
            if tower.arrow:
                level: Any = tower.levels[k]
                # a block of its own for each place
                wish = "reference" if self.wish == "reference" else "auto"
                args = (windows.flatten(-2), level.arrow, level.arrow_bias, self.compute.precision, wish, self.name)
                maps.append(linear(*args).unflatten(-1, (-1, tower.arrow)))
            gates = torch.sigmoid(self.linear(f"{place}.gate", windows.unflatten(-2, (-1, 2)).flatten(-2)))
            made = []
            for kind, y in enumerate(maps):
                first, second = torch.relu(y).unflatten(-2, (-1, 2)).unbind(-2)
                g = gates[..., kind : kind + 1]
                made.append(g * first + (1 - g) * second)
            z = torch.cat(made, -1)
        return self.linear(f"{name}.out", z.flatten(-2), f"{name}.out_bias")

    def mix(self, x: Tensor, state: GenCNNState, given: Given) -> tuple[Tensor, GenCNNState]:
        """One window of the class's equations."""
        time, held = x.shape[1], state.words.shape[1]
        words = torch.cat([state.words, x], 1)
        count = self._count(state.fill, time, given.reset)
        carries = self._summaries(words, count, state.summary, given.reset)
        # the last words of every token, the newest last
        seen = words.unfold(1, self.newest, 1)[:, held - self.newest + 1 :].transpose(2, 3)
        lags = torch.arange(self.newest - 1, -1, -1, device=x.device)
        seen = seen * (lags < count.unsqueeze(-1)).unsqueeze(-1)
        y = self.tower("alpha", torch.cat([carries.unsqueeze(2), seen], 2))
        last = count[:, -1]
        waiting = (last - self.newest).clamp_min(0) % self.block
        fill = torch.where(last > self.newest, self.newest + waiting, last)
        lags = torch.arange(held - 1, -1, -1, device=x.device)
        kept = words[:, time:] * (lags < fill.unsqueeze(1)).unsqueeze(-1)
        if given.show is not None:
            given.show("summary", carries)
        return y, GenCNNState(carries[:, -1], kept, fill)

    @staticmethod
    def _count(fill: Tensor, time: int, reset: Tensor | None) -> Tensor:
        """(batch, time): words of the document up to each token, without those that were folded before the window."""
        steps = torch.arange(1, time + 1, device=fill.device).expand(fill.shape[0], -1)
        count = fill.unsqueeze(1) + steps
        if reset is None:
            return count
        begin = torch.where(reset, steps, 0).cummax(1).values
        return torch.where(begin > 0, steps - begin + 1, count)

    def _summaries(self, words: Tensor, count: Tensor, carry: Tensor, reset: Tensor | None) -> Tensor:
        """(batch, time, in_width): the summary that each token's α sees; one β after another."""
        time, block = count.shape[1], self.block
        folds = (count >= self.newest + block) & ((count - self.newest) % block == 0)
        order = folds.cumsum(1)
        rows = torch.arange(count.shape[0], device=count.device)
        documents = torch.zeros_like(count) if reset is None else reset.cumsum(1)
        # a summary belongs to the document of its block; that which is carried in to what comes before a reset
        found, owner = [carry], torch.zeros_like(documents[:, 0])
        owners = [owner]
        # a recorded step is the same whatever is read: as many folds as the window may have
        most = time if torch.compiler.is_exporting() else int(order[:, -1].max())
        for k in range(1, most + 1):
            at = (order < k).sum(1).clamp_max(time - 1)
            document = documents[rows, at]
            # the block's oldest word lies as deep in the words as its fold in the window; rows without so many folds
            # make one that nobody reads
            places = at.unsqueeze(1) + torch.arange(block, device=count.device)
            before = found[-1] * (owners[-1] == document).unsqueeze(-1)
            entry = torch.cat([before.unsqueeze(1), words[rows.unsqueeze(1), places]], 1)
            found.append(self.tower("beta", entry))
            owners.append(document)
        own = torch.stack(owners, 1).gather(1, order) == documents
        return torch.stack(found, 1)[rows.unsqueeze(1), order] * own.unsqueeze(-1)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """See the class."""
        return sum(Tower.num_params(*sizes) for sizes in _towers(config, in_width, width))

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """α's pass, and a (beta - 1)-th of β's, which comes once a block."""
        alpha, beta = (Tower.flops(*sizes) for sizes in _towers(config, in_width, width))
        return alpha + round(beta / (config.beta - 1))


def _towers(config: GenCNNConfig, in_width: int, width: int) -> tuple[tuple[int, int, int, int, int], ...]:
    """(inputs, outputs, places, time-flow maps, time-arrow maps) of α and β."""
    return (
        (in_width, width, config.alpha, config.flow, config.arrow),
        (in_width, in_width, config.beta, config.flow, 0),
    )
