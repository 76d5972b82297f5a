"""All checks, by name. Each takes a :class:`Case` and raises AssertionError."""

import itertools
import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unrolled.core import tree
from unrolled.core.errors import UsageError
from unrolled.predict import ADAPTERS, KeptState, Predictor, PredictorConfig, StateForm, adapt

from .build import BATCH, IDS, TIME, Case, copied, counts, parameters, reader, registered, source, tolerance

__all__ = ["CHECKS"]


def close(found: Tensor, wanted: Tensor, what: str, within: float) -> None:
    assert found.shape == wanted.shape, f"{what}: shapes {tuple(found.shape)} and {tuple(wanted.shape)}"
    apart = float((found - wanted).abs().max())
    assert apart <= within * max(1.0, float(wanted.abs().max())), f"{what}: {apart:g} apart"


def equal(found: Any, wanted: Any, what: str) -> None:
    pairs = zip(tree.leaves(found), tree.leaves(wanted), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs), what


def _resets() -> Tensor:
    reset = torch.zeros(BATCH, TIME, dtype=torch.bool)
    reset[0, 4] = reset[1, 0] = reset[1, 7] = reset[2, 7] = reset[2, 8] = True
    return reset


def _steps(predictor: Predictor, ids: Tensor, reset: Tensor | None) -> tuple[Tensor, Any]:
    """Nats (batch, time) by predict and observe alone, and the state after them."""
    state, nll = predictor.begin(len(ids)), []
    for t in range(ids.shape[1]):
        if reset is not None and bool(reset[:, t].any()):
            state = predictor.restarted(state, reset[:, t])
        nll.append(-predictor.predict(state).log_prob.gather(1, ids[:, t : t + 1]))
        state = predictor.observe(state, ids[:, t])
    return torch.cat(nll, 1), state


def _windows_equal_steps(make: Callable[[], Predictor]) -> None:
    for reset in (None, _resets()):
        stepped = make()
        within = tolerance(stepped)
        wanted, last = _steps(stepped, IDS, reset)
        after = stepped.predict(last).log_prob
        for borders in ((0, TIME), (0, 1, 3, 8, TIME)):
            predictor = make()
            state, parts = predictor.begin(BATCH), []
            for low, high in itertools.pairwise(borders):
                scores = predictor.window(state, IDS[:, low:high], None if reset is None else reset[:, low:high])
                state = scores.state
                parts.append(scores.nll)
            close(torch.cat(parts, 1), wanted, f"nats of windows at {borders}", within)
            close(predictor.predict(state).log_prob, after, "the prediction after them", within)


def check_window_equals_steps(case: Case) -> None:
    """A window of any length, with resets anywhere in it, gives what single steps give."""
    _windows_equal_steps(case)


def check_distributions_and_consume(case: Case) -> None:
    """Whole distributions have the nats of a window, and text that is only read leaves the state of text scored."""
    first, second, third = case(), case(), case()
    reset = _resets()
    log_prob, last = first.distributions(first.begin(BATCH), IDS, reset)
    scores = second.window(second.begin(BATCH), IDS, reset)
    close(-log_prob.gather(2, IDS.unsqueeze(2)).squeeze(2), scores.nll, "nats of distributions", tolerance(first))
    close(first.predict(last).log_prob, second.predict(scores.state).log_prob, "the state after", tolerance(first))
    fresh, plain = case(), third.consume(third.begin(BATCH), IDS)
    scored = fresh.window(fresh.begin(BATCH), IDS).state
    close(third.predict(plain).log_prob, fresh.predict(scored).log_prob, "the state after reading", tolerance(first))
    equal(third.consume(plain, IDS[:, :0]), plain, "no text changes nothing")


def check_probabilities(case: Case) -> None:
    """Every prediction is a distribution over the vocabulary."""
    predictor = case()
    state = predictor.begin(BATCH)
    for t in range(TIME):
        log_prob = predictor.predict(state).log_prob
        assert log_prob.shape == (BATCH, predictor.vocab_size)
        close(log_prob.exp().sum(1), torch.ones(BATCH).to(log_prob), f"the sum of probabilities, step {t}", 1e-5)
        state = predictor.observe(state, IDS[:, t])


