"""Sphinx configuration."""

import unrolled

project = "unrolled"
author = "The unrolled authors"
release = version = unrolled.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
html_theme = "furo"
html_title = "unrolled"
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True


def _cells_page() -> str:
    """The cells page, made from the table: docstrings, options, counts."""
    from unrolled.cells import CELLS

    parts = [
        "# Cells",
        "",
        "`unrolled cells` prints the counts for any width. I is the width of the input, N that of the cell.",
        "",
    ]
    for name in CELLS:
        cls = CELLS[name]
        config = cls.Config()
        parts += [f"## {name}", "", "```{eval-rst}", f".. autoclass:: {cls.__module__}.{cls.__name__}", "```", ""]
        parts += ["| option | default | |", "| --- | --- | --- |"]
        for key, field in cls.Config.model_fields.items():
            if key != "name":
                default = getattr(config, key)
                shown = getattr(default, "name", default)
                parts.append(f"| `{key}` | `{shown}` | {field.description} |")
        cell = cls(256, 256, config)
        parts += [
            "",
            f"At I = N = 256: {cls.num_params(config, 256, 256):,} parameters, {cell.state_size():,} numbers of state; "
            f"backends: {', '.join(cell.backends())}.",
            "",
        ]
    return "\n".join(parts)


def setup(app: object) -> None:
    """Write the generated pages before the sources are read."""
    import pathlib

    folder = pathlib.Path(__file__).parent / "generated"
    folder.mkdir(exist_ok=True)
    (folder / "cells.md").write_text(_cells_page(), encoding="utf-8")
