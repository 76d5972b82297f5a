"""A model that is served: its predictors for several threads, and what can be asked of it."""

import contextlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unrolled.core.errors import UsageError
from unrolled.evaluate import open_predictor, state_form
from unrolled.predict import Predictor, PredictorConfig, StateForm
from unrolled.predict.mixture import Mixture
from unrolled.runs import Run
from unrolled.tokenizer import Tokenizer

__all__ = ["Served", "open_models"]


class Served:
    """A model under its name.

    Args:
        name: by which it is asked for. writer: reads token by token. reader: reads windows, as ``unrolled score`` does.
        form: of the states of both. threads: that write.

    Attributes:
        writers: one for each thread that writes. reader: for the thread that scores. lock: to be held while one of them
            is used; it keeps nobody out where they serve several threads at once.
        begun: the state of a text without tokens.
    Raises:
        UsageError: rows of the predictor depend on each other, or on how much was read before.
    """

    def __init__(
        self, name: str, tokenizer: Tokenizer, writer: Predictor, reader: Predictor, form: StateForm, threads: int
    ):
        if not writer.independent or writer.lockstep:
            raise UsageError(
                f"{name}: with {writer.kind} texts change each other, so it cannot be served; leave that setting out."
            )
        self.name, self.tokenizer, self.form = name, tokenizer, form
        self.id = form.model
        self.precision, self.kind, self.options = writer.precision, writer.kind, writer.options
        first = writer.twin()
        alone = first is None or reader.twin() is None
        self.lock: Any = threading.Lock() if alone else contextlib.nullcontext()
        twins = [] if first is None or alone else [first, *(first.twin() for _ in range(threads - 1))]
        self.writers = [one for one in twins if one is not None] or [writer] * threads
        self.reader = reader
        self.begun = form.begin()

    @property
    def exported_start(self) -> int:
        """The id by which a tokenizer exported with the model begins a text; the one before it is for padding."""
        return self.tokenizer.vocab_size + 1

    def described(self) -> dict[str, Any]:
        """What ``/v1/models`` says of it: plain JSON values."""
        tokenizer = self.tokenizer
        any_cut = tokenizer.kind in ("char", "byte")
        ids = {"start_id": tokenizer.start_id, "exported_start_id": self.exported_start}
        vocabulary = {"size": tokenizer.vocab_size, "kind": tokenizer.kind, **ids}
        return {
            "vocabulary": vocabulary,
            "precision": self.precision,
            "protocol": self.kind,
            "options": self.options,
            "state_bytes": self.form.size(),
            # where a text may be cut so that its parts have the tokens of the whole
            "parts": "characters" if any_cut else "lines",
        }


def open_models(
    runs: list[Path], predict: PredictorConfig, threads: int, mixtures: Mapping[str, Mapping[str, float]]
) -> list[Served]:
    """Open runs, and mixtures of them.

    Args:
        mixtures: name -> the names of runs -> weights.
    Raises:
        UsageError: two runs of one name; a mixture of what cannot be mixed; see :class:`Served`. UnrolledError: damaged
            files.
    """
    if any(one.name == "dynamic" for one in predict.adapters):
        raise UsageError("dynamic evaluation changes the weights, which all texts share; leave out dynamic.")
    found: dict[str, Served] = {}
    opened: dict[str, tuple[Run, Predictor, Predictor]] = {}
    for path in runs:
        run = Run(path, "cpu")
        name = run.path.resolve().name
        if name in opened:
            raise UsageError(f"two runs are called {name}; rename the folder of one.")
        writer, reader = (open_predictor(run, predict, stepwise=stepwise) for stepwise in (True, False))
        opened[name] = run, writer, reader
        found[name] = Served(name, run.tokenizer, writer, reader, state_form(run, writer), threads)
    for name, parts in mixtures.items():
        if name in found:
            raise UsageError(f"two models are called {name}; name the mixture otherwise.")
        found[name] = _mixture(name, parts, opened, found, threads)
    return list(found.values())


def _mixture(
    name: str,
    parts: Mapping[str, float],
    opened: Mapping[str, tuple[Run, Predictor, Predictor]],
    found: Mapping[str, Served],
    threads: int,
) -> Served:
    for part in parts:
        if part not in opened:
            raise UsageError(f"the mixture {name} names {part}, which is no run that is served; give that run too.")
    tokenizers = [opened[part][0].tokenizer for part in parts]
    if len({one.fingerprint() for one in tokenizers}) > 1:
        raise UsageError(f"the runs of the mixture {name} have different vocabularies, so they cannot be mixed.")
    weights = list(parts.values())
    writer = Mixture([opened[part][1] for part in parts], weights)
    reader = Mixture([opened[part][2] for part in parts], weights)
    form = StateForm(writer.identity(name, [found[part].id for part in parts]), writer)
    return Served(name, tokenizers[0], writer, reader, form, threads)
