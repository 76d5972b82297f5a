"""Nearest neighbours: what followed similar hidden states in a stored text is likely to follow again."""

import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.data import TokenSplit
from unrolled.data.walk import Columns, windows
from unrolled.predict.adapter import MEMORY, Adapter, AdapterConfig, Search, Source
from unrolled.predict.approximate import approximate_finder
from unrolled.predict.base import Predictor
from unrolled.predict.clusters import cluster
from unrolled.predict.datastore import Datastore
from unrolled.predict.nearest import NeighboursConfig, NeighboursPredictor
from unrolled.predict.pointers import PointersPredictor
from unrolled.predict.static import NeuralPredictor
from unrolled.predict.stores import open_store

__all__ = ["PER_CLUSTER", "Neighbours", "stored_text"]

_MANY = 1_000_000
PER_CLUSTER = 15
"""Entries to a cluster where a store is made without saying how many (the finest of the paper's)."""


def stored_text(model: Predictor, split: TokenSplit, limit: int | None, clusters: bool) -> dict[str, Tensor]:
    """The hidden states of a text, the tokens that they predicted, and where in it a text begins."""
    columns = Columns.cut(split, 1, limit)
    state, keys, ids, begins = model.begin(1), [], [], []
    for position, array, flags in windows(split, columns, 512):
        reset = None if flags is None else torch.from_numpy(flags).to(model.device)
        scores = model.window(state, torch.from_numpy(array).to(model.device), reset)
        assert scores.hidden is not None
        state = scores.state
        keys.append(scores.hidden[0].cpu())
        ids.append(torch.from_numpy(array[0].astype(np.int64)))
        if flags is not None:
            begins.append(torch.from_numpy(flags[0].nonzero()[0] + position))
    made = {"keys": torch.cat(keys), "ids": torch.cat(ids), "begins": torch.cat([torch.zeros(1).long(), *begins])}
    if clusters:
        count = math.ceil(len(made["ids"]) / PER_CLUSTER)
        made["clusters"] = torch.from_numpy(cluster(made["keys"].numpy(), count))
    return made


def _of_training_text(inner: Predictor, config: NeighboursConfig, source: Source) -> Datastore:
    trained, names = NeuralPredictor(inner.model, inner.start_id), {"keys", "ids", "begins"}
    names |= {"clusters"} if config.clusters else set()

    def fits(found: Mapping[str, Tensor]) -> bool:
        entries = {len(value) for name, value in found.items() if name != "begins"}
        return set(found) == names and len(entries) == 1

    made = source.stored(
        "neighbours",
        {"limit": config.limit, "clusters": config.clusters},
        lambda split: stored_text(trained, split, config.limit, config.clusters),
        fits,
    )
    arrays = {name: value.cpu().numpy() for name, value in made.items()}
    keys = arrays["keys"]
    finder = approximate_finder(keys, config.probes) if _approximate(config, len(keys)) else None
    holds = "" if config.limit else source.identity()["text"]
    return Datastore(keys, arrays["ids"], arrays["begins"], arrays.get("clusters"), finder, holds)


def _of_folder(config: NeighboursConfig, source: Source, folder: Path, vocab_size: int, width: int) -> Datastore:
    store = open_store(folder, source.identity(), vocab_size, width)
    if config.clusters and store.clusters is None:
        raise UsageError(f"{folder} has no clusters; make it with --clusters, or leave out neighbours.clusters.")
    many = _approximate(config, len(store.keys))
    finder = approximate_finder(store.keys, config.probes, folder) if many else None
    clusters = store.clusters if config.clusters else None
    return Datastore(store.keys, store.ids, store.begins, clusters, finder, store.info.text)


def _approximate(config: NeighboursConfig, entries: int) -> bool:
    return config.search == "faiss" or (config.search == "auto" and entries > _MANY)


def _grid(config: NeighboursConfig) -> Iterator[tuple[dict[str, float], AdapterConfig]]:
    for tau, weight in itertools.product((0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0), (0.05, 0.1, 0.2, 0.3, 0.4)):
        values = {"tau": tau, "weight": weight}
        yield {f"neighbours.{name}": value for name, value in values.items()}, config.model_copy(update=values)


class Neighbours(Adapter):
    """Mixes in what followed the nearest hidden states of a stored text (kNN-LM); with ``pointers`` as an automaton
    that searches only where it must (RetoMaton)."""

    Config = NeighboursConfig
    EXAMPLES = (
        NeighboursConfig(k=3),
        NeighboursConfig(k=5, weight=0.5, tau=3, limit=40),
        NeighboursConfig(k=4, weight=0.4, pointers=True, most=6),
        NeighboursConfig(k=4, weight=0.4, pointers=True, least=2, most=8, doubles=False, clusters=True),
    )
    title = "a search of neighbours"
    place = MEMORY
    needs_hidden = True
    search = Search(_grid, tokens=20_000)

    @classmethod
    def apply(cls, inner: Predictor, config: Any, source: Source | None) -> Predictor:
        """See :meth:`Adapter.apply`; the keys are those of the model as it was trained."""
        if source is None:
            raise UsageError("neighbours are stored with a run, and this model comes from none; leave out neighbours.")
        memo = f"neighbours {config.model_dump(include={'store', 'limit', 'search', 'probes', 'clusters'})}"
        memo += f" {inner.model.dtype} {inner.precision}"
        store = source.kept.get(memo)
        if store is None:
            if config.store is None:
                store = _of_training_text(inner, config, source)
            else:
                width = inner.model.head.in_width
                store = _of_folder(config, source, Path(config.store), inner.vocab_size, width)
            source.kept[memo] = store
        made = PointersPredictor if config.pointers else NeighboursPredictor
        return made(inner, config, store)