def check_rows_are_independent(case: Case) -> None:
    """A row reads in a batch what it reads alone, unless the predictor says that rows share something."""
    predictor = case()
    if not predictor.independent:
        return
    together = predictor.window(predictor.begin(BATCH), IDS, _resets()).nll
    for row in range(BATCH):
        alone = predictor.window(predictor.begin(1), IDS[row : row + 1], _resets()[row : row + 1]).nll
        close(together[row : row + 1], alone, f"row {row}", tolerance(predictor))
    state, order = predictor.consume(predictor.begin(BATCH), IDS), torch.tensor([2, 0, 0, 1])
    picked = predictor.predict(tree.select_rows(state, order)).log_prob
    close(picked, predictor.predict(state).log_prob[order], "rows that are chosen", tolerance(predictor))


def check_state_is_a_value(case: Case) -> None:
    """No method changes the state that it is given, and an old state can be gone on from."""
    predictor = case()
    state = predictor.consume(predictor.begin(BATCH), IDS[:, :2])
    kept = copied(state)
    before = predictor.predict(state).log_prob.clone()
    predictor.observe(state, IDS[:, 2])
    predictor.window(state, IDS[:, 2:], _resets()[:, 2:])
    predictor.distributions(state, IDS[:, 2:5])
    predictor.restarted(state, torch.tensor([True, False, True]))
    equal(state, kept, "the state that was given has changed")
    predictor.restore()
    close(predictor.predict(state).log_prob, before, "the prediction from an old state", tolerance(predictor))


def check_observe_is_pure(case: Case) -> None:
    """Predicting, once or often, leaves no trace; observing the same token twice gives the same state twice."""
    predictor, silent = case(), case()
    state, quiet = predictor.begin(BATCH), silent.begin(BATCH)
    for t in range(TIME):
        once = predictor.predict(state).log_prob
        close(predictor.predict(state).log_prob, once, "a second prediction", 0.0)
        state, quiet = predictor.observe(state, IDS[:, t]), silent.observe(quiet, IDS[:, t])
    close(predictor.predict(state).log_prob, silent.predict(quiet).log_prob, "after predictions", tolerance(predictor))
    fresh = case()
    begun = fresh.begin(BATCH)
    equal(fresh.observe(begun, IDS[:, 0]), fresh.observe(begun, IDS[:, 0]), "two states of one token")


def check_reset_begins_anew(case: Case) -> None:
    """Rows that restart predict as at the beginning, and the others as if nothing had happened."""
    predictor = case()
    state, rows = predictor.consume(predictor.begin(BATCH), IDS[:, :2]), torch.tensor([True, False, True])
    mixed = predictor.predict(predictor.restarted(state, rows)).log_prob
    close(mixed[~rows], predictor.predict(state).log_prob[~rows], "rows that go on", tolerance(predictor))
    if predictor.independent:  # else what rows share goes on
        close(mixed[rows], predictor.predict(predictor.begin(BATCH)).log_prob[rows], "rows begun", tolerance(predictor))


def check_restores(case: Case) -> None:
    """The model has its parameters again, bit by bit, after a text and after an error; a second text is read alike."""
    predictor = case()
    before = parameters(predictor)
    with predictor:
        first = predictor.window(predictor.begin(BATCH), IDS).nll
    equal(parameters(predictor), before, "parameters after a text")
    with predictor:
        close(predictor.window(predictor.begin(BATCH), IDS).nll, first, "a second text", 0.0)
    try:
        with predictor:
            predictor.window(predictor.begin(BATCH), IDS)
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    equal(parameters(predictor), before, "parameters after an interruption")
    assert not any(module._forward_hooks for module in predictor.model.modules()), "hooks are left on the model"


