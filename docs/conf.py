"""Sphinx configuration."""

from typing import Any

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
    from unrolled.cells.taps import tapped

    parts = [
        "# Cells",
        "",
        "`unrolled cells` prints the counts for any width. I is the width of the input, N that of the cell.",
        "",
        *_names(),
    ]
    for name in CELLS:
        cls = CELLS[name]
        config = cls.Config()
        parts += [f"## {name}", "", "```{eval-rst}", f".. autoclass:: {cls.__module__}.{cls.__name__}", "```", ""]
        _options(cls, parts)
        multiple = cls.width_multiple(config)
        size = 256 - 256 % multiple
        cell = cls(size, size, config)
        widths = "Any width." if multiple == 1 else f"Widths: multiples of {multiple}."
        parts += [
            "",
            f"{widths} At I = N = {size}: {cls.num_params(config, size, size):,} parameters, "
            f"{cell.state_size():,} numbers of state; backends: {', '.join(cell.backends())}.",
            "",
            f"Internals by name: {', '.join(f'`{name}`' for name in tapped(cls, config))}.",
            "",
        ]
    return "\n".join(parts)


def _names() -> list[str]:
    """What the names of internals mean, as a table."""
    from unrolled.cells.taps import TAP_NAMES

    rows = [f"| `{name}` | {kind.role} | {kind.meaning} |" for name, kind in TAP_NAMES.items()]
    return [
        "## Internals",
        "",
        "`model.trace(tokens)` and `unrolled inspect` name an internal `layer.name`, layers from 0: `0.f` is the",
        "forget gate of the lowest layer. A name means the same in every cell. `*` stands for a number, a gate's",
        "letter, or before",
        "`_pre` a name. Every field of a cell's state is among them.",
        "",
        "| name | role | |",
        "| --- | --- | --- |",
        *rows,
        "",
    ]


def _options(cls: type, parts: list[str]) -> None:
    """The options of a part, as a table."""
    config = cls.Config()  # type: ignore[attr-defined]
    parts += ["| option | default | |", "| --- | --- | --- |"]
    for key, field in cls.Config.model_fields.items():  # type: ignore[attr-defined]
        if key != "name":
            default = getattr(config, key)
            about = str(field.description).replace("*", "\\*")  # no emphasis
            parts.append(f"| `{key}` | `{getattr(default, 'name', default)}` | {about} |")


def _described(table: Any, parts: list[str]) -> str:
    """A page of all rows of a table, behind its first lines: docstrings and options."""
    for name in table:
        cls = table[name]
        parts += [f"## {name}", "", "```{eval-rst}", f".. autoclass:: {cls.__module__}.{cls.__name__}", "```", ""]
        _options(cls, parts)
        parts.append("")
    return "\n".join(parts)


def _heads_page() -> str:
    """The heads page, made from the table: docstrings and options."""
    from unrolled.model.heads import HEADS

    parts = ["# Heads", "", "`--set model.head.name=NAME` chooses one; its options are `model.head.OPTION`.", ""]
    return _described(HEADS, parts)


def _encoders_page() -> str:
    """The encoders page, made from the table: docstrings and options."""
    from unrolled.cells import ENCODERS

    parts = [
        "# Encoders",
        "",
        "Layers that read whole rows, for [rows with a label](../classes.md). `--set model.cell.name=NAME` chooses",
        "one; its options are `model.cell.OPTION`.",
        "",
    ]
    return _described(ENCODERS, parts)


def _memories_page() -> str:
    """The memories page, made from the table: docstrings and options."""
    from unrolled.model.memory import MEMORIES

    parts = [
        "# Memories",
        "",
        "`--set model.memory.name=NAME` chooses one; its options are `model.memory.OPTION`. What all of them do:",
        "[memory over segments](../memory.md).",
        "",
    ]
    return _described(MEMORIES, parts)


def _trees_page() -> str:
    """The page of tree cells, made from the table: docstrings, options, counts."""
    from unrolled.cells import TREES

    parts = [
        "# Tree cells",
        "",
        "Cells of the task [classify_trees](../classes.md#trees): `--set task.cell.name=NAME` chooses one; its options",
        "are `task.cell.OPTION`. I is the width of a word's vector, N that of the states.",
        "",
    ]
    for name in TREES:
        cls = TREES[name]
        parts += [f"## {name}", "", "```{eval-rst}", f".. autoclass:: {cls.__module__}.{cls.__name__}", "```", ""]
        _options(cls, parts)
        arity = "any number of children" if cls.arity is None else f"{cls.arity} children at each inner node"
        count = cls.num_params(cls.Config(), 256, 256)
        parts += ["", f"Reads {arity}. At I = N = 256: {count:,} parameters.", ""]
    return "\n".join(parts)


def _operations_page() -> str:
    """The page of operations, made from the table."""
    from unrolled.kernels import OPERATIONS

    parts = [
        "# Operations",
        "",
        "What cells, stacks and heads compute through; `unrolled bench NAME` measures one. Backends fastest first; the",
        "reference defines the operation; the others are compared with it in float64, outputs and all gradients.",
        "",
        "| operation | what it computes | backends | what bounds it |",
        "| --- | --- | --- | --- |",
    ]
    for name in OPERATIONS:
        row = OPERATIONS[name]
        bound = "products" if row.bound == "products" else "bytes of memory"
        parts.append(f"| `{name}` | {row.summary} | {', '.join(row.backends)} | {bound} |")
    return "\n".join([*parts, ""])


