"""The losses of short runs are those that were stored: nothing that should not change them has."""

import json
from pathlib import Path

import pytest
import torch

from train.runs import events, experiment
from unrolled.train import train

STORED = Path(__file__).parents[1] / "golden" / "training.json"
CELLS = {
    "lstm": {"name": "lstm"},
    "mlstm": {"name": "mlstm"},
    "gru": {"name": "gru"},
    "mogrifier": {"name": "mogrifier"},
}


def losses(name: str, text: Path, out: Path) -> list[float]:
    """Nats per token of 20 steps, then of the validations."""
    config = experiment(
        text,
        corpus={"reset": "line"},
        model={
            "layers": 2,
            "cell": CELLS[name],
            "dropout": {"input": 0.1, "state": 0.1},
            "compute": {"backend": "reference"},
        },
        train={"steps": 20, "log_every": 1, "validations": 2, "save_minutes": 9.0},
    )
    train(config, out, "cpu")
    return [event["nats"] for kind in ("train", "valid") for event in events(out) if event["type"] == kind]


@pytest.mark.parametrize("name", CELLS)
def test_losses(name: str, text: Path, tmp_path: Path) -> None:
    """To write the file anew after a change that is meant to change them: python tests/train/test_golden.py."""
    found, stored = losses(name, text, tmp_path / "run"), json.loads(STORED.read_text())[name]
    assert len(found) == len(stored) == 22
    assert found == pytest.approx(stored, rel=1e-5)
    assert found[19] < found[0] - 0.05


if __name__ == "__main__":
    import tempfile

    from train.runs import write_text

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        place = write_text(Path(folder) / "text")
        values = {name: losses(name, place, Path(folder) / name) for name in CELLS}
    STORED.write_text(json.dumps(values, indent=1) + "\n")
