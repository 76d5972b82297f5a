"""What the verbs of ``unrolled compare`` share."""

from pathlib import Path
from typing import Annotated

import typer

from unrolled.cli.common import app

__all__ = ["FolderArgument", "PlanArgument", "SettingsOption", "verbs"]

verbs = typer.Typer(
    help="Compare systems fairly: a plan says what is held equal and what is asked; any number of workers run it; the "
    "report answers. See docs/comparing.md.",
    no_args_is_help=True,
)
app.add_typer(verbs, name="compare")

PlanArgument = Annotated[str, typer.Argument(help="A plan: a TOML file, or the name of a shipped one.")]
FolderArgument = Annotated[Path, typer.Argument(help="The folder of a registered plan.")]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting of the plan, such as match.budget.tokens=2000000; repeatable."),
]
