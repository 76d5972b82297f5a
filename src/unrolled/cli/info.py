"""``unrolled cells`` and ``unrolled info``."""

from typing import Annotated, Any

import typer

from unrolled.cli.common import JsonOption, app, emit, table, write


@app.command()
def cells(
    width: Annotated[int, typer.Option(min=1, help="Width of input and cell for the counts.")] = 256,
    json: JsonOption = False,
) -> None:
    """List the cells: equation, widths, parameters at the largest width up to --width, state per sequence, backends.

    Example: unrolled cells --width 512
    """
    from unrolled.cells import CELLS

    rows = []
    for name in CELLS:
        cls = CELLS[name]
        config = cls.Config()
        multiple = cls.width_multiple(config)
        size = max(multiple, width - width % multiple)
        rows.append(
            {
                "name": name,
                "equation": cls.EQUATION,
                "summary": (cls.__doc__ or "").strip().split("\n")[0],
                "options": {key: field.description for key, field in cls.Config.model_fields.items() if key != "name"},
                "causal_from": cls.causal_from(config),
                "width_multiple": multiple,
                "width": size,
                "parameters": cls.num_params(config, size, size),
                "flops_per_token": cls.flops_per_token(config, size, size),
                "state": cls(size, size, config).state_size(),
                "backends": cls(multiple, multiple, config).backends(),
            }
        )
    if json:
        emit(rows)
        return
    table(
        ["cell", "equation", "widths", f"parameters at {width}", "state", "backends"],
        [
            (
                r["name"],
                r["equation"] + (f" (causal after the first {r['causal_from']} tokens)" if r["causal_from"] else ""),
                "any" if r["width_multiple"] == 1 else f"multiples of {r['width_multiple']}",
                f"{r['parameters']:,}",
                f"{r['state']:,}",
                ", ".join(r["backends"]),
            )
            for r in rows
        ],
    )


@app.command()
def info(
    model: Annotated[
        str | None, typer.Argument(help="hf:FOLDER or hf:OWNER/NAME: what a folder of transformers holds.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Say what this installation is and where it looks for things, or what a folder of transformers holds.

    Example: unrolled info --json

    Example: unrolled info hf:exported
    """
    result = _installation() if model is None else _model(model)
    if json:
        emit(result)
        return
    for key, value in result.items():
        if isinstance(value, dict):
            write(f"{key}:")
            for name, title in value.items():
                write(f"  {name}: {title}")
        else:
            write(f"{key.replace('_', ' ')}: {', '.join(value) if isinstance(value, list) else value}")


def _model(source: str) -> dict[str, Any]:
    """What is known of a folder without its weights."""
    from unrolled.core.errors import UsageError
    from unrolled.model.lm import count_params
    from unrolled.serve.hf.read import opened_folder

    if not source.startswith("hf:"):
        raise UsageError(f"{source} names no folder of transformers; write hf:{source}.")
    found = opened_folder(source.removeprefix("hf:"))
    return {
        "folder": str(found.folder),
        "model_type": found.kind,
        "layout": found.layout or "unrolled",
        "cells": list(dict.fromkeys(cell.name for cell in found.config.layer_cells())),
        "layers": found.config.layers,
        "width": found.config.layer_widths()[-1],
        "vocabulary": found.symbols,
        "parameters": count_params(found.config, found.symbols),
        "tied": found.config.embedding.tied,
    }


def _installation() -> dict[str, Any]:
    """Versions, what is fast here, folders, names."""
    import os

    import torch

    from unrolled.cells import CELLS
    from unrolled.core.places import cache_folder
    from unrolled.core.record import environment
    from unrolled.kernels.cpu import instruction_sets, why_no_library
    from unrolled.kernels.linear.bf16 import fast_products
    from unrolled.model.heads import HEADS
    from unrolled.optim import OPTIMIZERS
    from unrolled.tokenizer import TOKENIZERS
    from unrolled.train.recipes import list_recipes

    fast = torch.cuda.is_available() or fast_products()
    return {
        **environment(),
        "bf16_products": "fast" if fast else "emulated here, no faster than float32",
        "native_library": why_no_library() or f"built, uses {instruction_sets()[0]}",
        "data": os.environ.get("UNROLLED_DATA"),
        "cache": str(cache_folder()),
        "cells": list(CELLS),
        "heads": list(HEADS),
        "optimizers": list(OPTIMIZERS),
        "tokenizers": list(TOKENIZERS),
        "recipes": list_recipes(),
    }
