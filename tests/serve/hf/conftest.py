"""A trained run and its exports, made once."""

import sys
from pathlib import Path

import pytest

import unrolled as ur
from train.runs import experiment, write_text


@pytest.fixture(scope="session")
def hf_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("hf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNROLLED_CACHE", str(home / "cache"))
        config = experiment(write_text(home / "text"), train={"steps": 40, "validations": 2, "save_minutes": 9.0},
                            model={"compute": {"backend": "auto"}})  # fmt: skip
        return ur.train(config, home / "run", "cpu")


@pytest.fixture(scope="session")
def exported(hf_run: Path) -> Path:
    return ur.to_hugging_face(hf_run, hf_run.parent / "exported")


@pytest.fixture(scope="session")
def remote(hf_run: Path) -> Path:
    return ur.to_hugging_face(hf_run, hf_run.parent / "remote", remote_code=True)


@pytest.fixture
def python() -> str:
    return sys.executable
