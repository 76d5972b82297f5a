"""``unrolled label``."""

from collections.abc import Callable
from pathlib import Path

import unrolled as ur
from cli.conftest import Command


def test_label(unrolled: Command, refused: Callable[..., str], tmp_path: Path) -> None:
    rows = "lovely good\tup\nbad dull\tdown\n" * 20
    (tmp_path / "rows.tsv").write_text(f"sentence\tlabel\n{rows}")
    settings = [
        f"task.data={{name='files',path='{tmp_path / 'rows.tsv'}'}}", "task.rows=8", "model.width=8", "train.steps=40",
        "train.epochs=null", "train.validations=1", "model.dropout={}", "train.optimizer.lr=0.02",
    ]  # fmt: skip
    run = ur.train(ur.experiment("sst2-bilstm", settings), tmp_path / "run", "cpu")
    (tmp_path / "texts.txt").write_text("Lovely!\n\nbad, dull\n")
    outcome = unrolled("label", run, tmp_path / "texts.txt")
    assert outcome.code == 0, outcome
    found = [line.split("\t") for line in outcome.out.splitlines()]
    assert [(row[0], row[2]) for row in found] == [("up", "Lovely!"), ("down", "bad, dull")]
    assert all(0.5 < float(row[1]) <= 1 for row in found)
    (tmp_path / "none.txt").write_text("\n")
    assert "there is no text to label" in refused("label", run, tmp_path / "none.txt")
    assert "does not exist" in refused("label", run, tmp_path / "absent.txt")
