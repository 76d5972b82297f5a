"""``unrolled difference``."""

from pathlib import Path
from typing import Annotated

import typer

from unrolled.cli.common import JsonOption, app, emit, write


@app.command()
def difference(
    first: Annotated[Path, typer.Argument(help="A per-token file, as unrolled eval --per-token writes it.")],
    second: Annotated[Path, typer.Argument(help="Another, of the same tokens.")],
    json: JsonOption = False,
) -> None:
    """Say whether two models differ by more than chance on the same tokens, from their per-token files.

    Example: unrolled difference static.tsv.gz dynamic.tsv.gz
    """
    from unrolled.evaluate import compare_files

    found = compare_files(first, second)
    verdict = found.verdict(_name(first), _name(second))
    if json:
        emit({**found._asdict(), "verdict": verdict})
    else:
        write(verdict)


def _name(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".tsv").removesuffix(".txt")
