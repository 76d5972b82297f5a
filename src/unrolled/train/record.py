"""The run record: what computed the run, on what, for how long, and what came out."""

from typing import TYPE_CHECKING, Any

from unrolled.core.files import write_json
from unrolled.core.record import environment
from unrolled.kernels import dispatch
from unrolled.runs import RECORD

if TYPE_CHECKING:
    from unrolled.evaluate import EvalResult
    from unrolled.train.loop import Trainer

__all__ = ["write_record"]


def write_record(trainer: "Trainer", exact: "EvalResult | None" = None) -> dict[str, Any]:
    """Write ``record.json`` and return it.

    Args:
        exact: the exact score of the validation split, once it is known.
    """
    parts = trainer.parts
    record = {
        "kind": "unrolled record",
        "version": 1,
        "title": trainer.config.title,
        "status": trainer.status,
        "environment": environment(),
        "device": str(trainer.model.device),
        "backends": dispatch.choices(),
        "precision": trainer.config.model.compute.precision,
        "corpus": parts.corpus.name,
        "checksums": {split: tokens.checksum for split, tokens in parts.splits.items()},
        "tokenizer": parts.tokenizer.fingerprint(),
        "vocabulary": parts.tokenizer.vocab_size,
        "parameters": trainer.model.num_params(),
        "flops_per_token": trainer.model.flops_per_token(),
        "steps": trainer.step,
        "tokens": trainer.tokens,
        "planned_steps": trainer.phase_steps,
        "wall_seconds": trainer.clock.wall(),
        "cpu_seconds": trainer.clock.cpu(),
        "best_step": trainer.best_step,
        "valid": trainer.valid,
        "valid_exact": None if exact is None else exact.to_json(),
    }
    write_json(trainer.out / RECORD, record)
    return record