def _adapters_page() -> str:
    """The adapters page, made from the table: docstrings and options, in the order in which they are applied."""
    from unrolled.predict import ADAPTERS

    parts = [
        "# Adapters",
        "",
        "What can be done to a model at test time, in the order in which it is done. `--predict NAME` switches one on,",
        "`--set NAME.OPTION=VALUE` sets an option; `--search NAME` chooses options on validation text, where said.",
        "",
    ]
    for name in sorted(ADAPTERS, key=lambda name: (ADAPTERS[name].place, name)):
        cls = ADAPTERS[name]
        parts += [f"## {name}", "", "```{eval-rst}", f".. autoclass:: {cls.__module__}.{cls.__name__}", "```", ""]
        _options(cls, parts)
        short = cls.Config.short
        parts += ["", *([f"`--predict {name}=VALUE` sets `{short}`."] if short else []), ""]
        if cls.search is not None:
            parts += [f"`--search {name}` reads {cls.search.tokens:,} tokens for each setting tried.", ""]
    return "\n".join(parts)


def _objectives_page() -> str:
    """The objectives page, made from the table: docstrings and options."""
    from unrolled.train.objectives import OBJECTIVES

    parts = [
        "# Objectives",
        "",
        "`[[train.extra]]` with a `name` and a `weight` adds one to the loss of a phase (see",
        "[adding a task](../adding-a-task.md)); cross-entropy, AR, TAR and L2 are `train.objective`.",
        "",
    ]
    for name in OBJECTIVES:
        cls = OBJECTIVES[name]
        parts += [f"## {name}", "", "```{eval-rst}", f".. autoclass:: {cls.__module__}.{cls.__name__}", "```", ""]
        _options(cls, parts)
        parts.append("")
    return "\n".join(parts)


def _problems_page() -> str:
    """The page of synthetic problems, made from the table: docstrings, options, sizes."""
    from unrolled.data.made import MADE

    parts = [
        "# Synthetic problems",
        "",
        "`unrolled train made --set task.problem.name=NAME` trains a run, `--set task.problem.OPTION=VALUE` sets an",
        "option; see [adding a problem](../adding-a-problem.md).",
        "",
    ]
    for name in MADE:
        cls = MADE[name]
        problem = cls(cls.Config())  # type: ignore[call-arg]  # a subclass has a name
        parts += [f"## {name}", "", "```{eval-rst}", f".. autoclass:: {cls.__module__}.{cls.__name__}", "```", ""]
        _options(cls, parts)
        sweeps = ", ".join(f"`{key}={','.join(map(str, values))}`" for key, values in problem.sweep().items())
        parts += [
            "",
            f"As it is: {len(problem.symbols)} symbols, rows of up to {problem.time()}, accuracy of guessing "
            f"{problem.chance():.3g}. Ranges: {', '.join(f'`{one}`' for one in problem.spans()) or 'none'}. "
            f"{'Answers are read, so that a model can run on its own. ' if problem.fed else ''}"
            f"To sweep: {sweeps or 'nothing'}.",
            "",
        ]
    return "\n".join(parts)


def _recipes_page() -> str:
    """The recipes page: what each recipe states, the published figures beside ours (docs/measured.toml)."""
    import pathlib
    import tomllib

    from unrolled.tasks.lm_size import facts_of, lm_of
    from unrolled.train.recipes import list_recipes, load_experiment

    measured = tomllib.loads((pathlib.Path(__file__).parent / "measured.toml").read_text(encoding="utf-8"))
    parts = [
        "# Recipes",
        "",
        "`unrolled train NAME` trains one; `--dry-run` prints its size and cost first. Each file in `recipes/` cites",
        "the source of its settings. Figures of different protocols (MC dropout, dynamic evaluation, the first token",
        "as context) are not comparable with each other. A dash: not stated in the sources at hand, or the vocabulary",
        "is that of the user's text.",
        "",
        "| recipe | corpus | parameters | system | published parameters | published valid / test | our figure |",
        "| --- | --- | ---: | --- | ---: | --- | --- |",
    ]

    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:g}"

    for name, title in list_recipes().items():
        config = load_experiment(name)
        sized = config.vocabulary is not None and config.task.name == "lm"
        size = f"{facts_of(config, lm_of(config.vocabulary or 0))['parameters']:,}" if sized else "-"
        ours = measured.get(name, "not run")
        for i, row in enumerate(config.published or (None,)):
            start = f"`{name}` | {config.corpus.label} | {size}" if i == 0 else " | | "
            figure = (
                f"{shown(row.valid)} / {shown(row.test)} {row.metric} ({row.protocol}; {row.source})" if row else "-"
            )
            system = row.system if row else title
            parts.append(
                f"| {start} | {system} | {row.parameters if row else '-'} | {figure} | {ours if i == 0 else ''} |"
            )
    return "\n".join([*parts, ""])


def setup(app: object) -> None:
    """Write the generated pages before the sources are read."""
    import pathlib

    folder = pathlib.Path(__file__).parent / "generated"
    folder.mkdir(exist_ok=True)
    (folder / "cells.md").write_text(_cells_page(), encoding="utf-8")
    (folder / "trees.md").write_text(_trees_page(), encoding="utf-8")
    (folder / "operations.md").write_text(_operations_page(), encoding="utf-8")
    (folder / "heads.md").write_text(_heads_page(), encoding="utf-8")
    (folder / "encoders.md").write_text(_encoders_page(), encoding="utf-8")
    (folder / "memories.md").write_text(_memories_page(), encoding="utf-8")
    (folder / "adapters.md").write_text(_adapters_page(), encoding="utf-8")
    (folder / "objectives.md").write_text(_objectives_page(), encoding="utf-8")
    (folder / "problems.md").write_text(_problems_page(), encoding="utf-8")
    (folder / "recipes.md").write_text(_recipes_page(), encoding="utf-8")
