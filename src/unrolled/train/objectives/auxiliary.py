"""The loss of outputs below the last one."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.model import LanguageModel
from unrolled.train.objectives.base import Extra, ExtraConfig, Given

__all__ = ["Auxiliary", "AuxiliaryConfig"]

_NAME = "auxiliary"


class AuxiliaryConfig(ExtraConfig):
    """Options of the auxiliary losses."""

    name: Literal["auxiliary"] = _NAME


class Auxiliary(Extra):
    """Deep supervision as of the TrellisNet (Bai, Kolter and Koltun 2018): the head predicts the targets from outputs
    of levels below the last too.

    The value is the sum over these levels of the loss of each, divided as the loss itself. They are those that the last
    layer hands upwards by the name ``auxiliary`` (``trellis.aux_frequency``). Dropout of the output has the same mask
    for all of them, where the authors draw one for each.
    """

    Config = AuxiliaryConfig
    EXAMPLES = (AuxiliaryConfig(weight=0.05), AuxiliaryConfig(weight=0.3))
    suits: ClassVar[Mapping[str, Any]] = {"model": {"cell": {"name": "trellis", "levels": 4, "aux_frequency": 2}}}

    def __init__(self, config: AuxiliaryConfig, streams: RandomStreams, model: nn.Module):
        super().__init__(config, streams, model)
        stack = model.stack if isinstance(model, LanguageModel) else None
        if stack is None or stack.residual or stack.final_norm is not None or _NAME not in stack.cells()[-1].hands:
            raise UsageError(
                "the objective auxiliary needs a plain stack without a norm at its end, whose last layer hands its "
                "levels upwards; set trellis.aux_frequency, or leave it out of train.extra."
            )

    def value(self, given: Given) -> Tensor:
        """See :meth:`Extra.value`."""
        seen, model = given.seen, given.seen.model
        assert isinstance(model, LanguageModel)
        mask = None if seen.drawn is None else seen.drawn.output
        total = seen.total.new_zeros(())
        for h in seen.out.handed[_NAME].unbind(2):
            out = seen.out._replace(raw=h, dropped=h if mask is None else h * mask)
            total = total + model.score(out, seen.targets, seen.reset, seen.weight, seen.drawn)[0]
        return total / given.divisor
