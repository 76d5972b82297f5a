"""Public names: what ``__all__`` promises is there, and the top-level names change only on purpose."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

import unrolled

# A name that goes from here needs a line in the changelog.
TOP_LEVEL = [
    "Client",
    "ExperimentConfig",
    "LanguageModel",
    "ModelConfig",
    "Run",
    "compare",
    "evaluate",
    "experiment",
    "fit_width",
    "from_hugging_face",
    "generate",
    "load",
    "load_published",
    "resume",
    "serve",
    "to_hugging_face",
    "train",
    "tune",
]

MODULES = [
    info.name for info in pkgutil.walk_packages(unrolled.__path__, "unrolled.") if not info.name.endswith("__main__")
]


def test_top_level_names() -> None:
    assert sorted(unrolled.__all__) == TOP_LEVEL
    for name in TOP_LEVEL:
        assert getattr(unrolled, name) is not None
    assert unrolled.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = unrolled.trian


def test_verbs_can_be_called_more_than_once() -> None:
    code = "import unrolled as ur; verbs = 'train evaluate generate load'.split(); "
    code += "print(all(callable(getattr(ur, verb)) for verb in verbs for _ in range(2)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "True"


@pytest.mark.parametrize("module", MODULES)
def test_promised_names_exist(module: str) -> None:
    loaded = importlib.import_module(module)
    names = getattr(loaded, "__all__", [])
    missing = [name for name in names if not hasattr(loaded, name)]
    assert not missing
    assert len(set(names)) == len(names)
    assert loaded.__doc__, "every module says what it is for"


def test_the_modules_are_found() -> None:
    assert {"unrolled.core.config", "unrolled.cells.gated.lstm", "unrolled.kernels.dispatch"} <= set(MODULES)
