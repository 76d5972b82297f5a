"""Recipes: TOML files that state a whole experiment."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from unrolled.core.config import apply_settings, parse_setting, read_toml
from unrolled.core.errors import UsageError
from unrolled.core.notes import note
from unrolled.core.registry import unknown_name
from unrolled.data import CorpusConfig
from unrolled.data.table import CORPORA
from unrolled.task import TASKS
from unrolled.train.config import BUDGETS, ExperimentConfig

__all__ = ["DEFAULT", "find_recipe", "list_recipes", "load_experiment", "recipes_folder"]

DEFAULT = "default"
# Parts of a recipe that a task reads or not, and the parts that always belong to one.
_OF_A_TASK = ("model", "stream", "train", "tokenizer", "weights", "task", "counts")
_OF_ANY_TEXT = ("fractions", "reset", "reading")


def recipes_folder() -> Path:
    """Beside the package in an installed wheel, at the top of the source tree otherwise."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parents[1] / "recipes"


def list_recipes() -> dict[str, str]:
    """Name -> title of every shipped recipe."""
    return {path.stem: str(read_toml(path).get("title", "")) for path in sorted(recipes_folder().glob("*.toml"))}


def find_recipe(name: str) -> Path:
    """The file of a shipped recipe, or of one given by its path.

    Raises:
        UsageError: neither; names the nearest recipe.
    """
    if name.endswith(".toml") or "/" in name:
        if not Path(name).is_file():
            raise UsageError(f"there is no recipe file {name}; shipped recipes: {', '.join(list_recipes())}.")
        return Path(name)
    path = recipes_folder() / f"{name}.toml"
    if not path.is_file():
        raise unknown_name("recipe", name, list_recipes())
    return path


def _kept(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a recipe says of how its text is cut and read, which holds for another text too."""
    corpus = values.get("corpus")
    return {key: corpus[key] for key in _OF_ANY_TEXT if key in corpus} if isinstance(corpus, Mapping) else {}


def _tokenizer(values: Mapping[str, Any]) -> Any:
    """The tokenizer of a recipe: its own, else that of its corpus; None where neither is known."""
    corpus = values.get("corpus")
    name = corpus.get("name") if isinstance(corpus, Mapping) else None
    spec = CORPORA.get(name or CorpusConfig().label)
    return values.get("tokenizer") or (spec.tokenizer if spec else None)


def _for_task(values: Mapping[str, Any], settings: Iterable[str], given: bool) -> dict[str, Any]:
    """A recipe without the parts that belong to its own task, where a setting chooses another one.

    Args:
        given: whether the corpus is not the recipe's.
    """
    own = values.get("task", "counts" if "counts" in values else "lm")
    own, wanted = own.get("name") if isinstance(own, Mapping) else own, None
    for path, value in map(parse_setting, settings):
        if path in (["task"], ["task", "name"]):
            wanted = value.get("name") if isinstance(value, Mapping) else value
    if wanted in (None, own) or str(wanted) not in TASKS:
        return dict(values)
    reads = TASKS[str(wanted)].reads
    left = [key for key in _OF_A_TASK if key in values and key not in reads]
    if "corpus" in values and not given and not TASKS[str(wanted)].reads_text:
        left.append("corpus")
    if left:
        note(f"task: {wanted} takes the place of {own}, whose {', '.join(left)} are left out")
    return {key: value for key, value in values.items() if key not in (*left, "vocabulary", "published")}


def load_experiment(
    recipe: str | None = None, settings: Iterable[str] = (), corpus: CorpusConfig | None = None
) -> ExperimentConfig:
    """The configuration of a recipe (absent: the default one) with ``a.b=value`` settings applied.

    A budget that is set takes the place of the recipe's whole plan, its further phases (``then``) too; another corpus
    or tokenizer takes that of its vocabulary size and published figures.

    Args:
        corpus: in place of the recipe's. A text of your own is read by the recipe's tokenizer, with the fractions,
            reset and reading that the recipe states; a corpus of the table has conventions of its own, a built one its
            tokenizer.
    """
    values: dict[str, Any] = read_toml(find_recipe(recipe or DEFAULT))
    settings = list(settings)
    if corpus is not None:
        tokenizer = _tokenizer(values) if corpus.own and not corpus.built else None
        kept = _kept(values) if corpus.own and not corpus.built else {}
        values = {**values, "corpus": kept | corpus.model_dump(mode="json", exclude_none=True, exclude_defaults=True)}
        values.pop("tokenizer", None)
        if tokenizer is not None:
            values["tokenizer"] = tokenizer
    if corpus is not None or any(s.strip().startswith(("corpus.", "tokenizer.")) for s in settings):
        values = {key: value for key, value in values.items() if key not in ("vocabulary", "published")}
    given = corpus is not None or any(s.strip().startswith("corpus.") for s in settings)
    values = _for_task(values, settings, given)
    chosen = {s.partition("=")[0].strip() for s in settings} & {f"train.{name}" for name in BUDGETS}
    if chosen and isinstance(values.get("train"), dict):
        if values["train"].get("then"):
            note(f"the recipe's later phases are left out, since {min(chosen)} is set; train.then gives others")
        values["train"] = {k: v for k, v in values["train"].items() if k not in (*BUDGETS, "then")}
    return ExperimentConfig.parse(apply_settings(values, settings))
