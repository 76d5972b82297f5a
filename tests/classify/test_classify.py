"""The task of classes, from rows to labels."""

from pathlib import Path

import numpy as np
import pytest
import torch

import unrolled as ur
from conformance.tolerance import assert_close
from unrolled.core.errors import UsageError
from unrolled.model.classes.head import ClassHead, ClassHeadConfig, pooled

TEXTS = ["good fine lovely", "bad dull poor", "a fine day", "poor thing", "lovely lovely", "dull , bad !"] * 20
LABELS = ["up", "down", "up", "down", "up", "down"] * 20


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classify")
    rows = "".join(f"{text}\t{label}\n" for text, label in zip(TEXTS, LABELS, strict=True))
    (folder / "rows.tsv").write_text(f"sentence\tlabel\n{rows}")
    settings = [
        f"task.data={{name='files',path='{folder / 'rows.tsv'}'}}", "task.rows=8", "model.width=8", "train.steps=60",
        "train.epochs=null", "train.validations=2", "model.dropout={}", "train.optimizer.lr=0.02",
    ]  # fmt: skip
    ur.train(ur.experiment("sst2-bilstm", settings), folder / "run", "cpu")
    return folder / "run"


def test_it_learns_and_labels(run: Path) -> None:
    opened = ur.Run(run, "cpu")
    task = opened.task
    assert task.classes == ("down", "up")  # type: ignore[attr-defined]
    found = task.label(opened.trained, ["LOVELY,", "bad", "fine fine fine fine"])  # type: ignore[attr-defined]
    assert [name for name, _ in found] == ["up", "down", "up"]
    assert all(chance > 0.6 for _, chance in found)
    # what a text gives does not depend on those beside it
    alone = task.label(opened.trained, ["bad"])  # type: ignore[attr-defined]
    assert alone[0][1] == pytest.approx(found[1][1], rel=1e-5)


def test_the_record_says_what_was_learned(run: Path) -> None:
    record = ur.Run(run, "cpu").record
    assert record["classes"] == ["down", "up"]
    assert record["cut"] == {"train": 0, "valid": 0}


def test_pools_leave_padding_out() -> None:
    h = torch.randn(2, 5, 3).double()
    h[1, :2] = 100.0
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[1, :2] = False
    for pool, wanted in (("mean", h[1, 2:].mean(0)), ("max", h[1, 2:].amax(0)), ("last", h[1, -1])):
        assert_close(pooled(h, mask, pool)[1], wanted, pool)  # type: ignore[arg-type]


def test_smoothing_is_of_training_alone() -> None:
    torch.manual_seed(0)
    head = ClassHead(4, 3, ClassHeadConfig(smoothing=0.3)).double()
    h, targets = torch.randn(5, 6, 4).double(), torch.tensor([[0], [1], [2], [1], [0]])
    log_prob = head.class_logits(h).log_softmax(-1)
    nll = -log_prob.gather(1, targets)
    total, shown, _ = head.loss(h, targets)
    assert_close(shown, nll, "nats in training")
    assert_close(total, 0.7 * nll.sum() - 0.3 * log_prob.mean(1).sum(), "what is minimised")
    assert_close(head.eval().loss(h, targets)[0], nll.sum(), "in evaluation")


def test_what_labels_have_not_is_refused(tmp_path: Path) -> None:
    data = "task.data={name='listops',rows=20}"
    for setting, words in (
        ("model.embedding.tied=true", "nothing can be tied"),
        ("model.head.name=mos", "no model.head"),
        ("model.memory.name=tokens", "no memory"),
        ("task.classes=['a']", "are found from the rows"),
    ):
        settings = [data, "tokenizer=null", setting, "train.steps=1", "train.epochs=null"]
        with pytest.raises(UsageError, match=words):
            ur.train(ur.experiment("sst2-bilstm", settings), tmp_path / "run", "cpu")


def test_long_rows_are_cut_and_told(tmp_path: Path) -> None:
    settings = [
        "task.data={name='listops',rows=30}",
        "tokenizer=null",
        "task.longest=5",
        "train.steps=1",
        "train.epochs=null",
    ]
    ur.train(ur.experiment("sst2-bilstm", settings), tmp_path / "run", "cpu")
    opened = ur.Run(tmp_path / "run", "cpu")
    lengths = np.array([len(row) for row in opened.task.labelled.splits()["train"].rows])  # type: ignore[attr-defined]
    assert opened.record["cut"]["train"] == (lengths > 5).sum() > 0
