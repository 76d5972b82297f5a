"""Tiny models to serve."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import torch

from unrolled.counts import KneserNeyConfig, estimate_kneser_ney
from unrolled.generate import SamplerConfig
from unrolled.kernels.cpu import why_no_library
from unrolled.model import LanguageModel, ModelConfig
from unrolled.predict import KneserNeyPredictor, NeuralPredictor, PackedPredictor, Predictor, StateForm
from unrolled.serve.engine.jobs import Completion, Wrote
from unrolled.serve.engine.pool import Engine
from unrolled.serve.engine.served import Served
from unrolled.tokenizer import TOKENIZERS, Tokenizer

LETTERS = b"abcdefghijklmnopqr \n"


def chars() -> Tokenizer:
    cls = TOKENIZERS["char"]
    return cls.train(cls.Config.parse({"name": "char"}), [LETTERS])


def neural(cell: Any = "lstm", width: int = 24, size: int | None = None, seed: int = 1) -> LanguageModel:
    """A model whose distributions are far from uniform."""
    torch.manual_seed(seed)
    config = ModelConfig.parse({"width": width, "layers": 2, "cell": cell})
    model = LanguageModel(config, size or chars().vocab_size)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.4 * torch.randn_like(parameter))
    return model


def predictors(cell: Any = "lstm", **options: Any) -> tuple[Predictor, Predictor]:
    """One that reads token by token, where it can be had, and one for windows."""
    model = neural(cell, **options)
    reader = NeuralPredictor(model, chars().start_id)
    return (reader if why_no_library() else PackedPredictor(model, chars().start_id)), reader


def served(name: str = "tiny", cell: Any = "lstm", threads: int = 2, **options: Any) -> Served:
    writer, reader = predictors(cell, **options)
    return Served(name, chars(), writer, reader, StateForm(f"{name}@000000000001", writer), threads)


def counted(name: str = "counts", threads: int = 2) -> Served:
    tok = chars()
    ids = torch.randint(0, tok.vocab_size, (500,), generator=torch.Generator().manual_seed(2))
    config = KneserNeyConfig.parse({"order": 3})
    model = KneserNeyPredictor(estimate_kneser_ney((ids * ids % 7).numpy(), tok.vocab_size, tok.start_id, config))
    return Served(name, tok, model, model, StateForm(f"{name}@000000000002", model), threads)


def completion(model: Served, prompt: str = "", **options: Any) -> Completion:
    """A job: seed, temperature... are options, and those of Completion."""
    known = {name: options.pop(name) for name in list(options) if name in SamplerConfig.model_fields}
    given: dict[str, Any] = {"samples": 1, "max_tokens": 12, "measure": None, "before": model.begun, "deadline": 1e18}
    given |= options
    before, deadline = given.pop("before"), given.pop("deadline")
    ids = model.tokenizer.encode(prompt)
    return Completion(model, before, deadline, ids, given.pop("measure"), sampler=SamplerConfig.parse(known), **given)


async def texts(engine: Engine, job: Completion) -> list[str]:
    """The texts of a job."""
    found = [""] * job.samples
    async for events in engine.submit(job).events():
        for event in events:
            if isinstance(event, Wrote):
                found[event.sample] += event.text
    return found


def with_engine(models: Sequence[Served], work: Callable[[Engine], Awaitable[Any]], **options: Any) -> Any:
    """Run something beside an engine."""

    async def run() -> Any:
        engine = Engine(models, **{"threads": 2, **options})
        engine.start()
        try:
            return await work(engine)
        finally:
            engine.stop()

    return asyncio.run(run())
