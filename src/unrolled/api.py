"""The Python interface; the command line is a thin layer over the same functions."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unrolled.compare import Claims, Comparison, work
from unrolled.compare.comparison import begun
from unrolled.compare.tune.lock import begun as begun_study
from unrolled.compare.tune.memory import check_storage
from unrolled.compare.tune.tuning import Tuning, wanted
from unrolled.compare.tune.worker import faults as study_faults
from unrolled.compare.tune.worker import work as work_on_study
from unrolled.compare.tune.worker import work_many as work_on_study_many
from unrolled.compare.worker import faults, work_many
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.extras import require
from unrolled.data import CorpusConfig, corpus_named
from unrolled.data.walk import Progress
from unrolled.evaluate import EvalConfig, EvalResult, evaluate_run, open_predictor
from unrolled.generate import Generation, SamplerConfig
from unrolled.generate import generate as _generate
from unrolled.model import LanguageModel
from unrolled.predict import ADAPTERS, PredictorConfig
from unrolled.runs import Run
from unrolled.serve.export import export_run
from unrolled.serve.hf.read import from_hugging_face
from unrolled.tasks.measure import evaluate_task
from unrolled.train import Clock, ExperimentConfig, Reporter
from unrolled.train import train as _train
from unrolled.train.recipes import load_experiment
from unrolled.train.start import free_folder

__all__ = [
    "compare",
    "evaluate",
    "experiment",
    "from_hugging_face",
    "generate",
    "load",
    "serve",
    "to_hugging_face",
    "train",
    "tune",
]

if TYPE_CHECKING:
    from unrolled.serve.config import ServeConfig

PathLike = str | os.PathLike[str]


def experiment(
    recipe: str | None = None, settings: Iterable[str] = (), corpus: CorpusConfig | str | None = None
) -> ExperimentConfig:
    """The configuration of a recipe with ``a.b=value`` settings applied.

    Args:
        recipe: name of a shipped recipe or path of a TOML file; absent: the default.
        corpus: in place of the recipe's: its config, a known name, or the path of your own text, which the recipe's
            tokenizer reads; a known corpus has a tokenizer of its own, unless a setting chooses one.
    Raises:
        UsageError: unknown recipe, key or value, in one sentence.
    """
    return load_experiment(recipe, settings, corpus_named(corpus) if isinstance(corpus, str) else corpus)


def train(
    config: ExperimentConfig | Mapping[str, Any] | None = None,
    out: PathLike | None = None,
    device: str = "auto",
    report: Reporter | None = None,
    clock: Clock | None = None,
) -> Path:
    """Train a model.

    Args:
        config: see :func:`experiment`; absent: the default recipe.
        out: the run directory; absent: the first of ``runs/run-1``, ``runs/run-2``... that is free.
        device, report, clock: see :func:`unrolled.train.train`.
    Returns:
        the run directory.
    """
    if config is None:
        config = experiment()
    elif isinstance(config, Mapping):
        config = ExperimentConfig.parse(config)
    return _train(config, free_folder("run") if out is None else out, device, report, clock)


def compare(
    plan: PathLike,
    out: PathLike | None = None,
    settings: Iterable[str] = (),
    workers: int = 1,
    minutes: float | None = None,
    device: str = "auto",
) -> Comparison:
    """Run a plan as far as can be, and say what was found; a folder that was begun is gone on with.

    Args:
        plan: the name of a shipped plan, the path of one, or the folder of a registered one.
        out: where a plan is registered; absent: ``comparisons/`` and the plan's name.
        settings: of a plan that is registered now, such as ``match.budget.tokens=2000000``.
        workers: processes; one is this one. minutes: no job is begun after so many.
    Raises:
        UsageError, UnrolledError: in one sentence, whatever went wrong; what is done stays done.
    """
    lock = begun(str(plan), None if out is None else Path(out), settings)
    folder = lock.folder
    if workers > 1:
        arguments = ["--device", device] + ([] if minutes is None else ["--minutes", str(minutes)])
        code = work_many(folder, workers, arguments, lock.plan.threads, lambda text: None)
    else:
        code = 0
        work(folder, minutes=minutes, device=device)
    comparison = Comparison(folder)
    if stuck := faults(comparison.board, Claims(folder)):
        raise UnrolledError(stuck[0])
    if code and not comparison.complete:
        raise UnrolledError(
            f"a worker of {folder} ended with code {code}; mend what it said, and go on by the same call."
        )
    return comparison


def tune(
    space: PathLike,
    out: PathLike | None = None,
    settings: Iterable[str] = (),
    trials: int | None = None,
    cpu_hours: float | None = None,
    workers: int = 1,
    storage: str | None = None,
    device: str = "auto",
) -> Tuning:
    """Search settings as far as the limit says, and confirm the best; a study that was begun is gone on with.

    Args:
        space: the name of a shipped space, the path of one, or the folder of a study.
        out: folder of a study that is begun; absent: ``studies/`` and the space's name.
        settings: of a space whose study is begun now, such as ``trial.tokens=1000000``.
        trials, cpu_hours: in all, one of the two; absent: 60 trials.
        workers: processes; one is this one. storage: URL of a PostgreSQL database for the sampler's memory.
    Returns:
        the study, with ``best`` and ``trials``.
    Raises:
        UsageError, UnrolledError: in one sentence, whatever went wrong; what is done stays done.
    """
    check_storage(storage)
    limit = wanted(trials, cpu_hours)
    study = begun_study(str(space), None if out is None else Path(out), settings, storage is not None)
    if workers > 1:
        work_on_study_many(study.folder, workers, limit, storage, device, study.space.threads, lambda text: None)
    else:
        work_on_study(study.folder, limit, storage, device)
    tuning = Tuning(study.folder)
    if stuck := study_faults(tuning.board, Claims(study.folder), limit):
        raise UnrolledError(stuck[0])
    return tuning


def load(run: PathLike, device: str = "auto") -> LanguageModel:
    """The model of a run, in evaluation mode."""
    return Run(run, device).model


def _opened(run: Run | PathLike, device: str) -> Run:
    return run if isinstance(run, Run) else Run(run, device)


def evaluate(
    run: Run | PathLike,
    corpus: CorpusConfig | str | None = None,
    device: str = "auto",
    per_token: PathLike | None = None,
    dtype: str = "float32",
    progress: Progress | None = None,
    search: Sequence[str] = (),
    search_tokens: int | None = None,
    predict: PredictorConfig | Mapping[str, Any] | None = None,
    **options: Any,
) -> EvalResult:
    """Measure a run on a corpus.

    Args:
        run: a run directory, or an opened :class:`Run` (which may have its own backend, precision and weights).
        corpus: its config, a known name, or the path of your own text; absent: the run's own.
        per_token: file for token ids and log-probabilities.
        dtype: of the arithmetic, float32 or float64.
        progress: hears of every window.
        search, search_tokens: settings to choose on the validation split, see :func:`evaluate_run`.
        predict: what is done at test time, such as ``{"dynamic": "krause", "cache": {"length": 500}}``.
        options: fields of :class:`EvalConfig` (split, window, columns, first, reset, limit), and what is done at test
            time by name, such as ``dynamic="krause"`` or ``cache={"length": 500}``.
    Returns:
        the record; for a run whose task is no language model a :class:`unrolled.task.TaskResult`, where ``split`` and
        ``limit`` are the options.
    Raises:
        UsageError: no run, unknown corpus, split or option. UnrolledError: damaged files.
    """
    opened = _opened(run, device)
    if not (opened.task_class.language and opened.task_class.reads_text):
        if others := [key for key in options if key not in ("split", "limit")]:
            raise UsageError(f"{opened.path} is {opened.task_class.noun}, measured by its own figures: no {others[0]}.")
        return evaluate_task(opened, corpus, advance=progress, **options)
    named = {key: options.pop(key) for key in ADAPTERS if key in options}
    return evaluate_run(
        opened, corpus, EvalConfig.parse(options), _test_time(predict, named), search,
        search_tokens, per_token, dtype, progress,
    )  # fmt: skip


def _test_time(predict: PredictorConfig | Mapping[str, Any] | None, named: Mapping[str, Any]) -> PredictorConfig:
    """Both ways to say what is done at test time, as one."""
    given = {"adapters": predict.adapters} if isinstance(predict, PredictorConfig) else predict
    return PredictorConfig.parse({**(given or {}), **named})


def generate(
    run: Run | PathLike,
    prompts: str | Sequence[str] = "",
    tokens: int = 200,
    stop: Sequence[str] = (),
    samples: int = 1,
    device: str = "auto",
    quantize: str | None = None,
    predict: PredictorConfig | Mapping[str, Any] | None = None,
    **options: Any,
) -> list[Generation]:
    """Continue prompts.

    Args:
        run: a run directory, or an opened :class:`Run`.
        quantize: weights in fewer bits: bf16 or int8. predict: what else is done at test time, see :func:`evaluate`.
        options: fields of :class:`SamplerConfig`: temperature, top_k, top_p, min_p, seed.
    Raises:
        UsageError: no run, unknown option, a prompt that the tokenizer cannot read.
    """
    sampler, opened = SamplerConfig.parse(options), _opened(run, device)
    prompts = (prompts,) if isinstance(prompts, str) else prompts
    with open_predictor(opened, _test_time(predict, {"quantize": quantize}), stepwise=True) as predictor:
        return _generate(predictor, opened.tokenizer, prompts, tokens, sampler, stop, samples)


def to_hugging_face(run: Run | PathLike, out: PathLike, remote_code: bool = False) -> Path:
    """Write a run as a folder that transformers reads, see ``unrolled export --to huggingface``.

    Args:
        run: a run directory, or an opened :class:`Run`. out: the folder, which must not exist.
        remote_code: whether the folder says by itself which classes read it (``trust_remote_code=True``).
    Returns:
        ``out``.
    Raises:
        UsageError, UnrolledError: no neural language model; a folder that exists; transformers is not installed.
    """
    export_run(_opened(run, "cpu"), Path(out), "huggingface", {"remote_code": remote_code})
    return Path(out)


def serve(
    runs: PathLike | Sequence[PathLike],
    config: "ServeConfig | Mapping[str, Any] | None" = None,
    mixtures: Mapping[str, Mapping[str, float]] | None = None,
    listening: Callable[[str, int, Callable[[], None]], None] = lambda host, port, stop: None,
) -> None:
    """Serve runs over HTTP until a signal ends it; needs the extra ``serve``.

    Args:
        runs: run directories, each a model under the folder's name.
        config: see :class:`unrolled.serve.config.ServeConfig`.
        mixtures: name -> names of runs -> weights, each one more model.
        listening: called once with address, port, and what any thread may call to end the server as a signal would.
    """
    require("serve", "fastapi", "uvicorn", "httptools", "prometheus_client")
    from unrolled.serve.config import ServeConfig
    from unrolled.serve.run import serve_runs

    paths = [runs] if isinstance(runs, str | os.PathLike) else list(runs)
    found = config if isinstance(config, ServeConfig) else ServeConfig.parse(config or {})
    serve_runs([Path(one) for one in paths], found, mixtures, listening=listening)
