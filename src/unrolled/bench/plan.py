"""Which rows there are, and which other rows are the peers of a row."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from unrolled.bench.config import BenchConfig
from unrolled.bench.opened import opened
from unrolled.bench.ways import DRAW
from unrolled.cells import CELLS, CellConfig, StepCell
from unrolled.kernels import OPERATIONS
from unrolled.kernels.dispatch import Operation, Sizes, measurable, operation_named
from unrolled.predict.packed_program import why_not_packed

__all__ = [
    "ONNX",
    "PEER",
    "PLAIN",
    "PREPARED",
    "PUBLISHED",
    "REFERENCE",
    "TORCH",
    "Row",
    "Sizes",
    "label",
    "peers_of",
    "plan",
    "serving",
]

REFERENCE, PUBLISHED, TORCH, PEER = "reference", "published", "torch.nn", "peer"
PREPARED, PLAIN, ONNX = "prepared", "plain", "onnxruntime"
"""Of the pass decode: prepared weights, the model as it is, and the same model in ONNX Runtime."""
_LIKE_GRU = ("gru", "mgru")


class Row(NamedTuple):
    """One line of the table.

    subject: the name of a cell or an operation, or a peer such as ``torch.nn.LSTM``. config: of the cell, else None.
    backend: of the subject; ``published`` for the published loop, ``torch.nn`` for the module of torch, ``peer`` for
    what torch has beside an operation. layers, vocabulary: of the model that decodes; 0 in other passes. way: how it
    chooses; empty where it reads what is given. run: the folder of the run whose model decodes, whose subject is its
    name; empty where a model of the cell is made. text: bytes of the text that such a model is given as the one that it
    was trained on.
    """

    subject: str
    config: CellConfig | None
    backend: str
    precision: str
    sizes: Sizes
    mode: str
    layers: int = 0
    vocabulary: int = 0
    way: str = ""
    run: str = ""
    text: int = 0

    def operation(self) -> Operation | None:
        """The operation that is measured; None where a cell or a module of torch is."""
        measured = self.config is None and self.subject in measurable()
        return operation_named(self.subject) if measured else None

    @property
    def name(self) -> str:
        name = self.subject if self.config is None else label(self.config)
        name = f"{self.layers} x {name}" if self.layers and not self.run else name
        return f"{name}, {self.way}" if self.way else name


def label(config: CellConfig) -> str:
    """A cell's name with the options that differ from its defaults: ``mogrifier(rounds=4, rank=64)``."""
    default = type(config)(name=config.name)
    parts = []
    for key in type(config).model_fields:
        value = getattr(config, key)
        if value != getattr(default, key):
            parts.append(f"{key}={label(value) if isinstance(value, CellConfig) else value}")
    return f"{config.name}({', '.join(parts)})" if parts else config.name


def _torch_peer(subject: str, config: CellConfig | None) -> str | None:
    """The module of torch beside which a subject is measured."""
    if config is None:
        return None
    return f"{TORCH}.GRU" if subject in _LIKE_GRU else f"{TORCH}.LSTM"


def _published(row: Row) -> bool:
    """Whether there is a form in which the subject is usually written."""
    if row.config is not None:
        return issubclass(CELLS[row.subject], StepCell)
    operation = row.operation()
    return operation is not None and operation.published is not None


def peers_of(row: Row) -> dict[str, Row]:
    """What a row is compared with, by the name of the ratio; a row is no peer of itself."""
    if row.way:
        return {} if row.way == DRAW else {DRAW: row._replace(way=DRAW)}
    if row.mode == "decode":
        others = {PLAIN: row._replace(backend=PLAIN, precision="float32"), ONNX: row._replace(backend=ONNX)}
        others["float32"] = row._replace(precision="float32")
        return {name: other for name, other in others.items() if other != row}
    found = {REFERENCE: row._replace(backend=REFERENCE), "float32": row._replace(precision="float32")}
    if _published(row):
        found[PUBLISHED] = row._replace(backend=PUBLISHED)
    peer = _torch_peer(row.subject, row.config)
    if (operation := row.operation()) is not None and operation.peer is not None:
        found[PEER] = row._replace(backend=PEER, precision="float32")
    if peer is not None:
        # torch's modules know no bf16 products with float32 states
        found[TORCH] = Row(peer, None, TORCH, "float32", row.sizes, row.mode)
    return {name: other for name, other in found.items() if other != row}


