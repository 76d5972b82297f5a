"""Texts that are searched for, and texts that another model drafts, on the command line."""

import time
from typing import TYPE_CHECKING

from unrolled.cli.common import write
from unrolled.cli.writing import Writing, of_same_vocabulary

if TYPE_CHECKING:
    from unrolled.generate import BeamConfig, SpeculativeConfig
    from unrolled.runs import Run

__all__ = ["print_beams", "print_drafted", "print_search"]


def print_beams(writing: Writing, given: str | None, config: "BeamConfig") -> None:
    """Search by beams and print the texts with their scores. given: what they must come to."""
    from unrolled.generate import Condition, beam_search, fit_probe, parse_events

    events, condition = parse_events(given) if given else [], None
    with writing.opened() as predictor:
        begun = writing.begun(predictor)
        if events:
            tokenizer = writing.run.tokenizer
            probe = fit_probe(
                predictor, tokenizer, writing.text, writing.tokens, events, writing.sampler, writing.stop, begun
            )
            condition = Condition(events, probe, predictor, tokenizer.end_id)
        found = beam_search(
            predictor, writing.run.tokenizer, writing.text, writing.tokens, config, writing.sampler, writing.stop,
            begun, condition=condition,
        )  # fmt: skip
    if writing.json:
        writing.emit([one._asdict() for one in found])
        return
    for one in found:
        group = f"group {one.group + 1}, " if config.groups > 1 else ""
        write(
            f"--- {group}score {one.score:.6f}, {one.log_prob:.6f} nats, {len(one.tokens)} tokens, {one.finish_reason}"
        )
        write(f"{writing.text}{one.text}")


def print_search(writing: Writing, budget: int, length: float) -> None:
    """Search the tree of texts and print the best, and whether it is proved to be."""
    from unrolled.generate import tree_search

    with writing.opened() as predictor:
        found = tree_search(
            predictor, writing.run.tokenizer, writing.text, writing.tokens, budget, length, writing.sampler,
            writing.stop, writing.begun(predictor),
        )  # fmt: skip
    best, told = found.best, {"proved": found.proved, "expanded": found.expanded}
    if writing.json:
        writing.emit([{**best._asdict(), **told}])
        return
    proved = "no text has a higher score" if found.proved else "a better one may be left"
    write(
        f"--- score {best.score:.6f}, {best.log_prob:.6f} nats, {len(best.tokens)} tokens, {best.finish_reason}; "
        f"{proved}, after {found.expanded:,} distributions beyond the greedy text"
    )
    write(f"{writing.text}{best.text}")


def print_drafted(writing: Writing, draft: "Run", config: "SpeculativeConfig", samples: int) -> None:
    """Write texts that another run drafts, and print how many of its tokens were taken."""
    from unrolled.evaluate import open_predictor
    from unrolled.generate import speculate

    of_same_vocabulary(writing.run, draft, "--draft")
    rows, tokenizer = [], writing.run.tokenizer
    with writing.opened() as predictor, open_predictor(draft, stepwise=True) as drafting:
        for sample in range(samples):
            began = time.perf_counter()
            done = speculate(
                predictor, drafting, tokenizer, writing.text, writing.tokens, config, writing.sampler, writing.stop,
                sample,
            )  # fmt: skip
            told = {**done._asdict(), "seconds": time.perf_counter() - began}
            rows.append({**told, "tokens_per_call": len(done.tokens) / done.calls})
            if not writing.json:
                write(f"--- {sample + 1}" if samples > 1 else "", "\n" if samples > 1 else "")
                write(f"{writing.text}{done.text}")
    if writing.json:
        writing.emit(rows)
        return
    total = {name: sum(row[name] for row in rows) for name in ("calls", "drafted", "accepted", "seconds")}
    count = sum(len(row["tokens"]) for row in rows)
    write(
        f"--- {count / total['calls']:.2f} tokens for each call of the model, "
        f"{total['accepted'] / max(1, total['drafted']):.3f} of the drafted places taken, "
        f"{count / total['seconds']:.0f} tokens per second"
    )
