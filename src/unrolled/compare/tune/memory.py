"""The sampler's memory: what it was asked for, and told. Who lives and what is done is said by files alone."""

import contextlib
import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from unrolled.compare.tune.board import Board, Trial
from unrolled.compare.tune.settings import Settings, active, in_order
from unrolled.compare.tune.space import DimensionConfig
from unrolled.core.errors import UnrolledError, UsageError

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

__all__ = ["JOURNAL", "Memory", "check_storage", "open_memory"]

JOURNAL = "optuna.journal"
_POSTGRESQL = "postgresql+psycopg://"


def _optuna() -> Any:
    """The library. Raises UnrolledError where it, an extra, is not installed."""
    try:
        optuna = importlib.import_module("optuna")
    except ImportError as error:
        raise UnrolledError('a search needs optuna; install it with: pip install "unrolled[tune]".') from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def check_storage(url: str | None) -> None:
    """Raises UsageError for a place that the memory cannot be kept in."""
    if url is None or url.startswith(_POSTGRESQL):
        return
    scheme = url.partition(":")[0]
    if scheme.startswith("sqlite"):
        raise UsageError(
            "--storage does not take SQLite: with several workers its file locks, and one that waits too long dies of "
            "it; leave --storage out for a journal file, or name a PostgreSQL database."
        )
    if scheme.startswith("postgres"):
        raise UsageError(
            f"--storage takes {_POSTGRESQL}USER@HOST/DATABASE, with psycopg as its driver, not {scheme}://."
        )
    raise UsageError(f"--storage takes a PostgreSQL database, {_POSTGRESQL}USER@HOST/DATABASE; or leave it out.")


def open_memory(board: Board, url: str | None) -> "Memory":
    """The memory of a study: a journal in its folder, or a database.

    Args:
        url: of the database that the study began with.
    Raises:
        UsageError: a study that began otherwise. UnrolledError: a missing extra; a database that cannot be reached.
    """
    check_storage(url)
    if (board.study.storage == "database") != (url is not None):
        said = "with --storage; give the URL of the same database" if url is None else "without --storage; leave it out"
        raise UsageError(f"{board.folder} began {said}.")
    library = _optuna()
    if url is None:
        journal = importlib.import_module("unrolled.compare.tune.journal")
        backend = journal.open_journal(board.folder / JOURNAL)
        return Memory(board, library, library.storages.JournalStorage(backend))
    try:
        return Memory(board, library, library.storages.RDBStorage(url, engine_kwargs={"pool_pre_ping": True}))
    except ImportError as error:
        raise UnrolledError(
            'a PostgreSQL database needs psycopg; install it with: pip install "unrolled[db]".'
        ) from error
    except Exception as error:
        raise UnrolledError(_unreachable(error)) from error


def _unreachable(error: Exception) -> str:
    said = " ".join(str(getattr(error, "orig", None) or error).split())
    return (
        f"the database of the study cannot be used ({said[:200].rstrip('.')}); start it, or mend the URL, and run on."
    )


