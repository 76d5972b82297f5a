"""From a comparison's folder to what it has found."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from unrolled.compare.jobs import Board
from unrolled.compare.lock import Locked
from unrolled.compare.results import CurvePoint, Found, RunFound, SearchFound, SystemFound
from unrolled.compare.test_split import read_test
from unrolled.evaluate.bootstrap import BLOCK

__all__ = ["found"]

_UNITS = {"tokens": "training tokens", "steps": "steps", "flops": "operations", "cpu_seconds": "CPU seconds"}


def found(board: Board) -> Found:
    """Everything that a comparison has found so far."""
    lock, plan = board.lock, board.lock.plan
    test = read_test(board.folder)
    # of models that are final still: a later divergence may have put others in their place
    final = {job.id for job in board.known()}
    scores = {
        (s["system"], s["corpus"], s["seed"]): s["nats_per_token"]
        for s in (() if test is None else test["scores"])
        if s["id"] in final
    }
    texts = {one.corpus: one.text for one in lock.systems}
    return Found(
        title=plan.title,
        sha256=lock.sha256,
        wanted=plan.seeds,
        systems=tuple(_system(board, locked) for locked in lock.systems),
        contrasts=plan.contrast,
        rules=plan.rule,
        search_setting=None if plan.search is None else plan.search.setting,
        block=dict.fromkeys(texts, BLOCK),
        split_tokens={corpus: text.validation_tokens for corpus, text in texts.items()},
        characters={corpus: text.characters for corpus, text in texts.items()},
        units={corpus: text.unit for corpus, text in texts.items() if text.unit},
        matched=_matched(board),
        free=_free(board),
        described=_described(board),
        amendments=lock.amendments,
        code={**lock.code, "registered_utc": lock.registered, "settings": list(lock.settings)},
        test=scores,
        test_reasons=() if test is None else tuple(reason["why"] for reason in test["reasons"]),
    )


def _matched(board: Board) -> tuple[str, ...]:
    plan, match = board.lock.plan, board.lock.plan.match
    said = [
        "recipe " + plan.recipe,
        "text, tokenizer and order of the windows",
        f"CPU threads of a run: {plan.threads}",
    ]
    if match.parameters is not None:
        said.append(f"{match.parameters:,} parameters, less at most {match.tolerance:.1%}")
    if match.state is not None:
        said.append(f"numbers carried from step to step, at most {match.state:,}")
    amount = f"{match.budget.amount:,.0f} {_UNITS[match.budget.kind]} a run"
    if match.reference is not None:
        amount = f"the CPU seconds that {match.reference} takes for {amount}, by one timing of all systems"
    elif match.budget.kind == "cpu_seconds":
        amount += ", turned into tokens by one timing of all systems"
    said.append(amount)
    if plan.search is not None:
        budget = plan.search.budget
        said.append(
            f"a search of {plan.search.setting} for each system on validation text: {len(plan.search.values)} values, "
            f"each {budget.amount:,.0f} {_UNITS[budget.kind]} and seeds {', '.join(map(str, plan.search.seeds))}"
        )
    return tuple(said)


def _free(board: Board) -> tuple[str, ...]:
    free = board.lock.plan.match.free
    return (f"systems may differ in {', '.join(free)}.",) if free else ()


def _described(board: Board) -> tuple[str, ...]:
    """What each system sets; the title of a recipe of its own says what it cost to find, where it was searched."""
    said, titles = [], {one.system: one.config.get("title") for one in board.lock.systems}
    for system in board.lock.plan.system:
        parts = [*system.set, *([f"recipe {system.recipe} ({titles[system.name]})"] if system.recipe else [])]
        parts += [f"{system.fit} fitted to the parameters"] if system.fit else []
        parts += [f"values searched: {', '.join(map(str, system.values))}"] if system.values else []
        said.append(f"{system.name}: {', '.join(parts) or 'the recipe as it is'}")
    return tuple(said)


def _system(board: Board, locked: Locked) -> SystemFound:
    choice = board.choice(locked)
    tried: tuple[SearchFound, ...] = ()
    if (search := board.lock.plan.search) is not None:
        done = board.tried(locked)[0] if choice is None else choice.tried
        tried = tuple(SearchFound(one.value, one.nats_per_token, len(search.seeds), one.added) for one in done)
    ready = choice is not None and choice.refused is None
    return SystemFound(
        name=locked.system,
        corpus=locked.corpus,
        parameters=locked.parameters,
        width=locked.width,
        state=locked.state,
        flops_per_token=locked.flops_per_token,
        tokens=board.tokens(locked) or 0,
        chosen=choice.value if choice is not None else None,
        at_edge=choice is not None and choice.at_edge,
        search=tried,
        runs=_runs(board, locked, choice.value) if ready and choice is not None else (),
        set_aside=tuple(_run(result) for job in board.set_aside(locked) if (result := board.result(job)) is not None),
    )


def _runs(board: Board, locked: Locked, value: Any) -> tuple[RunFound, ...]:
    results = (board.result(job) for job in board.run_jobs(locked, value))
    return tuple(_run(result) for result in results if result is not None)


def _run(result: Mapping[str, Any]) -> RunFound:
    return RunFound(
        seed=result["seed"],
        status=result["status"],
        value=result["value"],
        nats_per_token=result.get("nats_per_token"),
        bits_per_character=result.get("bits_per_character"),
        train_nats=result.get("train_nats"),
        tokens=result["tokens"],
        cpu_seconds=result["cpu_seconds"],
        wall_seconds=result["wall_seconds"],
        machine=result["machine"],
        backends=dict(result["backends"]),
        blocks=np.array(result.get("blocks", ())),
        curve=tuple(CurvePoint(**point) for point in result["curve"]),
        figures=dict(result.get("figures", {})),
    )
