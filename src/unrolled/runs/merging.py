"""Runs with the same model and tokenizer, merged by their weights into a new run."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from unrolled.core import tree
from unrolled.core.errors import UsageError
from unrolled.core.files import atomic_folder, make_folder, sha256_file, write_json
from unrolled.core.record import environment
from unrolled.runs.names import CONFIG, MODEL, RECORD, TOKENIZER
from unrolled.runs.run import Run
from unrolled.tokenizer import save_tokenizer

__all__ = ["add_vectors", "check_alike", "read_weights", "write_merged"]

# of the base's record: what is true of the merged run too
_KEPT = (
    "kind", "version", "title", "task", "precision", "corpus", "bytes", "tokenizer", "symbols", "vocabulary",
    "parameters", "flops_per_token", "trainable_parameters", "checksums",
)  # fmt: skip


def add_vectors(base: Mapping[str, Tensor], others: Sequence[Mapping[str, Tensor]], factors: Sequence[float]) -> Any:
    """theta_0 + sum of a_i (theta_i - theta_0), in float64, then in the type of theta_0: time vectors (Nylund,
    Gururangan and Smith 2023), task vectors (Ilharco et al. 2023).

    Args:
        base: name -> tensor, theta_0. others: the same names and shapes, theta_i. factors: a_i, one each.
    Returns:
        name -> tensor; of integers that of the base.
    """
    merged, rest = {}, 1 - math.fsum(factors)
    for name, value in base.items():
        total = rest * value.double()  # not by differences, which would lose what is small beside the base
        for other, factor in zip(others, factors, strict=True):
            if factor:  # so that nothing added is the base to the bit, zeros with a sign too
                total = total + factor * other[name].double()
        merged[name] = total.to(value.dtype) if value.is_floating_point() else value
    return merged


def check_alike(base: Run, others: Sequence[Run]) -> None:
    """Raises UsageError unless all are neural language models with the same model settings and tokenizer."""
    _ = base.model
    wanted = base.config.model.model_dump(mode="json", exclude={"compute"})
    for run in others:
        _ = run.model
        own = run.config.model.model_dump(mode="json", exclude={"compute"})
        if odd := [name for name in wanted if own[name] != wanted[name]]:
            raise UsageError(
                f"{run.path} and {base.path} have other models (model.{odd[0]}); merge runs of one recipe, the others "
                "begun from the first with weights.file."
            )
        if run.tokenizer.symbols_checksum() != base.tokenizer.symbols_checksum():
            raise UsageError(
                f"{run.path} and {base.path} have other tokenizers, so that their ids mean other symbols; train the "
                "one with weights.tokenizer=true."
            )


def read_weights(run: Run) -> dict[str, Tensor]:
    """The weights of a run as they are in its file, on the CPU."""
    return tree.load_tensors(run.path / MODEL)


def write_merged(
    out: Path, base: Run, others: Sequence[Run], factors: Sequence[float], how: Mapping[str, Any] | None = None
) -> None:
    """Write the run of :func:`add_vectors`: the base's config and tokenizer, and a record that names what was merged.

    Args:
        out: a folder that is not there. how: what chose the factors, for the record.
    Raises:
        UsageError: the folder is there; the runs are not alike. UnrolledError: weights that are no numbers.
    """
    if out.exists():
        raise UsageError(f"{out} is there already; choose another folder.")
    check_alike(base, others)
    tensors = add_vectors(read_weights(base), [read_weights(run) for run in others], factors)
    tree.check_numbers(tensors, "the merged weights")
    merged = [
        {"run": str(run.path), "factor": factor, "weights": sha256_file(run.path / MODEL)}
        for run, factor in zip(others, factors, strict=True)
    ]
    record = {name: base.record[name] for name in _KEPT if name in base.record}
    begun = {"run": str(base.path), "weights": sha256_file(base.path / MODEL)}
    record |= {"status": "merged", "environment": environment(), "base": begun, "merged": merged, **(how or {})}
    make_folder(out.parent)
    with atomic_folder(out) as part:
        (part / CONFIG).write_bytes((base.path / CONFIG).read_bytes())
        save_tokenizer(base.tokenizer, part / TOKENIZER)
        tree.save_tensors(part / MODEL, tensors)
        write_json(part / RECORD, record)