class Memory:
    """A study of Optuna's, asked and told.

    Args:
        board: of the study. library: Optuna. storage: where it keeps what it was told.
    """

    def __init__(self, board: Board, library: Any, storage: "optuna.storages.BaseStorage"):
        self._board, self._optuna, self._storage = board, library, storage
        self._lost: tuple[type[Exception], ...] = ()
        if board.study.storage == "database":
            sqlalchemy = importlib.import_module("sqlalchemy.exc")
            self._lost = (sqlalchemy.SQLAlchemyError, library.exceptions.StorageInternalError)
        space = board.study.space
        first = None if space.sampler == "random" else len(board.study.starts) + space.random
        sampler = importlib.import_module("unrolled.compare.tune.sampler").NumberedSampler(
            space.seed, first, space.random, self._known
        )
        try:  # to create it anew where it exists would leave a line of it in the journal for every worker
            self._study: optuna.Study = library.load_study(
                study_name=board.study.name, storage=storage, sampler=sampler
            )
        except KeyError:
            self._study = library.create_study(
                storage=storage, sampler=sampler, study_name=board.study.name, direction="minimize",
                load_if_exists=True,
            )  # fmt: skip
        self._order = in_order(space.space)

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        """What a database says where it cannot be reached is a sentence."""
        try:
            yield
        except self._lost as error:
            raise UnrolledError(_unreachable(error)) from error

    def close(self) -> None:
        """Let go of the database's connections."""
        self._storage.remove_session()
        if (engine := getattr(self._storage, "engine", None)) is not None:
            engine.dispose()

    def _known(self, number: int) -> Mapping[str, Any]:
        trial = self._board.trials().get(number)
        return {} if trial is None else trial.settings

    def _trials(self) -> "list[FrozenTrial]":
        return self._study.get_trials(deepcopy=False)

    # -- asking ----------------------------------------------------------------------------------------------

    def ask(self) -> Trial:
        """A trial that nobody has been given, with its settings; only for one worker at a time.

        One that was asked for by a worker who died before it wrote that down is given now. Trials that the files know
        and the memory has lost, as from a journal that was mended, are entered again with the settings that they had.
        """
        with self._reaching():
            return self._asked()

    def _asked(self) -> Trial:
        state, board = self._optuna.trial.TrialState, self._board
        for start in board.study.starts[len(self._trials()) :]:
            self._study.enqueue_trial(start)
        self.tell_all()
        given = board.trials()
        for one in self._trials():
            if one.state == state.RUNNING and one.number in given:
                self._complete(one, given[one.number].settings)
        left = [one for one in self._trials() if one.state == state.RUNNING and one.number not in given]
        while True:
            trial = self._optuna.trial.Trial(self._study, left[0]._trial_id) if left else self._study.ask()
            settings = self._suggested(trial)
            if trial.number not in given:
                return Trial(trial.number, settings)
            if (result := board.results().get(trial.number)) is not None:
                self.tell(trial.number, result)

    def _suggested(self, trial: "optuna.Trial") -> Settings:
        study, found = self._board.study, Settings()
        for name in self._order:
            if active(study.space.space, name, study.config, found):
                found[name] = _suggest(trial, name, study.space.space[name])
        return found

    def _complete(self, trial: "FrozenTrial", settings: Settings) -> None:
        """Enter what the memory has lost of a trial's settings, as where a line of the journal was torn."""
        if trial.params.keys() != settings.keys():
            self._suggested(self._optuna.trial.Trial(self._study, trial._trial_id))

    # -- telling ---------------------------------------------------------------------------------------------

    def tell_all(self) -> list[str]:
        """Tell all results that the memory has not heard of; see :meth:`tell`."""
        state, results = self._optuna.trial.TrialState, self._board.results()
        with self._reaching():
            unheard = [one.number for one in self._trials() if one.state == state.RUNNING and one.number in results]
        return [said for number in unheard if (said := self.tell(number, results[number])) is not None]

    def tell(self, number: int, result: Mapping[str, Any]) -> str | None:
        """What came out of a trial.

        Returns:
            a sentence, where somebody else told another value before; None otherwise.
        """
        with self._reaching():
            return self._told(number, result)

    def _told(self, number: int, result: Mapping[str, Any]) -> str | None:
        trials, state = self._trials(), self._optuna.trial.TrialState
        if number >= len(trials):  # lost, and entered again when the next trial is asked for
            return None
        trial = trials[number]
        if not trial.state.is_finished():
            self._complete(trial, result["settings"])
            try:
                if result["status"] == "finished":
                    self._study.tell(number, result["value"])
                    return None
                if result["value"] is not None:
                    # the sampler ranks those that were stopped by how far they came, then by their loss there
                    self._storage.set_trial_intermediate_value(
                        trial._trial_id, round(1000 * result["share"]), result["value"]
                    )
                self._study.tell(number, state=state.PRUNED)
                return None
            except (ValueError, self._optuna.exceptions.UpdateFinishedTrialError):  # another worker was faster
                trial = self._trials()[number]
                if not trial.state.is_finished():
                    raise
        if trial.value == result["value"]:
            return None
        return (
            f"trial {number} came to {result['value']}, and somebody else had told {trial.value}; the first stands for "
            "the sampler, and the files say the second."
        )


def _suggest(trial: "optuna.Trial", name: str, dimension: DimensionConfig) -> Any:
    if dimension.values is not None:
        return trial.suggest_categorical(name, dimension.values)
    assert dimension.low is not None
    assert dimension.high is not None
    if dimension.integer:
        return trial.suggest_int(name, int(dimension.low), int(dimension.high), log=dimension.log)
    return trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)
