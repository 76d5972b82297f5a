"""The task of trees, from files to labels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import unrolled as ur
from conformance.tolerance import assert_close
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.random import RandomStreams
from unrolled.data.trees import TREEBANKS, balanced, bracketed, forest_of
from unrolled.data.trees.batches import TreeSplit, flat_parents
from unrolled.task import TASKS, Evaluation
from unrolled.tasks.tree_rows import numbered, vocabulary_of
from unrolled.train import ExperimentConfig

GOOD, BAD = "(+ (0 film) (+ (+ fine) (+ good)))", "(- (0 film) (- (- dull) (- bad)))"
LINES = [GOOD, BAD, "(+ (- bad) (+ (0 not)))", "(- (+ good) (- (0 not)))", "(+ good)", "(- dull)"] * 10


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trees") / "trees.txt"
    path.write_text("".join(f"{line}\n" for line in LINES))
    return path


def settings(path: Path, **more: Any) -> list[str]:
    chosen = {
        "task.data": f"{{name='treebank',path='{path}'}}", "task.width": 8, "task.rows": 8, "train.steps": 60,
        "train.epochs": "null", "train.validations": 2, "train.optimizer.lr": 0.03,
        "task.cell": "child_sum_tree_lstm", "task.input_dropout": 0, "task.output_dropout": 0,
    }  # fmt: skip
    return [f"{key}={value}" for key, value in {**chosen, **more}.items()]


@pytest.fixture(scope="module")
def run(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classify_trees") / "run"
    data = f"{{name='treebank',path='{file}',nodes='all'}}"
    ur.train(ur.experiment("sst2-tree", settings(file, **{"task.data": data})), folder, "cpu")
    return folder


def test_it_learns_and_labels(run: Path) -> None:
    opened = ur.Run(run, "cpu")
    task: Any = opened.task
    assert task.classes == ("+", "-", "0")
    texts = ["(x (x film) (x (x good) (x good)))", "(x dull)", "(x film)"]
    found = task.label(opened.trained, texts)
    assert [name for name, _ in found] == ["+", "-", "0"]
    assert task.label(opened.trained, texts[1:2])[0][1] == pytest.approx(found[1][1], rel=1e-5)
    with pytest.raises(UnrolledError, match="no bracketed tree"):
        task.label(opened.trained, ["good"])
    result = task.evaluate(opened.trained, task.splits["valid"], Evaluation("valid"))
    assert result.counts["trees"] == 6
    assert result.counts["labels"] > 6
    assert result.figures["accuracy"] > 0.7  # one word has two labels, which nothing tells apart
    assert {name for name in result.figures if "depth" in name} == {f"accuracy_depth_{k}" for k in range(3)}
    limited = task.evaluate(opened.trained, task.splits["valid"], Evaluation("valid", 2))
    assert limited.counts["trees"] == 2


def test_labels_of_roots_alone(file: Path) -> None:
    source = TREEBANKS["treebank"](TREEBANKS.parse({"name": "treebank", "path": str(file)}))
    splits = source.splits()
    assert source.classes == ("+", "-")
    assert [len(trees) for trees in splits.values()] == [54, 6]
    assert all(not any(tree.labels[:-1]) and tree.labels[-1] for trees in splits.values() for tree in trees)


def test_a_label_that_training_lacks_is_refused(file: Path, tmp_path: Path) -> None:
    (tmp_path / "valid.txt").write_text("(neutral (- a) (+ b))\n")
    config = {"name": "treebank", "path": str(file), "valid": str(tmp_path / "valid.txt")}
    with pytest.raises(UsageError, match="unknown label in the valid trees: 'neutral'"):
        TREEBANKS["treebank"](TREEBANKS.parse(config)).splits()
    (tmp_path / "valid.txt").write_text("(+ a)\n")
    with pytest.raises(UsageError, match="have one label"):
        TREEBANKS["treebank"](TREEBANKS.parse({**config, "path": config["valid"]})).splits()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"task.classes": "['a','b']"}, "are found from the trees"),
        ({"tokenizer": "byte"}, "set tokenizer=word"),
        ({"task.cell": "s_lstm"}, "joins 2 children at each inner node, and one has 1.*task.binary=true"),
        ({"task.data": "listops", "task.cell": "s_lstm"}, "task.binary=true"),
        (
            {"task.data": "{name='listops',least=2,most=2}", "task.cell": "s_lstm"},
            "reads words of leaves alone, and a node with children has the word",
        ),
    ],
)
def test_what_a_task_of_trees_has_not_is_refused(
    setting: dict[str, str], words: str, file: Path, tmp_path: Path
) -> None:
    experiment = ur.experiment("sst2-tree", settings(file, **setting))
    with pytest.raises(UsageError, match=words):
        ur.train(experiment, tmp_path / "run", "cpu")


def test_trees_in_numbers() -> None:
    tree, number = bracketed("(1 (0 a) (1 (0 b)) (0 a))"), {"0": 0, "1": 1}
    tokenizer = vocabulary_of(None, (), [tree] * 3)
    from unrolled.cells import TREES

    plain = numbered(tree, tokenizer, number, TREES["child_sum_tree_lstm"], False)
    a, b = tokenizer.encode("a b")
    assert plain.words.tolist() == [a, b, -1, a, -1]
    assert plain.labels.tolist() == [0, 0, 1, 0, 1]
    assert plain.heights.tolist() == [0, 0, 1, 0, 2]
    binary = numbered(tree, tokenizer, number, TREES["s_lstm"], True)
    assert binary.words.tolist() == [a, b, -1, a, -1]
    assert binary.labels.tolist() == [0, 1, -1, 0, 1]
    assert binary.heights.tolist() == [0, 1, -1, 0, 2]
    batch = forest_of([plain, binary, numbered(balanced(["b"], "0"), tokenizer, number, TREES["s_lstm"], False)])
    there, parents = flat_parents(batch)
    assert there.sum(1).tolist() == [5, 5, 1]
    assert parents.tolist() == [4, 2, 4, 4, -1, 7, 7, 9, 9, -1, -1]


def test_dropout_acts_in_training_alone_and_comes_from_streams(file: Path) -> None:
    def opened(**more: Any) -> Any:
        config = {"name": "classify_trees", "data": {"name": "treebank", "path": str(file)}, "width": 6, **more}
        task = TASKS["classify_trees"](ExperimentConfig.parse({"task": config}), RandomStreams(3))
        torch.manual_seed(0)
        return task, task.build()  # type: ignore[attr-defined]

    def nats(task: Any, model: Any, position: int = 0) -> float:
        batch = task.source().at(0)
        return float(task.loss(model, batch, None, task.draw(model, batch, position), lambda seen: seen.total).nats)

    plain = nats(*opened())
    for name in ("input_dropout", "output_dropout"):
        task, model = opened(**{name: 0.5})
        assert nats(task, model) != plain
        assert nats(task, model) == nats(task, model)
        assert nats(task, model, 1) != nats(task, model)
        split = task.splits["train"]
        first, again = (dict(task.log_probs(model, split))[0] for _ in range(2))
        assert np.array_equal(first, again)


def test_weights_of_labels_weigh_them(file: Path) -> None:
    data = {"name": "treebank", "path": str(file), "nodes": "all"}
    config = {"task": {"name": "classify_trees", "data": data, "width": 6}}
    task: Any = TASKS["classify_trees"](ExperimentConfig.parse(config), RandomStreams(3))
    model, batch, found = task.build().double(), task.source().at(0), []
    task.loss(model, batch, None, task.draw(model, batch, 0), lambda seen: found.append(seen) or seen.total)
    seen = found[0]
    assert_close(seen.again(seen.weight), seen.total, "weights of one")
    weight = seen.weight * torch.rand(seen.weight.shape).double()
    assert_close(seen.again(weight), (seen.nll * weight).sum(), "other weights")


def test_sentences_are_balanced_and_dependencies_whole() -> None:
    sst2 = TREEBANKS["sst2"](TREEBANKS.parse("sst2"))
    assert sst2.tree("It's GOOD .").words == ("it's", "good", "", ".", "")
    with pytest.raises(UsageError, match="a word at least"):
        sst2.tree(" ")
    with pytest.raises(UsageError, match="has no dependencies"):
        TREEBANKS["dependencies"](TREEBANKS.parse("dependencies")).tree("a b")
    with pytest.raises(UsageError, match=r"go with task\.data\.path"):
        TREEBANKS["dependencies"](TREEBANKS.parse({"name": "dependencies", "test": "x"})).splits()


def test_a_split_without_labels_is_refused() -> None:
    with pytest.raises(UsageError, match="this split has no tree with a label"):
        TreeSplit([])
