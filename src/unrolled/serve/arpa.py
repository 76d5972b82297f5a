"""Count models in the ARPA format."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unrolled.core.errors import UsageError
from unrolled.core.files import ready_output
from unrolled.counts import SkipModel, write_arpa
from unrolled.runs import Run
from unrolled.serve.export import Exported
from unrolled.task import ClosedTask
from unrolled.tokenizer.arpa import arpa_words

__all__ = ["export_arpa"]


def export_arpa(run: Run, out: Path, options: Mapping[str, Any]) -> Exported:
    """Write a count model's tables; gzipped where the name ends in ``.gz``. There are no options.

    Raises:
        UsageError: a run of another task, or a name that does not end in .arpa or .arpa.gz.
    """
    if not issubclass(run.task_class, ClosedTask):
        noun = run.task_class.noun
        raise UsageError(f"{run.path} is {noun}, and only count models can be exported as ARPA; see --to for others.")
    if isinstance(run.trained, SkipModel):
        raise UsageError(f"{run.path} has skip n-grams, which ARPA files cannot hold; train it without counts.skips.")
    if not out.name.removesuffix(".gz").endswith(".arpa"):
        raise UsageError(f"{out}: a count model is written as .arpa or .arpa.gz; name the file so.")
    ready_output(out)
    write_arpa(run.ngrams, arpa_words(run.tokenizer), out)
    order, words = run.ngrams.config.order, run.tokenizer.vocab_size
    record = {"file": str(out), "order": order, "vocabulary": words}
    return Exported(record, f"{order}-gram model of {words:,} words written to {out}")
