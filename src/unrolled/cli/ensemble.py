"""``unrolled ensemble``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unrolled.cli.common import JsonOption, app, emit, table, write

if TYPE_CHECKING:
    from unrolled.evaluate import Difference


@app.command()
def ensemble(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders of per-token files, valid/NAME.tsv and test/NAME.tsv in each.")
    ],
    json: JsonOption = False,
) -> None:
    """Mix models from their per-token files: uniform weights, and weights fitted on validation text.

    Example: unrolled ensemble models/ --json
    """
    from unrolled.evaluate import fit_ensemble

    found = fit_ensemble(folders)
    last = list(found.tokens)[-1]
    verdict = found.against_best.verdict("the ensemble", found.best)
    if json:
        figures = {
            "members": {s: {n: f._asdict() for n, f in each.items()} for s, each in found.members.items()},
            "uniform": {s: f._asdict() for s, f in found.uniform.items()},
            "fitted": {s: f._asdict() for s, f in found.fitted.items()},
        }
        against = _difference_json(found.against_best, found.best, last)
        emit({"kind": "ensemble", "tokens": found.tokens, "weights": found.weights, **figures, "against": against})
        return

    def row(name: str, figures: dict[str, Any], weight: str) -> list[str]:
        cells = [f"{f.perplexity:.2f}" for f in figures.values()]
        shown = figures[last].interval
        return [name, *cells, "" if shown is None else f"{shown[0]:.2f} to {shown[1]:.2f}", weight]

    rows = []
    for name in found.members[last]:
        weight = "" if found.weights is None else f"{found.weights[name]:.4f}"
        rows.append(row(name, {split: each[name] for split, each in found.members.items()}, weight))
    rows.append(row("uniform weights", found.uniform, ""))
    if found.fitted:
        rows.append(row("weights fitted on valid", found.fitted, ""))
    table(["perplexity", *found.tokens, f"95 % interval, {last}", "weight"], rows)
    write(f"On {last}, {verdict}")


def _difference_json(difference: "Difference", best: str, split: str) -> dict[str, Any]:
    return {"model": best, "split": split, **difference._asdict()}
