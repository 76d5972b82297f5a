"""``unrolled export``."""

from pathlib import Path
from typing import Annotated

import typer

from unrolled.cli.common import JsonOption, app, emit, write


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run directory of a count model.")],
    file: Annotated[Path, typer.Argument(help="What to write: a name that ends in .arpa or .arpa.gz.")],
    json: JsonOption = False,
) -> None:
    """Write a model in a format that other tools read.

    Count models: the ARPA format of SRILM and KenLM.

    Example: unrolled export runs/kn5-ptb kn5.arpa.gz
    """
    from unrolled.core.errors import UsageError
    from unrolled.core.files import ready_output
    from unrolled.counts import write_arpa
    from unrolled.runs import Run
    from unrolled.task import ClosedTask
    from unrolled.tokenizer.arpa import arpa_words

    opened = Run(run, "cpu")
    if not issubclass(opened.task_class, ClosedTask):
        noun = opened.task_class.noun
        raise UsageError(f"{run} is {noun}, and only count models can be exported (as .arpa or .arpa.gz).")
    if not file.name.removesuffix(".gz").endswith(".arpa"):
        raise UsageError(f"{file}: a count model is written as .arpa or .arpa.gz; name the file so.")
    ready_output(file)
    write_arpa(opened.ngrams, arpa_words(opened.tokenizer), file)
    if json:
        emit({"file": str(file), "order": opened.ngrams.config.order, "vocabulary": opened.tokenizer.vocab_size})
        return
    write(f"{opened.ngrams.config.order}-gram model of {opened.tokenizer.vocab_size:,} words written to {file}")
