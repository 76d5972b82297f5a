"""Configurations and settings that are refused: one sentence that names the key as it was written."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from core.shapes import AnyShape, BallConfig, Outer
from unrolled.core.config import Config, apply_settings, parse_setting, read_toml
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import write_json


class Many(Config):
    shape: AnyShape | tuple[AnyShape, ...] = Field(default=BallConfig(), description="one shape, or several")
    options: dict[str, Any] = Field(default={}, description="anything")


@pytest.mark.parametrize(
    ("cls", "value", "sentence"),
    [
        (Outer, {"x[0]": 1}, "unknown config key 'x[0]'; known: inner, shape, title."),
        (Outer, {"x(0)": 1}, "unknown config key 'x(0)'; known: inner, shape, title."),
        (Outer, {"": 1}, "unknown config key ''; known: inner, shape, title."),
        (Outer, {"inner": {"rate[0]": 1}}, "unknown config key 'inner.rate[0]'; did you mean 'rate'?"),
        (Many, {"shape": [{"name": "ball", "radius": 0}]}, "config key 'shape.0.radius': input should be greater"),
        (Many, {"shape": {"name": "box", "tuple[a,...]": 0}}, "unknown config key 'shape.tuple[a,...]'; known: height"),
        (Outer, {"inner": {"steps": 2**64}}, "config key 'inner.steps': integers lie between -2^53 and 2^53"),
        (Outer, {"inner": {"steps": 10**5000}}, "config key 'inner.steps':"),
        (Outer, {"inner": {"steps": -(2**53) - 1}}, "config key 'inner.steps': integers lie between"),
        (Many, {"options": {"a": [{"b": 2**70}]}}, "config key 'options': integers lie between"),
        (Many, {"options": {"a": float("inf")}}, "config key 'options': input should be a finite number"),
        (Outer, {"title": "a\0b"}, "config key 'title': text holds no NUL"),
        (Outer, {"title": "a\udcffb"}, "config key 'title': text holds no NUL and nothing that is not Unicode"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_keys_are_named_as_they_were_written(cls: type[Config], value: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        cls.parse(value)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def nested(depth: int, key: str | None = None) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if key is None else {key: value}
    return value


def test_long_names_are_cut_and_cost_no_time() -> None:
    for value in ({"k" * 10**6: 1}, {"shape": "s" * 10**6}, {"title": ["t" * 10**6]}):
        with pytest.raises(UsageError) as caught:
            Outer.parse(value)
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize("key", [None, "a"])
def test_deep_values_are_one_sentence(key: str | None, tmp_path: Path) -> None:
    for depth in (65, 5000):
        with pytest.raises(UsageError, match="too deeply"):
            Outer.parse({"inner": nested(depth, key)})
        with pytest.raises(UsageError, match="too deeply"):
            apply_settings({"inner": nested(depth, key)}, ["a=1"])
    with pytest.raises(UsageError, match="config key 'inner"):
        Outer.parse({"inner": nested(60, key)})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a=" + "[" * 3000, "lie in each other too deeply"),
        ("a=[\n" + "[" * 1000 + "]" * 1000 + "]", "lie in each other too deeply"),
        ("a=" + "[" * 70 + "]" * 70, "lie in each other too deeply"),
        (".".join("a" * 900) + "=1", "lie in each other too deeply"),
        (".".join("a" * 9000) + "=1", "too many dots"),
        ("a=" + "1" * 5000, "an integer has too many digits"),
        ("a='" + "b" * 300_000 + "'", "is larger than 256 kB"),
    ],
    ids=lambda text: text[:12],
)
def test_toml_that_is_too_much(text: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=sentence):
        read_toml(file)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x[0]=1", r"^unknown config key 'x\[0\]'; a list is given as a whole, such as model\.cell="),
        ("model.cell[0].name=lstm", r"^unknown config key 'model\.cell\[0\]\.name'; a list is given as a whole"),
        ("a.b=" + "[" * 1000 + "]" * 1000, r"^the value of config key 'a\.b' cannot be read: .*too deeply\.$"),
        ("a=" + "1" * 5000, r"^the value of config key 'a' cannot be read: an integer has too many digits\.$"),
        (".".join("a" * 1000) + "=1", r"no key has so many parts\.$"),
    ],
    ids=lambda text: text[:12],
)
def test_settings_that_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        apply_settings({}, [text])


def test_a_setting_is_one_value() -> None:
    assert parse_setting("a=1\nb=2") == (["a"], "1\nb=2")


def test_a_saved_file_with_a_huge_version(tmp_path: Path) -> None:
    for version in (-(10**18), 2**70, True):
        write_json(tmp_path / "a.json", {"kind": "outer", "version": version})
        if version is True:
            continue
        with pytest.raises(UnrolledError, match="format"):
            Outer.load(tmp_path / "a.json")
