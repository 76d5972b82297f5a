"""How ``unrolled generate`` chooses: filters, penalties, bias, and what it tells of them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Command
from unrolled.generate import SamplerConfig, repeats
from unrolled.tokenizer import load_tokenizer
from unrolled.train.objectives.candidates import read_contexts


def test_penalties_reach_the_text(unrolled: Command, trained: Path) -> None:
    plain = unrolled("generate", trained, "--prompt", "the ", "--tokens", 12, "--temperature", 0).out
    options = (["--no-repeat", 1], ["--repetition", 3], ["--presence", 5], ["--frequency", 3], ["--bias", "e=-9"])
    for flags in options:
        changed = unrolled("generate", trained, "--prompt", "the ", "--tokens", 12, "--temperature", 0, *flags)
        assert changed.code == 0, changed.err
        assert changed.out != plain
    text = unrolled("generate", trained, "--tokens", 8, "--no-repeat", 1, "--seed", 3, "--json").out
    assert len(set(json.loads(text)[0]["tokens"])) == 8


def test_filters_reach_the_text(unrolled: Command, trained: Path) -> None:
    greedy = unrolled("generate", trained, "--tokens", 30, "--temperature", 0).out
    for flags in (["--epsilon", 0.999], ["--eta", 0.999, "--temperature", 0.01]):
        assert unrolled("generate", trained, "--tokens", 30, *flags).out == greedy
    assert unrolled("generate", trained, "--tokens", 30, "--typical", 0.01).code == 0


def test_log_probabilities(unrolled: Command, trained: Path) -> None:
    options = ("--tokens", 9, "--top-k", 2, "--seed", 1, "--log-probs", 3)
    plain = unrolled("generate", trained, *options[:-2]).out[:-1]
    (found,) = json.loads(unrolled("generate", trained, *options, "--json").out)
    rows = found["log_probs"]
    assert "".join(row["token"].replace("\\n", "\n") for row in rows) == found["text"] == plain
    assert sum(row["log_prob"] for row in rows) == pytest.approx(found["log_prob"])
    for row in rows:
        assert len(row["likeliest"]) == 3
        assert 1 <= len(row["likeliest_after"]) <= 3, "two are left, and ties with the second"
        assert row["log_prob_after"] >= row["log_prob"]
        assert row["likeliest"][0][1] >= row["log_prob"]
    table = unrolled("generate", trained, *options).out.splitlines()
    assert table[0].split("\t") == list(rows[0])
    assert [line.split("\t")[1] for line in table[1:]] == [row["token"] for row in rows]


def test_repeats(unrolled: Command, trained: Path) -> None:
    for options in (("--temperature", 0), ("--beams", 2), ("--search", 2)):
        (found,) = json.loads(unrolled("generate", trained, "--tokens", 30, *options, "--json").out)
        assert found["repeats"] == repeats(found["tokens"])
        assert found["repeats"]["1"] > 0


def test_candidates_for_calibration(unrolled: Command, trained: Path, tmp_path: Path) -> None:
    """Of beams and of draws: a line each, which the objective reads."""
    lines = ""
    for options in (("--beams", 4, "--nbest", 3), ("--samples", 3)):
        done = unrolled("generate", trained, "-p", "the ", "--tokens", 6, *options, "--reference", "cat", "--json")
        assert done.code == 0, done.err
        assert done.out.count("\n") == 1
        lines += done.out
    (tmp_path / "lines.jsonl").write_text(lines)
    tokenizer = load_tokenizer(trained / "tokenizer.json")
    for one, line in zip(read_contexts("lines.jsonl", tokenizer), lines.splitlines(), strict=True):
        assert one.prompt == tokenizer.encode("the ")
        assert one.reference == tokenizer.encode("cat")
        assert one.candidates == [each["tokens"] for each in json.loads(line)["candidates"]]


def test_constraints(unrolled: Command, trained: Path, tmp_path: Path) -> None:
    options = ("--prompt", "the ", "--tokens", 12, "--json")
    (found,) = json.loads(unrolled("generate", trained, *options, "--constrain", "regex=[a-e]{2} [st]{3}").out)
    assert re.fullmatch("[a-e]{2} [st]{3}", found["text"])
    assert found["finish_reason"] == "end"
    (tmp_path / "rules.lark").write_text('start: "the" | "sea"\n')
    rules = ("--constrain", f"grammar=@{tmp_path}/rules.lark")
    found = json.loads(unrolled("generate", trained, *options, "--beams", 4, "--nbest", 2, *rules).out)
    assert sorted(one["text"] for one in found) == ["sea", "the"]
    short = unrolled("generate", trained, "--tokens", 3, "--constrain", "regex=[a-e]{9}")
    assert "1 of the texts ended before the constraint was met" in short.err


def test_rare_options_are_settings(unrolled: Command, trained: Path) -> None:
    flags, settings = (("--top-k", 2, "--seed", 5), ("--set", "sampler.top_k=2", "--set", "sampler.seed=5"))
    texts = [unrolled("generate", trained, "--tokens", 30, *one).out for one in (flags, settings)]
    assert texts[0] == texts[1]
    (found,) = json.loads(unrolled("generate", trained, "--tokens", 300, "--stop-token", "e", "--json").out)
    assert (found["finish_reason"], "e" in found["text"]) == ("stop", False)


def test_refused(refused: Callable[..., str], trained: Path) -> None:
    assert "did you mean 'regex'" in refused("generate", trained, "--constrain", "regx=a")
    assert "must come next ('#')" in refused("generate", trained, "--constrain", "regex=a#")
    assert "did you mean 'top_k'" in refused("generate", trained, "--set", "sampler.topk=2")
    assert "say --json too" in refused("generate", trained, "--reference", "x")
    assert "TEXT=X" in refused("generate", trained, "--bias", "e")
    assert "one token is asked for, and 'the' is 3: 't', 'h', 'e'" in refused("generate", trained, "--bias", "the=1")
    assert "larger no_repeat" in refused("generate", trained, "--no-repeat", 1, "--tokens", 500, "--json")
    assert "typical" in refused("generate", trained, "--typical", 0)


def test_beams(unrolled: Command, trained: Path) -> None:
    options = ("--prompt", "the ", "--tokens", 12, "--beams", 6, "--nbest", 3)
    found = json.loads(unrolled("generate", trained, *options, "--json").out)
    assert [one["score"] for one in found] == sorted((one["score"] for one in found), reverse=True)
    assert len({one["text"] for one in found}) == 3
    (greedy,) = json.loads(unrolled("generate", trained, *options[:4], "--temperature", 0, "--json").out)
    assert found[0]["log_prob"] >= greedy["log_prob"]
    table = unrolled("generate", trained, *options).out
    assert table.count("--- score ") == 3
    assert f"the {found[0]['text']}\n" in table
    groups = unrolled("generate", trained, *options, "--groups", 2, "--diversity", 1.0).out
    assert groups.count("--- group 2, score ") == 3


def test_beams_refused(refused: Callable[..., str], trained: Path) -> None:
    for flags in (["--samples", 2], ["--top-k", 3], ["--temperature", 0.5], ["--typical", 0.5]):
        for way in ("--beams", "--search"):
            assert "chosen, not drawn" in refused("generate", trained, way, 3, *flags)
    assert "neither --log-probs" in refused("generate", trained, "--beams", 3, "--log-probs", 2)
    for flags in (["--nbest", 3], ["--stop-early", "first"]):
        assert "say --beams too" in refused("generate", trained, *flags)
    assert "say one of them too" in refused("generate", trained, "--length-penalty", 2)
    assert "texts would change each other" in refused("generate", trained, "--beams", 3, "--predict", "dynamic=sgd")
    assert "equal groups" in refused("generate", trained, "--beams", 3, "--groups", 2)
    assert "stop_early" in refused("generate", trained, "--beams", 3, "--stop-early", "never")


FLAGS = {
    "temperature": 0.5, "top_k": 7, "top_p": 0.6, "min_p": 0.1, "typical": 0.7, "epsilon": 0.01, "eta": 0.02,
    "repetition": 1.5, "presence": 0.3, "frequency": 0.4, "no_repeat": 3, "min_tokens": 2, "seed": 9,
}  # fmt: skip


def test_fields_of_the_sampler_are_reached_by_their_names(
    unrolled: Command, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As options where the command has such ones, and all of them as settings; the command lists no fields."""
    made: list[SamplerConfig] = []

    def kept(writing: Any, *others: Any) -> None:
        made.append(writing.sampler)

    monkeypatch.setattr("unrolled.cli.texts.print_generation", kept)
    options = [part for name, value in FLAGS.items() for part in (f"--{name.replace('_', '-')}", value)]
    assert unrolled("generate", trained, *options, "--no-repeat-prompt").code == 0
    given = {**FLAGS, "no_repeat_prompt": True}
    assert made[0] == SamplerConfig.parse(given)
    given |= {"backspace": 1, "backspace_depth": 4, "stop_tokens": [2], "bias": {"3": 0.5}}
    assert set(given) | {"constrain"} == set(SamplerConfig.model_fields)
    settings = [part for name, value in given.items() for part in ("--set", f"sampler.{name}={toml(value)}")]
    assert unrolled("generate", trained, *settings).code == 0
    assert made[1] == SamplerConfig.parse(given)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {one}" for key, one in value.items()) + "}"
    return str(value).lower() if isinstance(value, bool) else str(value)
