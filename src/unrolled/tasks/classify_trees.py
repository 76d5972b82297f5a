"""The task of classes of trees: labels of roots, or of all nodes."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrolled.cells import TREES
from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.data.trees import (
    TREEBANKS,
    Tree,
    TreeBatch,
    TreeBatches,
    TreeSource,
    TreeSplit,
    forest_of,
)
from unrolled.data.trees.batches import flat_parents
from unrolled.model.classes import ClassHeadConfig
from unrolled.model.classes.trees import TreeModel
from unrolled.model.dropout import draw_rows
from unrolled.runs import TOKENIZER, RunConfig, own_tokenizer
from unrolled.task import Evaluation, Loss, Objective, Saved, Seen, TaskResult, Watch, unwatched
from unrolled.task.values import Advance
from unrolled.tasks.labels import Labels, grouped
from unrolled.tasks.tree_config import ClassifyTreesConfig
from unrolled.tasks.tree_rows import numbered, vocabulary_of
from unrolled.tokenizer import Tokenizer, save_tokenizer

__all__ = ["ClassifyTrees", "ClassifyTreesConfig"]


class Drawn(NamedTuple):
    """Dropout masks, or None: of vectors (rows, nodes, embedding), of states (rows, nodes, width)."""

    input: Tensor | None
    output: Tensor | None


class ClassifyTrees(Labels):
    """Minimises the nats of the labels of trees, of their roots or of all nodes; validations watch how many are right.

    A tree cell (:data:`unrolled.cells.TREES`) makes the states of all nodes from the leaves to the root, and a softmax
    over the classes reads the state of each node that has a label.
    """

    Config = ClassifyTreesConfig
    EXAMPLES = (
        ClassifyTreesConfig.parse({"data": {"name": "listops", "rows": 40, "depth": 2}, "rows": 8, "width": 6}),
        ClassifyTreesConfig.parse({
            "data": {"name": "listops", "rows": 24, "depth": 3}, "rows": 5, "cell": "s_lstm", "binary": True,
            "width": 6, "embedding": 5, "hidden": 4, "smoothing": 0.1,
        }),
        ClassifyTreesConfig.parse({
            "data": {"name": "listops", "rows": 24, "depth": 2}, "rows": 5, "cell": "binary_tree_lstm", "binary": True,
            "width": 5,
        }),
    )  # fmt: skip
    noun = "a classifier of trees"
    reads = ("tokenizer", "train")
    examples = "trees"

    config: RunConfig

    def __init__(self, config: RunConfig, streams: RandomStreams, saved: Saved | None = None):
        super().__init__(config, streams, saved)
        if saved is None:
            if self._settings.classes is not None:
                raise UsageError("task.classes are found from the trees; leave them out.")
            _ = self.splits
            settled = self._settings.model_copy(update={"classes": self.treebank.classes})
            self.config = self.config.model_copy(update={"task": settled, "tokenizer": self.tokenizer.config})

    @property
    def _settings(self) -> ClassifyTreesConfig:
        assert isinstance(self.config.task, ClassifyTreesConfig)
        return self.config.task

    @cached_property
    def treebank(self) -> TreeSource:
        """Where the trees come from."""
        config = self._settings.data
        return TREEBANKS[config.name](config)

    @cached_property
    def _trees(self) -> dict[str, list[Tree]]:
        return self.treebank.splits()

    @cached_property
    def tokenizer(self) -> Tokenizer:  # type: ignore[override]
        """The saved run's, or of the symbols, or the words of the training trees."""
        if self.saved is not None:
            return own_tokenizer(self.saved.path, self.saved.record)
        symbols = self.treebank.symbols
        return vocabulary_of(self.config.tokenizer, symbols, () if symbols else self._trees["train"])

    @cached_property
    def splits(self) -> dict[str, TreeSplit]:
        """See :class:`unrolled.task.Task`."""
        trees = self._trees
        classes = self.treebank.classes if self.saved is None else self.classes
        number = {name: index for index, name in enumerate(classes)}
        own = self._settings
        return {
            split: TreeSplit(
                [numbered(tree, self.tokenizer, number, TREES[own.cell.name], own.binary) for tree in found],
                f"the {split} trees",
            )
            for split, found in trees.items()
        }

    def save(self, run: Path) -> None:
        """See :meth:`Task.save`."""
        save_tokenizer(self.tokenizer, run / TOKENIZER)

    def build(self) -> TreeModel:
        """See :meth:`StepsTask.build`."""
        own = self._settings
        head = ClassHeadConfig(pool="last", hidden=own.hidden, smoothing=own.smoothing)
        return TreeModel(
            self.tokenizer.vocab_size, own.embedding or own.width, own.width, own.cell, len(self.classes), head,
            own.compute,
        )  # fmt: skip

    def source(self) -> TreeBatches:
        """See :meth:`StepsTask.source`."""
        return TreeBatches(self.splits["train"], self._settings.rows, self.streams)

    def draw(self, model: TreeModel, batch: TreeBatch, position: int) -> Drawn:
        """Dropout masks."""
        own, place = self._settings, (self.streams, position, model.device, model.dtype)

        def mask(rate: float, width: int, site: str) -> Tensor | None:
            streams, window, device, dtype = place
            return draw_rows(rate, (*batch.words.shape, width), streams, site, window, device, dtype)

        return Drawn(
            mask(own.input_dropout, own.embedding or own.width, "trees.input"),
            mask(own.output_dropout, own.width, "trees.output"),
        )

    def _states(self, model: TreeModel, batch: TreeBatch, drawn: Drawn) -> tuple[Tensor, Tensor, Tensor]:
        """h (labels, width) of the nodes that have one, these labels, and where they stand, boolean (rows, nodes)."""
        there, parents = flat_parents(batch)
        nodes = torch.from_numpy(there).to(model.device)
        words, labels = batch.words.to(model.device), batch.labels.to(model.device)
        h = model(words[nodes], parents, None if drawn.input is None else drawn.input[nodes])
        wanted = labels >= 0
        h = h[wanted[nodes]]
        return h if drawn.output is None else h * drawn.output[wanted], labels[wanted], wanted

    def loss(
        self,
        model: TreeModel,
        batch: TreeBatch,
        state: None,
        drawn: Drawn,
        objective: Objective,
        watch: Watch = unwatched,
    ) -> Loss:
        """See :meth:`StepsTask.loss`; nothing is carried on."""
        h, labels, wanted = self._states(model, batch, drawn)
        watch("forward")
        total, nats, _ = model.head.loss(h.unsqueeze(1), labels.unsqueeze(1))
        watch("loss")
        nll = torch.zeros(wanted.shape, dtype=nats.dtype, device=nats.device)
        nll[wanted] = nats.squeeze(1)

        def again(weight: Tensor) -> Tensor:
            return model.head.loss(h.unsqueeze(1), labels.unsqueeze(1), weight[wanted].unsqueeze(1))[0]

        targets = batch.labels.to(wanted.device)
        seen = Seen(model, batch, None, drawn, total, nll, targets, wanted.to(nll.dtype), again=again)
        return Loss(objective(seen), *seen.counted())

    @torch.no_grad()
    def log_probs(self, model: TreeModel, split: TreeSplit) -> Iterator[tuple[int, np.ndarray]]:
        """Numbers of trees and log-probabilities (labels, classes) of those nodes that have a label, in their order;
        float64, the smallest trees first."""
        model.eval()
        order = sorted(range(len(split)), key=lambda place: (len(split.trees[place].words), place))
        for low in range(0, len(order), self._settings.rows):
            chosen = order[low : low + self._settings.rows]
            h, _, wanted = self._states(model, forest_of([split.trees[place] for place in chosen]), Drawn(None, None))
            found = model.head.class_logits(h.unsqueeze(1)).double().log_softmax(-1).cpu()
            yield from zip(chosen, (part.numpy() for part in found.split(wanted.sum(1).tolist())), strict=True)

    def text_log_probs(self, model: TreeModel, texts: Sequence[str]) -> Iterator[tuple[int, np.ndarray]]:
        """See :meth:`Labels.text_log_probs`: of the root of each text's tree. A text is what the data are: an
        operation, a bracketed tree, a sentence."""
        cell, any_label = TREES[self._settings.cell.name], self.classes[0]
        trees = [self.treebank.tree(text) for text in texts]
        rooted = [tree._replace(labels=(*[""] * (len(tree.labels) - 1), any_label)) for tree in trees]
        rows = [numbered(tree, self.tokenizer, {any_label: 0}, cell, self._settings.binary) for tree in rooted]
        return self.log_probs(model, TreeSplit(rows, "the texts"))

    def evaluate(
        self, model: TreeModel, examples: TreeSplit, how: Evaluation, advance: Advance | None = None
    ) -> TaskResult:
        """See :meth:`Task.evaluate`; the fast form and the exact one are the same. Accuracies by depth, the height of
        what stands below a label in the tree as it was given, are among the figures."""
        split = examples.beginning(how.limit)
        whole = [np.zeros(0)] * len(split)
        done, sums = 0, 0.0
        for place, log_prob in self.log_probs(model, split):
            tree = split.trees[place]
            wanted = tree.labels >= 0
            labels, rows = tree.labels[wanted], np.arange(int(wanted.sum()))
            whole[place] = np.stack([-log_prob[rows, labels], log_prob.argmax(1) == labels, tree.heights[wanted]])
            done, sums = done + len(rows), sums + float(whole[place][0].sum())
            if advance is not None:
                advance(done, split.targets, sums / max(done, 1))
        nats, right, heights = np.concatenate([part for part in whole if part.size], 1)
        return self.measured(nats, right.astype(bool), grouped("depth", heights.astype(int)), len(split), how)

    def provenance(self) -> dict[str, Any]:
        """See :meth:`Task.provenance`."""
        return {"tokenizer": self.tokenizer.fingerprint()}

    def record(self, model: TreeModel) -> dict[str, Any]:
        """See :meth:`Task.record`."""
        own = self._settings
        return {
            "precision": own.compute.precision,
            "data": own.data.model_dump(mode="json"),
            "classes": list(self.classes),
            **self.provenance(),
            "symbols": self.tokenizer.symbols_checksum(),
            "parameters": model.num_params(),
        }

    def describe(self, model: TreeModel) -> str:
        """See :meth:`StepsTask.describe`."""
        own, train = self._settings, self.splits["train"]
        return (
            f"{own.data.name}: {len(train):,} training trees of up to {train.lengths.max():,} nodes, {train.targets:,} "
            f"labels of {len(self.classes)} classes; {own.cell.name} {own.width}, {model.num_params():,} parameters"
        )
