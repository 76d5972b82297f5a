"""Beginning a study: space, recipe and text are frozen, so that every worker makes the same of a trial."""

import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from unrolled.compare.check import check_folder
from unrolled.compare.claims import Claims
from unrolled.compare.resolve import Sized, settled, sized, tokens_of
from unrolled.compare.sealed import difference, read_sealed, utc_now, write_sealed
from unrolled.compare.texts import Text, read_text
from unrolled.compare.tune.forms import sound_result
from unrolled.compare.tune.halving import place_rungs
from unrolled.compare.tune.settings import Settings, changed, check_space, own_settings, own_start
from unrolled.compare.tune.space import SpaceConfig, find_space, flat, read_space
from unrolled.core.config import read_toml
from unrolled.core.errors import UsageError
from unrolled.core.files import atomic_write, read_json
from unrolled.core.record import environment
from unrolled.tasks.lm_size import lm_of
from unrolled.train import ExperimentConfig
from unrolled.train.recipes import load_experiment

__all__ = ["LOCK", "SPACE", "Study", "begin", "begun", "default_folder", "open_study"]

SPACE, LOCK = "space.toml", "space.lock.json"
_KIND, _VERSION = "unrolled study lock", 1
_FROM_ANOTHER = 5


class Study(NamedTuple):
    """A study that has begun.

    Attributes:
        config: of the recipe, complete, without the seed and budget of trials. starts: settings of the first trials,
            of which the recipe's own are the first. checks, validations: see :func:`place_rungs`; none: the recipe's.
        name: of the sampler's memory. storage: where that is, ``journal`` or ``database``. begun: UTC.
    """

    folder: Path
    space: SpaceConfig
    config: dict[str, Any]
    text: Text
    starts: tuple[Settings, ...]
    checks: tuple[int, ...]
    name: str
    storage: str
    begun: str
    sha256: str

    def sized(self, settings: Settings) -> Sized:
        """The configuration of a trial, with the parameters matched anew; its budget is a placeholder.

        Raises:
            UsageError: settings that go together with none, or a model that cannot be so small.
        """
        config = ExperimentConfig.parse(changed(self.config, settings))
        return sized(settled(config, self.text), lm_of(self.text.vocabulary), self.space.parameters)

    def tokens(self, size: Sized, seconds_per_token: float | None) -> int:
        """Of a whole trial. seconds_per_token: CPU seconds of the recipe, for a budget in these."""
        tokens = tokens_of(self.space.trial, size)
        if tokens is None:
            assert self.space.trial.cpu_seconds is not None
            assert seconds_per_token is not None
            tokens = int(self.space.trial.cpu_seconds / seconds_per_token)
        return max(size.tokens_per_step, tokens)

    def experiment(self, settings: Settings, seed: int, seconds_per_token: float | None) -> ExperimentConfig:
        """The whole configuration of a run.

        Raises:
            UsageError: see :meth:`sized`; a budget of fewer steps than validations, among which are the rungs.
        """
        size = self.sized(settings)
        tokens = self.tokens(size, seconds_per_token)
        values = size.config.model_dump(mode="json")
        if self.checks and tokens // size.tokens_per_step < values["train"]["validations"]:
            raise UsageError(
                f"a trial of {tokens:,} tokens has fewer steps than its {values['train']['validations']} validations, "
                "on which the rungs lie; raise trial, or set other rungs."
            )
        values["train"] = {**values["train"], "steps": None, "tokens": tokens}
        return ExperimentConfig.parse({**values, "seed": seed})

    def recipe(self, settings: Settings, seed: int, seconds_per_token: float | None) -> ExperimentConfig:
        """The same as a recipe of its own, which opens all splits and scores the end as the first recipe did."""
        config = self.experiment(settings, seed, seconds_per_token)
        corpus = config.corpus.model_copy(update={"splits": self.config["corpus"].get("splits")})
        train = config.train.model_copy(update={"final_eval": self.config["train"]["final_eval"]})
        return config.model_copy(update={"corpus": corpus, "train": train})


def default_folder(space: str) -> Path:
    """Where a study is that is given no folder."""
    return Path("studies") / Path(space).stem


