"""Registering a plan: it is frozen, with everything that it resolves to, before anything is trained."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from unrolled.compare.contrast import ContrastConfig, RuleConfig
from unrolled.compare.plan import PlanConfig, read_plan
from unrolled.compare.resolve import Resolved, resolve
from unrolled.compare.sealed import canonical, check_sealed, difference, read_sealed, utc_now, write_sealed
from unrolled.compare.texts import Text
from unrolled.core.config import read_toml
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import atomic_write, make_folder
from unrolled.core.record import environment
from unrolled.train import ExperimentConfig

__all__ = [
    "LOCK",
    "PLAN",
    "Lock",
    "Locked",
    "amend",
    "is_lock",
    "open_lock",
    "register",
    "sealed_lock",
    "unsealed_lock",
]

PLAN, LOCK = "plan.toml", "plan.lock.json"
_KIND, _VERSION = "unrolled comparison lock", 1


class Locked(NamedTuple):
    """A system on a corpus, as it was registered; see :class:`unrolled.compare.resolve.Resolved`."""

    system: str
    corpus: str
    config: dict[str, Any]
    parameters: int
    width: int
    state: int
    flops_per_token: int
    tokens_per_step: int
    tokens: int | None
    search_tokens: int | None
    steps: int | None
    search_steps: int | None
    text: Text

    def experiment(self) -> ExperimentConfig:
        """Its configuration, without seed and budget."""
        return ExperimentConfig.parse(self.config)


class Lock(NamedTuple):
    """A registered plan.

    Attributes:
        plan: with the seeds of its amendments. sha256: of everything that was locked, amendments included.
        registered: UTC. settings: those that were applied on top of the file. code: where it was registered.
    """

    folder: Path
    plan: PlanConfig
    systems: tuple[Locked, ...]
    amendments: tuple[dict[str, str], ...]
    registered: str
    settings: tuple[str, ...]
    code: dict[str, Any]
    sha256: str

    def locked(self, system: str, corpus: str) -> Locked:
        """A system on a corpus."""
        found = self.find(system, corpus)
        assert found is not None
        return found

    def find(self, system: str, corpus: str) -> Locked | None:
        """A system on a corpus; None where the plan has none of that name."""
        return next((one for one in self.systems if (one.system, one.corpus) == (system, corpus)), None)

    @property
    def corpora(self) -> tuple[str, ...]:
        """In the order of the plan."""
        return tuple(dict.fromkeys(one.corpus for one in self.systems))

    @property
    def contrasts(self) -> tuple[ContrastConfig, ...]:
        return self.plan.contrast

    @property
    def rules(self) -> tuple[RuleConfig, ...]:
        return self.plan.rule


def _value(
    plan: PlanConfig, systems: Iterable[Resolved], settings: Iterable[str], file: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "kind": _KIND,
        "version": _VERSION,
        "registered_utc": utc_now(),
        "code": environment(),
        "file": dict(file),
        "settings": list(settings),
        "plan": plan.model_dump(mode="json"),
        "systems": [
            {
                **one._asdict(),
                "text": one.text._asdict(),
                "config": one.config.model_dump(mode="json"),
            }
            for one in systems
        ],
        "amendments": [],
    }


def register(path: Path, out: Path, settings: Iterable[str] = ()) -> Lock:
    """Freeze a plan in a new folder; nothing is trained.

    Args:
        path: of the plan. settings: ``a.b=value`` applied on top of it.
    Raises:
        UsageError: a wrong plan, or a folder that holds a comparison already.
    """
    settings = tuple(settings)
    if (out / LOCK).exists():
        raise UsageError(f"{out} holds a registered plan already; go on with: unrolled compare run {out}.")
    plan = read_plan(path, settings)
    value = _value(plan, resolve(plan), settings, read_toml(path))
    make_folder(out)
    atomic_write(out / PLAN, path.read_bytes())
    write_sealed(out / LOCK, value)
    return open_lock(out)


def _read(folder: Path) -> dict[str, Any]:
    if not (folder / LOCK).is_file():
        raise UsageError(f"{folder} is no comparison: it has no {LOCK}; make one with: unrolled compare register PLAN.")
    return read_sealed(folder / LOCK, _KIND, _VERSION, "registered plan")


def open_lock(folder: Path) -> Lock:
    """A registered plan.

    Raises:
        UsageError: no comparison; its plan.toml is another one than was registered. UnrolledError: a damaged lock.
    """
    value = _read(folder)
    changed = _changed(folder, value)
    if changed:
        raise UsageError(
            f"{folder / PLAN} has changed since it was registered ({changed}); put it back, or say: unrolled compare "
            f'register {folder / PLAN} --out {folder} --amend "why".'
        )
    return _lock_of(folder, value, folder / LOCK)


def _lock_of(folder: Path, value: Mapping[str, Any], source: Path) -> Lock:
    try:
        plan = PlanConfig.parse(value["plan"])
        systems = [Locked(**{**one, "text": Text(**one["text"])}) for one in value["systems"]]
        return Lock(
            folder, plan, tuple(systems), tuple(value["amendments"]), value["registered_utc"], tuple(value["settings"]),
            value["code"], value["sha256"],
        )  # fmt: skip
    except (KeyError, TypeError, UsageError) as error:
        raise UnrolledError(f"the plan in {source} is of another release of unrolled; use that one.") from error


def sealed_lock(lock: Lock) -> dict[str, Any]:
    """A registered plan as its file holds it, checksum included."""
    return _read(lock.folder)


def unsealed_lock(value: Any, source: Path) -> Lock:
    """A registered plan out of a file with other things in it, which has no folder of its own.

    Args:
        value: what :func:`sealed_lock` gave. source: of it, for sentences.
    Raises:
        UnrolledError: it is damaged, was edited, or is of another release.
    """
    return _lock_of(source.parent, check_sealed(value, source, _KIND, _VERSION, "registered plan"), source)


def is_lock(value: Any) -> bool:
    """Whether a value says that it is a registered plan."""
    return isinstance(value, dict) and value.get("kind") == _KIND


def _changed(folder: Path, value: Mapping[str, Any]) -> str:
    """What of the plan's file is another than was registered; empty where nothing is."""
    if not (folder / PLAN).exists():
        raise UsageError(f"{folder / PLAN} is missing; bring the registered plan back.")
    return difference(value["file"], read_toml(folder / PLAN))


