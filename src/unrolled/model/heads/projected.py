"""Adaptive softmax over the tables of an adaptive input."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.core.errors import UsageError
from unrolled.kernels.linear import glue_linear
from unrolled.model.heads.base import Head, HeadConfig
from unrolled.model.heads.blocks import blockwise_loss
from unrolled.model.heads.frequency import check_frequency_order
from unrolled.model.tables import Tables, narrowed

__all__ = ["ProjectedConfig", "ProjectedHead"]


class ProjectedConfig(HeadConfig):
    """Options of the projected adaptive softmax."""

    name: Literal["projected"] = "projected"
    cutoffs: tuple[int, ...] = Field(
        default=(19997, 39997, 199997), description="first id of each tail; those of the embedding where that is tied"
    )
    div_value: float = Field(
        default=4.0, ge=1, le=1024, description="a tail's width is that of the one before over this"
    )
    block: int = Field(default=2**22, ge=1, description="logits held at once in training (rows x vocabulary)")


class ProjectedHead(Head):
    r"""Adaptive softmax whose clusters have tables and maps in the form of an adaptive input (Baevski and Auli 2019),
    and share them with it where they are tied; as in the code of Transformer-XL and S4.

    .. math::
        z^{(0)} &= [E_0; C] P_0^\top h + [b_0; c], \quad z^{(i)} = E_i P_i^\top h + b_i \\
        \log p(v) &= \log \mathrm{softmax}(z^{(0)})_v \text{ for frequent } v, \quad
            \log \mathrm{softmax}(z^{(0)})_{C_i} + \log \mathrm{softmax}(z^{(i)})_v \text{ in cluster } i

    Tied, E_i are the tables of the embedding and P_i its maps but for P_0, which is the head's own, as published. Ids
    must fall in frequency. Clusters' vectors and all biases start at zero, P_0 as ``torch.nn.Linear``.

    Parameters beyond the tables and their maps: V + K(N + 1) with K tails, and N² for P_0 where it is tied.
    """

    Config = ProjectedConfig
    EXAMPLES = (ProjectedConfig(cutoffs=(5, 12), div_value=2.0), ProjectedConfig(cutoffs=(7,), div_value=1.5))

    def __init__(self, in_width: int, vocab_size: int, config: ProjectedConfig, tied: Any = None):
        super().__init__(in_width, vocab_size, config, tied)
        self.tables = _shared(tied, in_width, vocab_size, config)
        own = self.tables.widths[0]
        self.first = None if tied is None else nn.Parameter(torch.empty(in_width, own))
        self.clusters = nn.Parameter(torch.zeros(len(config.cutoffs), own))
        self.cluster_bias = nn.Parameter(torch.zeros(len(config.cutoffs)))
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        if self.first is not None and not self.first.is_meta:
            nn.init.uniform_(self.first, -(in_width**-0.5), in_width**-0.5)

    @property
    def needs_counts(self) -> bool:
        """See :attr:`Head.needs_counts`."""
        return True

    def use_counts(self, counts: Tensor) -> None:
        """Refuse ids that do not fall in frequency."""
        check_frequency_order("projected", self.config.cutoffs, counts)

    def _parts(self) -> list[Tensor]:
        """All that a loss depends on: biases, clusters and their bias, the tables, the maps."""
        first, *maps = self.tables.maps
        first = first if self.first is None else self.first
        return [self.bias, self.clusters, self.cluster_bias, *self.tables.rows(), first, *maps]

    def _group(self, h: Tensor, i: int, parts: Sequence[Tensor]) -> Tensor:
        """log softmax of group i, (rows, its ids, and for the first one its clusters), of h (rows, in_width)."""
        ends, groups = self.tables.ends, len(self.tables.widths)
        rows, bias = parts[3 + i], parts[0][ends[i] : ends[i + 1]]
        if i == 0:
            rows, bias = torch.cat([rows, parts[1]]), torch.cat([bias, parts[2]])
        read = self._product(h, parts[3 + groups + i].t())
        return torch.log_softmax(self.logit_scale * (self._product(read, rows) + bias), -1)

    def _product(self, v: Tensor, matrix: Tensor) -> Tensor:
        return glue_linear(v, matrix, None, self.compute, self.config.name)

    def _nll(self, inputs: Sequence[Tensor], ids: Tensor, parts: Sequence[Tensor]) -> Tensor:
        ends = self.tables.ends
        head = self._group(inputs[0], 0, parts)
        group = torch.bucketize(ids, torch.tensor(ends[1:-1], device=ids.device), right=True)
        nll = -head.gather(1, torch.where(group == 0, ids, ends[1] + group - 1).unsqueeze(1)).squeeze(1)
        for i in range(1, len(ends) - 1):
            at = (group == i).nonzero().squeeze(1)
            if len(at):
                tail = self._group(inputs[0][at], i, parts)
                nll = nll.index_add(0, at, -tail.gather(1, (ids[at] - ends[i]).unsqueeze(1)).squeeze(1))
        return nll

    def loss(
        self,
        h: Tensor,
        targets: Tensor,
        weight: Tensor | None = None,
        state: None = None,
        reset: Tensor | None = None,
        masks: None = None,
    ) -> tuple[Tensor, Tensor, None]:
        """See :meth:`Head.loss`."""
        each = None if weight is None else weight.flatten().to(h.dtype)
        rows = self.config.block // self.vocab_size
        total, nll = blockwise_loss(self._nll, [h.flatten(0, 1)], targets.flatten(), self._parts(), each, rows)
        return total, nll.view_as(targets), None

    def log_prob(self, h: Tensor, state: None = None, masks: None = None) -> tuple[Tensor, None]:
        """See :meth:`Head.log_prob`."""
        flat, parts, frequent = h.reshape(-1, h.shape[-1]), self._parts(), self.tables.ends[1]
        head = self._group(flat, 0, parts)
        tails = [
            head[:, frequent + i - 1, None] + self._group(flat, i, parts) for i in range(1, len(self.tables.widths))
        ]
        return torch.cat([head[:, :frequent], *tails], 1).view(*h.shape[:-1], self.vocab_size), None


def _shared(tied: Any, in_width: int, vocab_size: int, config: ProjectedConfig) -> Tables:
    """The tables of an adaptive input that fits, or new ones. Raises UsageError for what cannot be tied."""
    if tied is None:
        tables = Tables(vocab_size, in_width, config.cutoffs, config.div_value)
        tables.reset_parameters(1.0)
        return tables
    if not isinstance(tied, Tables):
        raise UsageError("the head projected can be tied to an adaptive input alone; set embedding.cutoffs, or untie.")
    wanted = [0, *config.cutoffs, vocab_size], narrowed(in_width, config.div_value, len(config.cutoffs) + 1)
    if (tied.ends, tied.widths) != wanted:
        raise UsageError(
            "the head projected is tied to tables of other sizes; give head and embedding the same cutoffs, div_value "
            "and width, or untie."
        )
    return tied
