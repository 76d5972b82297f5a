"""Whether the systems of a plan, as they were resolved, are matched as it says."""

from collections.abc import Container, Iterable

from unrolled.compare.plan import OF_FRAMES, PlanConfig, SystemConfig
from unrolled.compare.texts import Text
from unrolled.core.errors import UsageError
from unrolled.core.registry import unknown_name
from unrolled.tasks.lm_size import Build, facts_of
from unrolled.train import ExperimentConfig

__all__ = ["SizeError", "check_corpora", "check_figures", "check_size", "check_tokens", "check_value"]


class SizeError(UsageError):
    """A system is too far from the match. remedy: the end of the sentence, of a plan. parameters: that it has."""

    def __init__(self, fact: str, remedy: str, parameters: int):
        super().__init__(fact + remedy)
        self.remedy, self.parameters = remedy, parameters


def check_tokens(text: Text, texts: Iterable[Text], name: str) -> None:
    """A part that is free may not make other tokens, of which losses per token say nothing together."""
    first = next(one for one in texts if one.name == name)
    if (text.vocabulary, text.validation_tokens) != (first.vocabulary, first.validation_tokens):
        raise UsageError(
            f"it reads {name} as {text.validation_tokens:,} tokens of {text.vocabulary:,} kinds, the first system as "
            f"{first.validation_tokens:,} of {first.vocabulary:,}; losses of each token cannot be compared so: hold "
            "the tokenizer and the text equal."
        )


def check_corpora(plan: PlanConfig, names: list[str]) -> None:
    """Raises UsageError for a contrast on a corpus that the plan does not have."""
    for contrast in plan.contrast:
        for corpus in contrast.corpora:
            if corpus not in names:
                raise UsageError(f"contrast {contrast.name!r}: {unknown_name('corpus', corpus, names)}")


def check_figures(plan: PlanConfig, figures: Container[str]) -> None:
    """Raises UsageError for a contrast of a figure of frames that models of these do not have."""
    for contrast in plan.contrast:
        if contrast.figure in OF_FRAMES and contrast.figure not in figures:
            needs = "frames, and task.given" if contrast.figure == "mse_future" else "frames"
            raise UsageError(
                f"contrast {contrast.name!r}: the figure {contrast.figure} needs {needs}; leave figure out, or ask of "
                "another."
            )


def check_value(
    plan: PlanConfig, config: ExperimentConfig, value: float | int | str, build: Build, parameters: int, state: int
) -> None:
    """Raises UsageError for a searched value that would undo what was matched.

    Args:
        config: with that value. build: makes its model. parameters, state: without it.
    """
    assert plan.search is not None
    setting, match = plan.search.setting, plan.match
    if setting.startswith("model"):
        facts = facts_of(config, build)
        for matched, was, name in (
            (match.parameters, parameters, "parameters"), (match.state, state, "state_numbers"),
        ):  # fmt: skip
            if matched is not None and facts[name] != was:
                raise UsageError(
                    f"{setting} = {value} makes {facts[name]:,} {name.replace('_', ' of ')} of {was:,}, which are "
                    "matched; search a setting that leaves them."
                )


def check_size(plan: PlanConfig, system: SystemConfig, parameters: int) -> None:
    """Raises UsageError for a size that is further from the match than the tolerance."""
    wanted = plan.match.parameters
    assert wanted is not None
    off = abs(parameters - wanted) / wanted
    if off > plan.match.tolerance:
        side = "above" if parameters > wanted else "below"
        field = system.fit or "width"
        raise SizeError(
            f"it has {parameters:,} parameters, {off:.1%} {side} the match of {wanted:,}, and no {field} fits better: ",
            'name another setting to fit, such as fit = "model.cell.factor", in its [[system]], or say '
            f"match.tolerance = {_round_up(off)}.",
            parameters,
        )


def _round_up(share: float) -> str:
    return f"{(int(share * 1000) + 1) / 1000:g}"