def begin(path: Path, out: Path, settings: Iterable[str] = (), database: bool = False) -> Study:
    """Freeze a space in a new folder; nothing is trained.

    Args:
        path: of the space. settings: ``a.b=value`` applied on top of it. database: the sampler's memory is one.
    Raises:
        UsageError: whatever is wrong with space, recipe or text, in one sentence; a folder that holds a study already.
    """
    settings = tuple(settings)
    if (out / LOCK).exists():
        raise UsageError(f"{out} holds a study already; go on with: unrolled tune run {out}.")
    space = read_space(path, settings)
    checks, count = place_rungs(space.rungs) if space.rungs else ((), None)
    further = [f"train.threads={space.threads}", "train.steps=1"] + ([f"train.validations={count}"] if count else [])
    config = load_experiment(space.recipe, [*space.settings, *further])
    if config.task.name != "lm":
        raise UsageError("a search is of language models; take a recipe whose task is lm.")
    config = config.model_copy(update={"published": (), "corpus": config.corpus.based()})
    values = config.model_dump(mode="json")
    check_space(space, values)
    own = own_settings(space, values)
    text = read_text(config.corpus.label, config)
    config.check_vocabulary(text.name, text.vocabulary)
    study = Study(
        out, space, values, text, tuple(_starts(space, values, own)), checks,
        f"{path.stem}-{secrets.token_hex(4)}", "database" if database else "journal", utc_now(), "",
    )  # fmt: skip
    size = study.sized(own)  # a fault of trial 0 is told now
    if tokens_of(space.trial, size) is not None:
        study.experiment(own, space.seed, None)
    check_folder(out)
    if (claim := Claims(out).take("begin")) is None:
        raise UsageError(f"another process begins a study in {out} at this moment; run it again in a second.")
    try:
        if not (out / LOCK).exists():
            _write(study, path, settings)
    finally:
        claim.release()
    return open_study(out)


def _write(study: Study, path: Path, settings: tuple[str, ...]) -> None:
    atomic_write(study.folder / SPACE, path.read_bytes())
    kept = {key: inner for key, inner in study._asdict().items() if key not in ("folder", "space", "text", "sha256")}
    write_sealed(study.folder / LOCK, {
        "kind": _KIND, "version": _VERSION, "code": environment(), "file": read_toml(path), "settings": list(settings),
        **kept, "space": study.space.model_dump(mode="json"), "text": study.text._asdict(),
        "starts": list(study.starts), "checks": list(study.checks),
    })  # fmt: skip


def _starts(space: SpaceConfig, config: dict[str, Any], own: Settings) -> list[Settings]:
    """The recipe's own settings, then the starts that the space names, each once."""
    starts = [own]
    for one in space.start:
        named = [one] if isinstance(one, dict) else _of_another(space, Path(one.removeprefix("study:")))
        for given in named:
            start = own_start(space, config, given)
            if start not in starts:
                starts.append(start)
    return starts


def _of_another(space: SpaceConfig, folder: Path) -> list[Settings]:
    """The best trials of another study, as far as the spaces meet."""
    other = open_study(folder)
    shared = [name for name in space.space if name in other.space.space]
    if not shared:
        raise UsageError(f"start: the study {folder} searched none of these settings; leave it out.")
    read = {path: read_json(path) for path in sorted((folder / "results").glob("trial.*.json"))}
    sound = [result for path, result in read.items() if sound_result(result, path.stem)]
    done = [result for result in sound if result["status"] == "finished"]
    done.sort(key=lambda result: (result["value"], result["number"]))
    return [
        {name: value for name, value in result["settings"].items() if name in shared and space.space[name].holds(value)}
        for result in done[:_FROM_ANOTHER]
    ]


def open_study(folder: Path) -> Study:
    """A study that has begun.

    Raises:
        UsageError: none, or its space.toml is another one than it began with. UnrolledError: a damaged lock.
    """
    if not (folder / LOCK).is_file():
        raise UsageError(f"{folder} is no study: it has no {LOCK}; begin one with: unrolled tune run SPACE.toml.")
    value = read_sealed(folder / LOCK, _KIND, _VERSION, "study")
    changed_at = difference(value["file"], read_toml(folder / SPACE))
    if changed_at:
        raise UsageError(
            f"{folder / SPACE} has changed since the study began ({changed_at}); put it back, or begin another study "
            "in another folder."
        )
    space = SpaceConfig.parse({**value["space"], "space": flat(value["space"]["space"])})
    return Study(
        folder, space, value["config"], Text(**value["text"]), tuple(value["starts"]), tuple(value["checks"]),
        value["name"], value["storage"], value["begun"], value["sha256"],
    )  # fmt: skip


def begun(space: str, out: Path | None = None, settings: Iterable[str] = (), database: bool = False) -> Study:
    """The study of a folder; or a space by name or path, whose study is begun where it has not been yet.

    Args:
        out: where; absent: ``studies/`` and the space's name. settings, database: see :func:`begin`.
    Raises:
        UsageError: no space and no study; settings or a folder for one that has begun.
    """
    folder = Path(space)
    if (folder / LOCK).exists() and out is None:
        out = folder
    elif folder.is_dir():
        raise UsageError(f"{folder} is {'a study already; leave out --out' if out else 'no study'}.")
    folder = out or default_folder(space)
    if not (folder / LOCK).exists():
        return begin(find_space(space), folder, settings, database)
    if tuple(settings):
        raise UsageError(f"{folder} has begun already, with its own settings; leave out --set.")
    return open_study(folder)