def serving(config: CellConfig | str, build: Callable[[CellConfig], Any]) -> list[str]:
    """The backends that are measured where none is named: all but those that serve by name alone; the reference is a
    peer. ``build`` makes the cell."""
    names = list(operation_named(config).backends) if isinstance(config, str) else build(config).backends()
    rows = [OPERATIONS[name].backends for name in OPERATIONS]
    asked = {name for backends in rows for name, backend in backends.items() if backend.by_name}
    names = [name for name in names if name not in asked]
    return [name for name in names if name != REFERENCE] or names


def plan(config: BenchConfig, build: Callable[[CellConfig], Any]) -> list[Row]:
    """All rows, in the order of the table: by cell, sizes, pass and precision, the peers after the backends."""
    if config.run is not None:
        return _of_run(config)
    rows: list[Row] = []
    for cell in config.cells:
        subject, own = (cell, None) if isinstance(cell, str) else (cell.name, cell)
        names = config.backends or serving(cell, build)
        for sizes in _sizes(config):
            for mode in config.passes:
                if mode == "decode":
                    rows += _decoding(config, subject, own, sizes)
                    continue
                for precision in config.precisions:
                    group = [Row(subject, own, name, precision, sizes, mode) for name in names]
                    rows += group
                    if config.peers:
                        peers = peers_of(group[0])
                        # its fellow in float32 is there only where float32 was asked for
                        rows += [peers[name] for name in (REFERENCE, PUBLISHED, TORCH, PEER) if name in peers]
    return list(dict.fromkeys(rows))


def _of_run(config: BenchConfig) -> list[Row]:
    """The rows of a run's own model."""
    run = opened(str(config.run))
    told = config.model_copy(update={"layers": run.config.model.layers, "vocabulary": run.tokenizer.vocab_size})
    sizes = _sizes(config.model_copy(update={"widths": (run.config.model.width,)}))
    rows = [row for one in sizes for row in _decoding(told, run.path.resolve().name, None, one)]
    rows = [row._replace(run=str(config.run)) for row in rows if row.backend != ONNX]
    if why_not_packed(run.model) is not None:  # it is read as it is then, as `unrolled generate` reads it
        rows = [row._replace(backend=PLAIN) if row.precision == "float32" else row for row in rows]
    return list(dict.fromkeys(rows))


def _decoding(config: BenchConfig, subject: str, own: CellConfig | None, sizes: Sizes) -> list[Row]:
    """Prepared weights in each precision, and after them the model as it is and ONNX Runtime."""
    size = "decode", config.layers, config.vocabulary
    rows = [Row(subject, own, PREPARED, precision, sizes, *size) for precision in config.precisions]
    if config.peers:
        rows.append(Row(subject, own, PLAIN, "float32", sizes, *size))
        if subject == "lstm":
            kinds = [precision for precision in config.precisions if precision != "bf16"]
            rows += [Row(subject, own, ONNX, precision, sizes, *size) for precision in kinds]
    if config.ways:
        pairs = [(kind, way) for kind in config.precisions for way in (DRAW, *config.ways)]
        rows += [Row(subject, own, PREPARED, kind, sizes, *size, way, text=config.text) for kind, way in pairs]
    return rows


def _sizes(config: BenchConfig) -> Sequence[Sizes]:
    return [Sizes(w, b, t) for w in config.widths for b in config.batches for t in config.windows]
