"""Averages of the weights over the steps of training, which are validated and saved in place of the weights."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BeforeValidator, Field, SerializeAsAny
from torch import Tensor, nn

from unrolled.core.config import Config
from unrolled.core.registry import Registry
from unrolled.core.spread import local

__all__ = ["AVERAGING", "AnyAveragingConfig", "Averager", "AveragingConfig", "worse_than_before"]


def worse_than_before(earlier: Sequence[float], value: float, patience: int) -> bool:
    """The non-monotonic condition of NT-ASGD (Merity et al. 2018): ``value`` is above the lowest of the ``earlier``
    validation losses, the last ``patience`` of them left out."""
    return len(earlier) > patience and value > min(earlier[:-patience])


class AveragingConfig(Config):
    """Base of the averaging configurations."""

    name: str


class NoneConfig(AveragingConfig):
    """No averaging."""

    name: Literal["none"] = "none"


class _UniformConfig(AveragingConfig):
    form: Literal["asgd", "textbook"] = Field(
        default="asgd",
        description="asgd: as torch.optim.ASGD, which made the published figures, computes it: each step after the "
        "first takes the learning rate of the step before, and the first sample is left out of a longer average; "
        "textbook: every step its own rate, every sample counts",
    )


class UniformConfig(_UniformConfig):
    """The mean over all steps of the phase (AWD-LSTM's fine-tuning)."""

    name: Literal["uniform"] = "uniform"


class NonmonotoneConfig(_UniformConfig):
    """NT-ASGD (Merity et al. 2018): the mean over all steps since a validation was worse than the best one more than
    ``patience`` before it."""

    name: Literal["nonmonotone"] = "nonmonotone"
    patience: int = Field(default=5, ge=1, description="validations that the condition leaves out, n in the paper")


class TailConfig(AveragingConfig):
    """The mean over all steps since the best validation was ``patience`` validations old (Mogrifier LSTM's code)."""

    name: Literal["tail"] = "tail"
    patience: int = Field(default=50, ge=1, description="age of the best validation that starts the average")
    latest: int | None = Field(
        default=None, ge=1, description="validation of the phase that starts it in any case (absent: none)"
    )


class TwoTailedConfig(AveragingConfig):
    """Two means, of which the short one replaces the long one whenever it is no worse (Melis 2022)."""

    name: Literal["two_tailed"] = "two_tailed"


class EmaConfig(AveragingConfig):
    """Exponential moving average, begun at the weights after the first step."""

    name: Literal["ema"] = "ema"
    decay: float = Field(default=0.999, gt=0, lt=1, description="share of the old average at each step")


class Averager:
    """Averaging of one phase.

    The trainer calls :meth:`rate` before and :meth:`sample` after each step, validates each of :meth:`candidates`
    within :meth:`weights`, saves the one that :meth:`report` names, and gives the losses to :meth:`validated`. Averages
    are kept in the parameters' type and place, each parameter once (a tied matrix is one).

    Args:
        config: one of the configurations above. parameters: those of the model.
    """

    Config: ClassVar[type[AveragingConfig]] = NoneConfig
    names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Any, parameters: Iterable[nn.Parameter]):
        self.config = config
        self.parameters = list(parameters)
        self.means: dict[str, list[Tensor]] = {}
        self.numbers: dict[str, float] = {}

    @property
    def active(self) -> bool:
        """Whether averages are validated in place of the weights."""
        return bool(self.means)

    def rate(self, lr: float) -> float:
        """The learning rate to use for a step that is meant to have this one."""
        return lr

    def sample(self) -> None:
        """Take in the weights after a step."""

    def candidates(self) -> list[str]:
        """What a validation has to score; an empty name stands for the weights themselves."""
        return list(self.means) or [""]

    def report(self, losses: Mapping[str, float]) -> str:
        """The candidate to report and, where it is the best so far, to save."""
        return next(iter(losses))

    def validated(self, losses: Mapping[str, float], earlier: Sequence[float]) -> None:
        """Learn the losses of the candidates, once the reported one is saved.

        Args:
            earlier: those that earlier validations of the phase reported.
        """

    @contextlib.contextmanager
    def weights(self, candidate: str) -> Iterator[None]:
        """The parameters hold a candidate's values inside, and their own again afterwards, whatever happens."""
        if not candidate:
            yield
            return
        own = [p.detach().clone() for p in self.parameters]
        try:
            with torch.no_grad():
                for p, mean in zip(self.parameters, self.means[candidate], strict=True):
                    p.copy_(mean)
            yield
        finally:
            with torch.no_grad():
                for p, value in zip(self.parameters, own, strict=True):
                    p.copy_(value)

    def tensors(self) -> dict[str, Tensor]:
        """What :meth:`restore` needs besides :attr:`numbers`."""
        return {f"{name}.{i}": tensor for name, means in self.means.items() for i, tensor in enumerate(means)}

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, float]) -> None:
        """Continue where another averager of this kind was. ``tensors`` as from :meth:`tensors`.

        Raises:
            KeyError: tensors of another model. ValueError: of another kind of averaging.
        """
        names = dict.fromkeys(name.rpartition(".")[0] for name in tensors)
        fits = set(names) == set(self.names) if names or self.means else True
        if not fits or set(numbers) - {"rate"} != set(names) or min(numbers.values(), default=0) < 0:
            raise ValueError("the averages of another averager")
        self.numbers = dict(numbers)
        self.means = {
            name: [tensors[f"{name}.{i}"].to(p.device, copy=True) for i, p in enumerate(self.parameters)]
            for name in names
        }

    def _begin(self, *names: str) -> None:
        for name in names:
            self.means[name] = [p.detach().clone() for p in self.parameters]
            self.numbers[name] = 0

    @torch.no_grad()
    def _mix(self, name: str, share: float) -> None:
        """Move an average by ``share`` of the way to the weights."""
        values = [local(p.detach()) for p in self.parameters]
        torch._foreach_lerp_(list(map(local, self.means[name])), values, share)  # type: ignore[attr-defined]