def amend(folder: Path, what: str, reason: str, plan_file: Path | None = None, seeds: Iterable[int] = ()) -> Lock:
    """Change a registered plan, in the open: more seeds, or an edited ``plan.toml``.

    Runs whose configuration changed count as new ones; those of unchanged systems are kept.

    Args:
        what, reason: for the report. plan_file: of the edited plan; absent: the registered one.
        seeds: further ones.
    Raises:
        UsageError: nothing would change, or a wrong plan.
    """
    value = _read(folder)
    if plan_file is not None:
        edited = read_plan(plan_file, value["settings"])
        what = what or difference(value["file"], read_toml(plan_file))
        if not what:
            raise UsageError(f"{plan_file} is as it was registered; edit it first.")
        added = [seed for seed in value["plan"]["seeds"] if seed not in edited.seeds and _was_added(value, seed)]
        plan = PlanConfig.parse({**edited.model_dump(mode="json"), "seeds": [*edited.seeds, *added]})
        fresh = _value(plan, resolve(plan), value["settings"], read_toml(plan_file))
        if plan_file.resolve() != (folder / PLAN).resolve():
            atomic_write(folder / PLAN, plan_file.read_bytes())
        value = {**fresh, "registered_utc": value["registered_utc"], "amendments": value["amendments"]}
    else:
        old = value["plan"]["seeds"]
        more = [seed for seed in seeds if seed not in old]
        if not more:
            raise UsageError(f"the plan has these seeds already ({', '.join(map(str, old))}); give others.")
        plan = PlanConfig.parse({**value["plan"], "seeds": [*old, *more]})
        value["plan"] = plan.model_dump(mode="json")
    entry = {"utc": utc_now(), "what": what, "reason": reason, "sha256": _sha256_of_plan(value)}
    value["amendments"] = [*value["amendments"], entry]
    write_sealed(folder / LOCK, value)
    return open_lock(folder)


def _was_added(value: Mapping[str, Any], seed: int) -> bool:
    return seed not in value["file"].get("seeds", ())


def _sha256_of_plan(value: Mapping[str, Any]) -> str:
    """Of the plan alone, so that an amendment names what it amended."""
    return hashlib.sha256(canonical(value["plan"])).hexdigest()
