"""The record: everything that was found, as plain JSON values."""

import math
from typing import Any

from unrolled.compare.answer import Analysis
from unrolled.compare.results import Found, RunFound, SystemFound
from unrolled.compare.sentences import sentence
from unrolled.compare.verdicts import ContrastFound

__all__ = ["KIND", "VERSION", "comparison_record"]

KIND, VERSION = "unrolled comparison", 1


def comparison_record(found: Found, analysis: Analysis) -> dict[str, Any]:
    """What record.json holds. Losses of systems are in nats; each contrast names its unit."""
    return {
        "kind": KIND,
        "version": VERSION,
        "title": found.title,
        "plan_sha256": found.sha256,
        "complete": analysis.complete,
        "missing": analysis.missing,
        "seeds": list(found.wanted),
        "systems": [_system(found, system) for system in found.systems],
        "contrasts": [_contrast(row) for row in analysis.contrasts],
        "not_planned": [_contrast(row) for row in analysis.not_planned],
        "answer": analysis.answer,
        "matched": list(found.matched),
        "free": list(found.free),
        "described": list(found.described),
        "amendments": [dict(one) for one in found.amendments],
        "test_reasons": list(found.test_reasons),
        "code": dict(found.code),
    }


def _system(found: Found, system: SystemFound) -> dict[str, Any]:
    def run(one: RunFound) -> dict[str, Any]:
        return {
            "seed": one.seed,
            "status": one.status,
            "value": one.value,
            "nats_per_token": one.nats_per_token,
            "bits_per_character": one.bits_per_character,
            "train_nats": one.train_nats,
            "test_nats_per_token": found.test.get((system.name, system.corpus, one.seed)),
            "figures": dict(one.figures),
            "tokens": one.tokens,
            "cpu_seconds": one.cpu_seconds,
            "wall_seconds": one.wall_seconds,
            "machine": one.machine,
            "backends": dict(one.backends),
        }

    return {
        "name": system.name,
        "corpus": system.corpus,
        "parameters": system.parameters,
        "width": system.width,
        "flops_per_token": system.flops_per_token,
        "tokens": system.tokens,
        "chosen": system.chosen,
        "at_edge": system.at_edge,
        "search": [
            {
                "value": one.value,
                "nats": one.nats_per_token if math.isfinite(one.nats_per_token) else None,
                "diverged": not math.isfinite(one.nats_per_token),
                "seeds": one.seeds,
                "edge": one.edge,
            }
            for one in system.search
        ],
        "runs": [run(one) for one in system.runs],
        "set_aside": [{**run(one), "test_nats_per_token": None} for one in system.set_aside],
    }


def _contrast(row: ContrastFound) -> dict[str, Any]:
    one = row.found
    numbers: dict[str, Any] = {}
    if one is not None:
        t, interval = one.t, one.interval()
        numbers = {
            "difference": one.difference,
            "interval": None if interval is None else list(interval),
            "covers": one.covers,
            "t": t if t is not None and math.isfinite(t) else None,
            "df": one.freedom,
            "p": one.p,
            "seeds_better": one.seeds_better,
            "seeds": list(one.counts),
            "seeds_common": one.common,
            "sd_seeds": list(one.sd),
            "correlation": one.correlation,
            "variance": {"seeds": one.v_seed, "blocks": one.v_block, "both": one.v_rest},
        }
    return {
        "name": row.name,
        "corpus": row.corpus,
        "corpora": list(row.corpora),
        "first": row.first,
        "than": row.than,
        "figure": row.figure,
        "split": row.split,
        "unit": row.unit,
        "registered": row.registered,
        "expected": row.expected,
        **numbers,
        "bootstrap": None if row.bootstrap is None else list(row.bootstrap),
        "p_holm": row.p_holm,
        "verdict": row.verdict,
        "smallest": row.smallest,
        "power_at_smallest": row.power,
        "seeds_to_decide": row.seeds_to_decide,
        "marks": list(row.marks),
        "sentence": sentence(row),
    }