class Uniform(Averager):
    """See :class:`UniformConfig`."""

    Config = UniformConfig
    names = ("mean",)

    def __init__(self, config: Any, parameters: Iterable[nn.Parameter]):
        super().__init__(config, parameters)
        if config.name == "uniform":
            self._begin("mean")

    def rate(self, lr: float) -> float:
        """See :meth:`Averager.rate`; the ``asgd`` form lags by one step."""
        if not self.active or self.config.form == "textbook":
            return lr
        used = self.numbers.get("rate", lr)
        self.numbers["rate"] = lr
        return used

    def sample(self) -> None:
        """See :meth:`Averager.sample`."""
        if self.active:
            self.numbers["mean"] += 1
            lost = 1 if self.config.form == "asgd" else 0
            self._mix("mean", 1 / max(1, self.numbers["mean"] - lost))


class Nonmonotone(Uniform):
    """See :class:`NonmonotoneConfig`."""

    Config = NonmonotoneConfig

    def validated(self, losses: Mapping[str, float], earlier: Sequence[float]) -> None:
        """See :meth:`Averager.validated`; starts the average."""
        if not self.active and worse_than_before(earlier, losses[""], self.config.patience):
            self._begin("mean")


class Tail(Averager):
    """See :class:`TailConfig`."""

    Config = TailConfig
    names = ("mean",)

    def sample(self) -> None:
        """See :meth:`Averager.sample`."""
        if self.active:
            self.numbers["mean"] += 1
            self._mix("mean", 1 / self.numbers["mean"])

    def validated(self, losses: Mapping[str, float], earlier: Sequence[float]) -> None:
        """See :meth:`Averager.validated`; starts the average."""
        if not self.active:
            history = [*earlier, losses[""]]
            age = len(history) - 1 - history.index(min(history))
            if age >= self.config.patience or len(history) == self.config.latest:
                self._begin("mean")


class TwoTailed(Averager):
    """See :class:`TwoTailedConfig`. Both means begin with the phase; what the long one is after a validation is
    reported."""

    Config = TwoTailedConfig
    names = ("long", "short")

    def __init__(self, config: Any, parameters: Iterable[nn.Parameter]):
        super().__init__(config, parameters)
        self._begin("long", "short")

    def sample(self) -> None:
        """See :meth:`Averager.sample`."""
        for name in self.means:
            self.numbers[name] += 1
            self._mix(name, 1 / self.numbers[name])

    def report(self, losses: Mapping[str, float]) -> str:
        """See :meth:`Averager.report`."""
        return "short" if losses["short"] <= losses["long"] else "long"

    def validated(self, losses: Mapping[str, float], earlier: Sequence[float]) -> None:
        """See :meth:`Averager.validated`; where the short mean is no worse it becomes the long one and starts anew."""
        if self.report(losses) == "short":
            for long, short in zip(self.means["long"], self.means["short"], strict=True):
                long.copy_(short)
            self.numbers["long"] = self.numbers["short"]
            self.numbers["short"] = 0


class Ema(Averager):
    """See :class:`EmaConfig`."""

    Config = EmaConfig
    names = ("mean",)

    def sample(self) -> None:
        """See :meth:`Averager.sample`."""
        if self.active:
            self._mix("mean", 1 - self.config.decay)
        else:
            self._begin("mean")


AVERAGING: "Registry[type[Averager]]" = Registry(
    "averaging",
    {
        name: f"{__name__}:{cls}"
        for name, cls in (
            ("none", "Averager"),
            ("uniform", "Uniform"),
            ("nonmonotone", "Nonmonotone"),
            ("tail", "Tail"),
            ("two_tailed", "TwoTailed"),
            ("ema", "Ema"),
        )
    },
    default="none",
)

AnyAveragingConfig = Annotated[SerializeAsAny[AveragingConfig], BeforeValidator(AVERAGING.parse)]
"""A field that takes the config of any averaging, or its name alone."""
