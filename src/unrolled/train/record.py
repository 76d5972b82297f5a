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

    The record is written at each save; ``best_step`` is the step of the weights in ``model.safetensors``.

    Args:
        exact: the score of the validation split in one column, once it is known.
    """
    parts, progress = trainer.parts, trainer.progress
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
        "checksums": progress.checksums,
        "bytes": {name: parts.corpus.size(name) for name in parts.splits},
        "tokenizer": parts.tokenizer.fingerprint(),
        "symbols": parts.tokenizer.symbols_checksum(),
        "vocabulary": parts.tokenizer.vocab_size,
        "parameters": trainer.model.num_params(),
        "flops_per_token": trainer.model.flops_per_token(),
        "phase": progress.phase + 1,
        "phase_step": progress.phase_step,
        "phase_steps": progress.phase_steps,
        "plans": progress.plans,
        "steps": progress.step,
        "tokens": progress.tokens,
        "epochs": progress.tokens / parts.stream.tokens_per_epoch(),
        "wall_seconds": trainer.clock.wall(),
        "cpu_seconds": trainer.clock.cpu(),
        "best_step": progress.best_step,
        "averaging_began": progress.averaging_began,
        "valid": progress.valid,
        "valid_exact": None if exact is None else exact.to_json(),
    }
    write_json(trainer.out / RECORD, record)
    return record
