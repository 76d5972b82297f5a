"""unrolled: recurrent language models, trained, measured and run.

    import unrolled as ur

    run = ur.train(ur.experiment("ptb-char-cpu"), "runs/x")   # or ur.experiment() for the default recipe
    model = ur.load(run)
    print(ur.evaluate(run, split="test").figures())
    print(ur.generate(run, "The ", tokens=100)[0].text)

Names are loaded when they are first used: importing this package does not import torch.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from unrolled.api import (
        compare,
        evaluate,
        experiment,
        from_hugging_face,
        generate,
        load,
        serve,
        to_hugging_face,
        train,
        tune,
    )
    from unrolled.model import LanguageModel, ModelConfig, fit_width
    from unrolled.model.published import load_published
    from unrolled.runs import Run
    from unrolled.serve.client import Client
    from unrolled.train import ExperimentConfig, resume

__all__ = [
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

_PLACES = {
    "Client": "unrolled.serve.client",
    "ExperimentConfig": "unrolled.train",
    "LanguageModel": "unrolled.model",
    "ModelConfig": "unrolled.model",
    "Run": "unrolled.runs",
    "fit_width": "unrolled.model",
    "load_published": "unrolled.model.published",
    "resume": "unrolled.train",
}


class _Package(ModuleType):
    """Keeps ``unrolled.compare``, ``unrolled.train``, ``unrolled.evaluate``... the functions of these names.

    Python binds a subpackage to its name in the package when it is first imported, over the function of that name.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'unrolled' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PLACES.get(name, "unrolled.api")), name)
