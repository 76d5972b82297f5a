"""Hidden states of a text, written into a folder in which neighbours are looked up."""

import os
from pathlib import Path

import numpy as np
import torch

from unrolled.core import tree
from unrolled.core.errors import UsageError
from unrolled.data import CorpusConfig
from unrolled.data.reading import read_plain
from unrolled.data.walk import Columns, Progress, windows
from unrolled.evaluate.opening import RunSource, open_predictor
from unrolled.predict import NeuralPredictor
from unrolled.predict.clusters import cluster
from unrolled.predict.library import DocumentsInfo, states_of, write_library
from unrolled.predict.stores import StoreInfo, put, writing_store
from unrolled.runs import Run

__all__ = ["store_documents", "store_text"]

_DTYPES = ("float16", "float32")


def store_text(
    run: Run,
    out: str | os.PathLike[str],
    corpus: CorpusConfig | str | None = None,
    split: str = "train",
    dtype: str = "float16",
    columns: int = 1,
    clusters: int = 0,
    limit: int | None = None,
    progress: Progress | None = None,
) -> StoreInfo:
    """Read a text once and keep the hidden state that predicts each token (Khandelwal et al. 2020).

    Args:
        out: the folder, which must not exist. corpus: its config, name or path; absent: the run's own.
        dtype: of the numbers that are kept, float16 or float32.
        columns: parts of the text that are read side by side, each begun anew; faster, and a tail is left out.
        clusters: groups of near states that are found (k-means), for pointers; 0: none.
        limit: only the first so many tokens.
        progress: hears of tokens read.
    Returns:
        what was stored.
    Raises:
        UsageError: unknown corpus, split or option; a model without hidden states; the folder exists. UnrolledError: no
            space.
    """
    if dtype not in _DTYPES:
        raise UsageError(f"a store holds float16 or float32, not {dtype}.")
    if clusters < 0 or columns < 1:
        raise UsageError("a store has at least one column, and clusters or none.")
    predictor = open_predictor(run)
    if not predictor.gives_hidden:
        raise UsageError(f"{run.path} has no hidden states to store; use a run of a neural language model.")
    name, text, _ = run.to_measure(split, corpus)
    cut = Columns.cut(text, columns, limit)
    entries, identity = cut.length * columns, RunSource(run).identity()
    hidden = predictor.predict(predictor.begin(1)).hidden
    assert hidden is not None
    clusters = min(clusters, entries)
    info = StoreInfo.parse({
        "weights": identity["weights"], "tokenizer": identity["tokenizer"], "text": text.checksum, "corpus": name,
        "split": split, "precision": predictor.precision, "entries": entries, "width": hidden.shape[1], "dtype": dtype,
        "columns": columns, "clusters": clusters,
    })  # fmt: skip
    state, nats, done, begins = predictor.begin(columns), 0.0, 0, [np.zeros(1, np.int64)]
    with writing_store(Path(out), info) as (keys, ids, part):
        for position, array, flags in windows(text, cut, max(1, 512 // columns)):
            reset = None if flags is None else torch.from_numpy(flags).to(predictor.device)
            scores = predictor.window(state, torch.from_numpy(array).to(predictor.device), reset)
            assert scores.hidden is not None
            state, found = scores.state, scores.hidden.cpu().numpy()
            for row, begin in enumerate(cut.begins.tolist()):
                place = slice(begin + position, begin + position + array.shape[1])
                keys[place], ids[place] = found[row], array[row]
                if flags is not None:
                    begins.append(flags[row].nonzero()[0] + begin + position)
            nats, done = nats + float(scores.nll.double().sum()), done + array.size
            if progress is not None:
                progress(done, entries, nats / done)
        put(part, np.unique(np.concatenate(begins)), cluster(keys, clusters) if clusters else None)
    return info


def store_documents(
    run: Run, out: str | os.PathLike[str], folder: str | os.PathLike[str], progress: Progress | None = None
) -> DocumentsInfo:
    """Read the files of a folder, and keep the state after each (Shi et al. 2023, for models that have states).

    Args:
        out: the folder that is made. folder: of texts, compressed or not, each a document; those in folders below
            it too, but none whose name begins with a dot.
        progress: hears of documents read.
    Raises:
        UsageError: no neural model; a folder without texts; a text that the tokenizer cannot read; ``out`` exists.
    """
    predictor = open_predictor(run)
    if not isinstance(predictor, NeuralPredictor):
        raise UsageError(f"{run.path} has no hidden states to store; use a run of a neural language model.")
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file() and not path.name.startswith("."))
    if not files:
        raise UsageError(f"{folder} is no folder with texts; name one.")
    texts = [read_plain(path) for path in files]
    documents = []
    for path, text in zip(files, texts, strict=True):
        try:
            ids = run.tokenizer.encode(text, end=True)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from error
        if not ids:
            raise UsageError(f"{path} has no text; take it out of {folder}.")
        documents.append(torch.tensor(ids))
    identity, tokens = RunSource(run).identity(), sum(map(len, documents))
    parts = []
    for done, document in enumerate(documents, 1):
        parts.append(states_of(predictor, [document]))
        if progress is not None:
            progress(done, len(documents), 0.0)
    info = DocumentsInfo(
        weights=identity["weights"], tokenizer=identity["tokenizer"], documents=len(documents), tokens=tokens
    )
    return write_library(Path(out), info, tree.map_tree(lambda *each: torch.cat(each), *parts), texts)
