"""A tiny trained run, and its step in ONNX."""

from pathlib import Path

import pytest

from train.runs import experiment, write_text
from unrolled.runs import Run
from unrolled.serve.export import export_run
from unrolled.train import train


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("onnx")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNROLLED_CACHE", str(home / "cache"))
        config = experiment(write_text(home / "text"), train={"steps": 12, "validations": 2, "save_minutes": 9.0})
        return train(config, home / "run", "cpu")


@pytest.fixture(scope="session")
def exported(tiny_run: Path) -> tuple[Path, dict]:
    """The file, and the record of what was written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNROLLED_CACHE", str(tiny_run.parent / "cache"))
        out = tiny_run.parent / "step.onnx"
        return out, export_run(Run(tiny_run, "cpu"), out).record
