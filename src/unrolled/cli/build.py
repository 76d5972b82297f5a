"""``unrolled build``."""

from typing import Annotated

import typer

from unrolled.cli.common import JsonOption, app, emit, write


@app.command()
def build(
    again: Annotated[bool, typer.Option("--again", help="Compile even if it has been.")] = False,
    optional: Annotated[bool, typer.Option("--optional", help="Without a compiler, say so and succeed.")] = False,
    json: JsonOption = False,
) -> None:
    """Compile the native library, which makes training on a CPU faster; needs g++ or clang++, takes a minute or two.

    It goes into the cache folder, one for each version of its sources, where only you may write, with a checksum beside
    it. A library that another user can have written, or that is damaged, is not loaded but made anew by this command.
    Without it everything works, slower.

    Example: unrolled build
    """
    from unrolled.core.errors import UsageError
    from unrolled.kernels.cpu import build as build_library
    from unrolled.kernels.cpu import find_compiler, forget_library, instruction_sets, why_no_library

    if optional and find_compiler() is None:
        note = "no C++ compiler found: the native library is not built, and everything works without it, slower"
        emit({"library": None, "note": note}) if json else write(note)
        return
    made = build_library(again, lambda what: typer.echo(what, err=True))
    forget_library()
    if (reason := why_no_library()) is not None:
        raise UsageError(f"{reason}.")
    sets = instruction_sets()
    if json:
        emit({"library": str(made.path), "compiler": made.compiler, "instruction_sets": sets})
    else:
        how = f"compiled by {made.compiler}" if made.compiler else "there already; --again compiles it anew"
        write(f"{made.path} ({how})\nused here: {sets[0]}")
