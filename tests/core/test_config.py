"""Configurations: frozen, described, versioned, and their errors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import Field, ValidationError

from core.shapes import BoxConfig, Outer
from unrolled.core.config import Config, apply_settings, parse_setting, read_toml
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import read_json, write_json


def test_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Outer().title = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"inner": {"rat": 0.5}}, "unknown config key 'inner.rat'; did you mean 'rate'?"),
        ({"tilte": "x"}, "unknown config key 'tilte'; did you mean 'title'?"),
        ({"steps": 3}, "unknown config key 'steps'; did you mean 'inner.steps'?"),
        ({"zzz": 1}, "unknown config key 'zzz'; known: inner, shape, title."),
        ({"inner": {"steps": "many"}}, "config key 'inner.steps': input should be a valid integer.*(got 'many')."),
        ({"inner": {"rate": 1}}, "config key 'inner.rate': input should be less than 1 (got 1)."),
        ({"inner": {"rate": float("nan")}}, "config key 'inner.rate':.*(got nan)."),
        ({"shape": "bal"}, "unknown shape 'bal'; did you mean 'ball'?"),
        ({"shape": {"radius": 2}}, "a shape needs the key 'name', one of: ball, box."),
        ({"shape": {"name": "ball", "radios": 2}}, "unknown config key 'shape.radios'; did you mean 'radius'?"),
        (
            {"shape": {"name": "ball", "radius": -2}},
            "config key 'shape.radius': input should be greater than 0 (got -2).",
        ),
        ({"shape": 3}, "config key 'shape': give the name of a shape, or a table with its 'name' and options (got 3)."),
    ],
    ids=str,
)
def test_errors_are_one_sentence(value: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        Outer.parse(value)
    said = str(caught.value)
    start, _, end = sentence.partition(".*")
    assert said.startswith(start)
    assert said.endswith(end or start)
    assert "\n" not in said


def test_a_missing_key() -> None:
    class Needs(Config):
        rate: float = Field(description="a rate")

    with pytest.raises(UsageError, match=r"^config key 'rate' is required and missing\.$"):
        Needs.parse({})


def test_parts_by_name_table_or_object() -> None:
    for value in ("box", {"name": "box"}, BoxConfig()):
        assert Outer.parse({"shape": value}).shape == BoxConfig()


def test_saved_and_loaded(tmp_path: Path) -> None:
    config = Outer.parse({"inner": {"rate": 0.25}, "shape": {"name": "box", "height": 4}, "title": "né"})
    config.save(tmp_path / "a.json")
    assert Outer.load(tmp_path / "a.json") == config
    assert read_json(tmp_path / "a.json") == {
        "kind": "outer",
        "version": 1,
        "inner": {"rate": 0.25, "steps": 3},
        "shape": {"name": "box", "height": 4},
        "title": "né",
    }


class Second(Outer):
    current_version: ClassVar[int] = 3
    migrations: ClassVar[dict[int, Callable[[dict[str, Any]], dict[str, Any]]]] = {
        1: lambda value: {("title" if key == "name" else key): inner for key, inner in value.items()},
        2: lambda value: {**value, "title": value["title"].upper()},
    }


def test_older_files_are_migrated(tmp_path: Path) -> None:
    for version, value in ((1, {"name": "old"}), (2, {"title": "old"}), (3, {"title": "OLD"})):
        write_json(tmp_path / "a.json", {"kind": "outer", "version": version, **value})
        assert Second.load(tmp_path / "a.json").title == "OLD"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"kind": "outer", "version": 4}, "newer release .format 4, this release reads up to 3.; upgrade"),
        ({"kind": "outer", "version": 0}, "format 0, which this release no longer reads"),
        ({"kind": "other", "version": 1}, "damaged, or of another program"),
        ({"version": 1}, "damaged, or of another program"),
        ({"kind": "outer"}, "damaged, or of another program"),
        ([1, 2], "damaged, or of another program"),
        ({"kind": "outer", "version": 3, "titel": ""}, "did you mean 'title'"),
    ],
    ids=str,
)
def test_files_that_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", content)
    with pytest.raises(UnrolledError, match=message):
        Second.load(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("a=3", ["a"], 3),
        ("a.b=0.5", ["a", "b"], 0.5),
        ("a=true", ["a"], True),
        ("a=[1, 2]", ["a"], [1, 2]),
        ("a=mlstm", ["a"], "mlstm"),
        ("a = with = sign", ["a"], "with = sign"),
        ("a=", ["a"], ""),
        ("a= null", ["a"], None),
        ('a="null"', ["a"], "null"),
    ],
)
def test_settings(text: str, path: list[str], value: object) -> None:
    assert parse_setting(text) == (path, value)


@pytest.mark.parametrize("text", ["a", "=3", " =3"])
def test_settings_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="key=value"):
        parse_setting(text)


def test_settings_are_applied_in_order_to_a_copy() -> None:
    values = {"cell": {"name": "lstm", "projection": 3}, "n": 1}
    assert apply_settings(values, ["cell.name=gru", "n=2", "n=3", "new.deep=1"]) == {
        "cell": {"name": "gru"},
        "n": 3,
        "new": {"deep": 1},
    }
    assert apply_settings(values, ["cell.name=lstm"]) == values, "the same name keeps its options"
    assert apply_settings({"cell": "gru"}, ["cell.bias=one"]) == {"cell": {"name": "gru", "bias": "one"}}
    assert values == {"cell": {"name": "lstm", "projection": 3}, "n": 1}
    pattern = {"cell": {"pattern": "lstm*2, mlp", "mlp": {"factor": 2}}}
    assert apply_settings(pattern, ["cell.name=gru"]) == {"cell": {"name": "gru"}}, "a pattern is a choice too"
    assert apply_settings(values, ["cell.pattern=gru*2"])["cell"] == {"pattern": "gru*2"}
    assert apply_settings(pattern, ["cell.mlp.factor=3"])["cell"]["mlp"] == {"factor": 3}


def test_toml(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    with pytest.raises(UsageError, match="does not exist"):
        read_toml(file)
    file.write_text("[a]\nb = 1\n")
    assert read_toml(file) == {"a": {"b": 1}}
    file.write_text("a = = 1")
    with pytest.raises(UsageError, match="not valid TOML"):
        read_toml(file)
    with pytest.raises(UsageError, match="cannot read"):
        read_toml(tmp_path)