def check_record(case: Case) -> None:
    """The options in records are plain, say all that changes the figure, and make the same predictor again."""
    predictor = case()
    options = json.loads(json.dumps(predictor.options, allow_nan=False))
    assert options != {}
    with registered(case.adapter):
        config = PredictorConfig.parse(options)
        assert [one.name for one in config.adapters] == [case.adapter.name()]
        again = adapt(reader(next(predictor.model.parameters()).dtype, [case.adapter.name()]), config, source)
    assert (again.kind, json.loads(json.dumps(again.options))) == (predictor.kind, options)
    wanted, found = (one.window(one.begin(BATCH), IDS).nll for one in (predictor, again))
    close(found, wanted, "the figure of the predictor made again", 0.0)


def _refusal(make: Callable[[], Any]) -> str | None:
    """The sentence of a refusal; None where there is none."""
    try:
        make()
    except UsageError as error:
        return str(error)
    return None


def check_pairs(case: Case) -> None:
    """Beside any other adapter it works, or the settings are refused before a model is touched, in one sentence."""
    name = case.adapter.name()
    with registered(case.adapter):
        for other in ADAPTERS:
            if other == name:
                continue
            example = ADAPTERS[other].EXAMPLES[0]
            said = _refusal(lambda example=example: PredictorConfig(adapters=(case.config, example)))
            if said is not None:
                assert name in said
                assert other in said
                assert ". " not in said, "one sentence"
                continue
            config = PredictorConfig(adapters=(case.config, example))
            dtype = torch.float32 if "quantize" in (name, other) else torch.float64
            both = (name, other)
            said = _refusal(lambda config=config, dtype=dtype, both=both: adapt(reader(dtype, both), config, source))
            if said is not None:
                assert "cannot be prepared" in said, f"refused too late: {said}"
                continue
            _windows_equal_steps(lambda used=config, dtype=dtype, both=both: adapt(reader(dtype, both), used, source))


def check_count_models(case: Case) -> None:
    """A model without weights is adapted, or refused in a sentence that names what to leave out."""
    name = case.adapter.name()
    with registered(case.adapter):
        config = PredictorConfig(adapters=(case.config,))
        said = _refusal(lambda: adapt(counts(), config, source))
        if said is not None:
            assert f"leave out {name}" in said
            return
        predictor = adapt(counts(), config, source)
    state = predictor.consume(predictor.begin(BATCH), IDS)
    sums = predictor.predict(state).log_prob.exp().sum(1)
    close(sums, torch.ones_like(sums), "the sum of probabilities", 1e-6)


def check_state_travels(case: Case) -> None:
    """A row's state in bytes is gone on from by another predictor of the same settings, and by a twin, as by itself."""
    predictor = case()
    if not predictor.independent or predictor.lockstep:
        return  # a row is not all that such a text goes on from
    state = predictor.consume(predictor.begin(BATCH), IDS)
    form = StateForm("m@0", predictor)
    tree_of_row = predictor.shared_form(tree.select_rows(state, torch.tensor([1])))
    kept = form.unpack(form.pack(KeptState("m@0", tree_of_row, TIME, int(IDS[1, -1]))))
    for other in (case(), predictor.twin()):
        if other is None:
            continue
        here, there = state, other.own_form(kept.tree)
        for t in range(3):
            wanted, found = predictor.predict(here).log_prob[1:2], other.predict(there).log_prob
            close(found, wanted, f"{t} tokens after the state travelled", tolerance(predictor))
            here, there = predictor.observe(here, IDS[:, t]), other.observe(there, IDS[1:2, t])


def check_what_it_says_of_itself(case: Case) -> None:
    """Its predictions have hidden states where it says so, and its neutral options are no part of a configuration."""
    predictor = case()
    hidden = predictor.predict(predictor.begin(BATCH)).hidden
    assert (hidden is not None) == case.adapter.gives_hidden == predictor.gives_hidden
    assert type(case.config) is case.adapter.Config
    if case.adapter.neutral is not None:
        with registered(case.adapter):
            assert PredictorConfig(adapters=(case.adapter.neutral,)).adapters == ()


CHECKS: dict[str, Callable[[Case], None]] = {
    name.removeprefix("check_"): value for name, value in list(vars().items()) if name.startswith("check_")
}
