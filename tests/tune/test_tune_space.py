"""What a space may say, and what it is refused for."""

from pathlib import Path
from typing import Any

import pytest

from tune.spaces import SPACE, begun, write_space
from unrolled.compare.tune import begin, open_study, read_space
from unrolled.compare.tune.condition import parse_condition
from unrolled.compare.tune.halving import place_rungs
from unrolled.compare.tune.space import DimensionConfig, SpaceConfig
from unrolled.core.errors import UnrolledError, UsageError

LR = '"train.optimizer.lr" = {{ low = 1e-3, high = 5e-2, log = true }}'


def refusal(folder: Path, old: str, new: str) -> str:
    """Why a study of a changed space is not begun."""
    assert old in SPACE
    with pytest.raises(UsageError) as caught:
        begun(folder, SPACE.replace(old, new))
    assert not (folder / "out").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ('"train.optimizer.ls" = {{ low = 1, high = 2 }}', "unknown setting 'train.optimizer.ls'; did you mean"),
        ('"model.cell.rank" = {{ low = 1, high = 2 }}', "the recipe lacks it: unknown setting 'model.cell.rank'"),
        ('"train.tokens" = {{ low = 1, high = 2 }}', "train.tokens cannot be searched, since the losses"),
        ('"seed" = {{ values = [1, 2] }}', "seed cannot be searched"),
        ('"model.width" = {{ low = 1, high = 2 }}', "model.width is fitted to the parameters in every trial"),
        ('"train.optimizer.lr" = {{ low = 0, high = 1, log = true }}', "log = true needs low above zero, not 0"),
        ('"train.optimizer.lr" = {{ low = 2, high = 1 }}', "low = 2 is not below high = 1"),
        ('"train.optimizer.lr" = {{ low = 0.5, high = 1, integer = true }}', "integer = true needs whole numbers"),
        ('"train.optimizer.lr" = {{ values = [0.1] }}', "values are two or more, each once"),
        ('"train.optimizer.lr" = {{ values = [0.1, 1], low = 1 }}', "give values, or low and high"),
        ('"train.optimizer.lr" = {{ low = 1 }}', "give low and high, or values"),
        ('"train.optimizer.lr" = {{ low = 0.02, high = 0.5 }}', "lr = 0.01 is not among what is tried (0.02 to 0.5)"),
        ('"train.optimizer.lr" = {{ low = -1, high = 0.5 }}', "space train.optimizer.lr: -1.0 is refused: config key"),
        ('"model.dropout.input" = {{ low = 0, high = 1.5 }}', "space model.dropout.input: "),
        ('"stream.seed" = {{ low = 0, high = 1 }}', "the recipe lacks it: unknown setting 'stream.seed'; did you mean"),
        ('"model.dropout.output" = {{ low = 0, high = 1, when = "a ~ 1" }}', "when = 'a ~ 1' is no condition; write a"),
        (
            '"model.dropout.output" = {{ low = 0, high = 1, when = "model.embedding.size > 12" }}',
            "when = 'model.embedding.size > 12' never holds, since model.embedding.size is 4 to 12",
        ),
        (
            '"model.dropout.output" = {{ low = 0, high = 1, when = "model.layers > 1" }}',
            "never holds, since model.layers is 1; change it, or take model.dropout.output away",
        ),
        (
            '"model.dropout.output" = {{ low = 0, high = 1, when = "model.dropout.inptu == 0" }}',
            "unknown setting 'model.dropout.inptu'; did you mean 'model.dropout.input'?",
        ),
        (
            '"model.dropout.output" = {{ low = 0, high = 1, when = "model.dropout.state > 0" }}\n'
            '"model.dropout.state" = {{ low = 0, high = 1, when = "model.dropout.output > 0" }}',
            "the conditions of model.dropout.output and model.dropout.state ask for each other",
        ),
    ],
)  # fmt: skip
def test_spaces_that_are_refused(tmp_path: Path, new: str, said: str) -> None:
    kept = "" if 'model.dropout.input" =' in new else "\n"
    old = LR if kept else SPACE[SPACE.index('"model.dropout.input"') :].strip()
    assert said in refusal(tmp_path, old, new)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seeds = [11, 12]", "seeds = [1, 12]", "none is the trials' seed 1"),
        ("rungs = [0.25, 0.5]", "rungs = [0.5, 0.25]", "in rising order"),
        ("rungs = [0.25, 0.5]", "rungs = [0.5, 0.5001]", "rungs lie too close to each other"),
        ("tokens = 960", "tokens = 100", "a trial of 100 tokens has fewer steps than its 4 validations"),
        ("tokens = 960", "tokens = 960, steps = 3", "a budget is one of tokens, steps, flops or cpu_seconds"),
        ("parameters = 1500", "parameters = 10", "parameters"),
        ("random = 3", "random = 3\nsamples = 4", "unknown config key 'samples'"),
        ("random = 3", 'start = ["other"]', 'is neither a table of settings nor "study:DIR"'),
        ("random = 3", 'start = ["study:nowhere"]', "nowhere is no study: it has no space.lock.json"),
        ("random = 3", 'start = [{{ "train.clip" = 1 }}]', "start: unknown setting 'train.clip'"),
        (
            "random = 3", 'start = [{{ "train.optimizer.lr" = 1 }}]',
            "the start's train.optimizer.lr = 1 is not among what is tried",
        ),
        ("random = 3", 'settings = ["train.steps=5"]', "settings has train.steps, which a space says by trial, "),
        ("random = 3", 'settings = ["seed=5"]', "settings has seed, which a space says by trial, seed or threads;"),
        ("random = 3", 'settings = ["train.validations=5"]', "train.validations, which the rungs decide; remove it"),
        ("unrolled space", "unrolled plan", 'is no space: it does not say kind = "unrolled space"'),
    ],
)  # fmt: skip
def test_other_refusals(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert said in refusal(tmp_path, old, new)


def test_settings_of_the_recipe_given_for_those_of_the_space(tmp_path: Path) -> None:
    path = write_space(tmp_path)
    with pytest.raises(
        UsageError, match=r"train.steps is of the recipe, and --set is of a space; a space says that by"
    ):
        read_space(path, ["train.steps=5"])
    with pytest.raises(UsageError, match=r"model.layers is of the recipe.*; write it into the settings of a space"):
        read_space(path, ["model.layers=5"])
    assert read_space(path, ["trial.tokens=5", "seed=4", 'settings=["model.layers=2"]']).seed == 4


def test_a_setting_that_the_recipe_leaves_open(tmp_path: Path) -> None:
    text = SPACE.replace("[space]", '[space]\n"model.head.cap" = {{ low = 10, high = 50 }}')
    with pytest.raises(UsageError, match=r"the recipe leaves model.head.cap open.*set it, such as settings = "):
        begun(tmp_path, text)
    board = begun(tmp_path, text.replace("random = 3", 'random = 3\nsettings = ["model.head.cap=30"]'))
    assert board.study.starts[0]["model.head.cap"] == 30


def test_settings_of_another_cell_and_conditions(tmp_path: Path) -> None:
    text = SPACE.replace(
        "[space]",
        '[space]\n"model.cell.name" = {{ values = ["lstm", "mlstm"] }}\n'
        '"model.cell.factor" = {{ low = 4, high = 8, integer = true, when = "model.cell.name == mlstm" }}',
    ).replace("random = 3", 'start = [{{ "model.cell.name" = "mlstm", "model.cell.factor" = 5 }}]')
    study = begun(tmp_path, text).study
    assert "model.cell.factor" not in study.starts[0]
    assert study.starts[1]["model.cell.factor"] == 5
    sizes = [study.sized(start) for start in study.starts]
    assert [size.config.model.cell.name for size in sizes] == ["lstm", "mlstm"]  # type: ignore[union-attr]
    assert all(0.8 * 1500 < size.parameters <= 1500 for size in sizes), "both are matched"
    assert sizes[0].width != sizes[1].width
    with pytest.raises(UsageError, match=r"open, so that trial 0 has no value of it|unknown setting"):
        begun(tmp_path, text.replace('"model.cell.name" = "mlstm", ', '"model.cell.name" = "mlstm" }}, {{'), out="b")


def test_equal_starts_are_one(tmp_path: Path) -> None:
    starts = 'start = [{{ "train.optimizer.lr" = 0.01 }}, {{ "train.optimizer.lr" = 0.02 }}]'
    board = begun(tmp_path, SPACE.replace("random = 3", starts))
    assert [start["train.optimizer.lr"] for start in board.study.starts] == [0.01, 0.02]
    assert board.study.starts[1]["model.embedding.size"] == 8, "what a start does not say is the recipe's"


def test_names_without_quotes_are_the_same(tmp_path: Path) -> None:
    quoted = read_space(write_space(tmp_path))
    plain = read_space(
        write_space(tmp_path, SPACE.replace('"', "'").replace("'train.optimizer.lr'", "train.optimizer.lr"))
    )
    assert list(quoted.space) == list(plain.space)


def test_a_space_is_frozen(tmp_path: Path) -> None:
    board = begun(tmp_path)
    path = board.folder / "space.toml"
    path.write_text(path.read_text().replace("high = 5e-2", "high = 6e-2"))
    with pytest.raises(
        UsageError, match=r"space.toml has changed since the study began \(space.train.optimizer.lr.high\)"
    ):
        open_study(board.folder)
    with pytest.raises(UsageError, match="holds a study already; go on with: unrolled tune run"):
        begin(path, board.folder)
    lock = board.folder / "space.lock.json"
    lock.write_text(lock.read_text().replace('"seed": 1', '"seed": 2', 1))
    with pytest.raises(UnrolledError, match="was changed after it was registered"):
        open_study(board.folder)
    with pytest.raises(UsageError, match=r"is no study: it has no space.lock.json; begin one with: unrolled tune run"):
        open_study(tmp_path)


@pytest.mark.parametrize(
    ("budget", "tokens"),
    [({"tokens": 960}, 960), ({"steps": 7}, 7 * 48), ({"flops": 1e7}, None), ({"cpu_seconds": 2.0}, 200)],
)
def test_budgets_become_tokens(tmp_path: Path, budget: dict[str, Any], tokens: int | None) -> None:
    written = ", ".join(f"{key} = {value}" for key, value in budget.items())
    study = begun(tmp_path, SPACE.replace("tokens = 960", written).replace("[0.25, 0.5]", "[0.5]")).study
    size = study.sized(study.starts[0])
    found = study.tokens(size, seconds_per_token=0.01)
    assert found == (int(1e7 / (3 * size.flops_per_token)) if tokens is None else tokens)


@pytest.mark.parametrize(
    ("shares", "checks", "count"),
    [((0.11, 0.33), (1, 3), 9), ((0.5,), (1,), 2), ((0.25, 0.5), (1, 2), 4), ((0.1, 0.3), (1, 3), 10)],
)
def test_rungs_fall_on_validations(shares: tuple[float, ...], checks: tuple[int, ...], count: int) -> None:
    assert place_rungs(shares) == (checks, count)


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [
        ("a.b > 0", 1, True), ("a.b > 0", 0, False), ("a.b >= 0", 0, True), ("a.b < 2", 1, True),
        ("a.b <= 2", 3, False), ("a.b == lstm", "lstm", True), ("a.b != lstm", "lstm", False),
        ("a == true", True, True), ("a.b > 0", None, False), ("a.b > 0", "lstm", False),
    ],
)  # fmt: skip
def test_conditions(text: str, value: Any, holds: bool) -> None:
    assert parse_condition(text).holds(value) is holds


def test_what_a_dimension_holds() -> None:
    dimension = DimensionConfig(low=4, high=8, integer=True)
    assert [dimension.holds(value) for value in (4, 8, 5.0, 5.5, 9, True, "5", None)] == [True] * 3 + [False] * 5
    values = DimensionConfig(values=(1, "a", False))
    assert [values.holds(value) for value in (1, "a", False, True, 0, 2)] == [True, True, True, False, False, False]
    assert SpaceConfig.model_fields["random"].default == 15
