"""Constraints: every example's walks, whole texts of every kind of vocabulary, beams, dead ends."""

import json
import random
import re
from typing import Any

import pytest
import torch

from generate.ended import random_predictor
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.generate import BeamConfig, Generation, SamplerConfig, beam_search, generate
from unrolled.generate.constraints import CONSTRAINTS, Constraint, ConstraintConfig
from unrolled.predict import Predictor
from unrolled.tokenizer import TOKENIZERS, Tokenizer

pytest.importorskip("llguidance", reason="llguidance is not installed")

PATTERN = "[A-Z][a-z]{2,8} [0-9]{1,3}"
TEXT = b"The Cat 1 sat 22 on Mats 333 and Dogs 4 ran\nHe said Nine 9\n" * 40


def made(kind: str) -> Tokenizer:
    cls = TOKENIZERS[kind]
    options = {"bpe": {"size": 300}}.get(kind, {})
    return cls.train(cls.Config.parse({"name": kind, **options}), [TEXT])


def written(tokenizer: Tokenizer, constrain: Any, seeds: int, most: int = 60, **options: Any) -> list[Generation]:
    model = random_predictor(tokenizer.vocab_size, 1)
    sampler = SamplerConfig.parse({"constrain": constrain, **options})
    return generate(model, tokenizer, ("",), most, sampler, samples=seeds)


EXAMPLES = [(name, one) for name in CONSTRAINTS for one in CONSTRAINTS[name].EXAMPLES]


@pytest.mark.parametrize(("name", "config"), EXAMPLES)
def test_walks(name: str, config: ConstraintConfig) -> None:
    """A walk through what is allowed ends where the text may end, and no method changes a value."""
    tokenizer = made("number" if name == "number" else "byte")
    constraint: Constraint = CONSTRAINTS[name](config, tokenizer)
    assert CONSTRAINTS.parse(json.loads(config.model_dump_json())) == config
    whole = 0
    for seed in range(20):
        drawn, value = random.Random(seed), constraint.begin([65])
        for _ in range(200):
            allowed = constraint.allowed(value)
            assert (allowed.dtype, allowed.shape) == (torch.bool, (tokenizer.vocab_size,))
            choices = allowed.nonzero().squeeze(1).tolist()
            if not choices:
                assert constraint.complete(value)
                whole += 1
                break
            token = drawn.choice(choices)
            onward = constraint.advance(value, token)
            other = constraint.advance(value, drawn.choice(choices))
            assert constraint.allowed(other).shape == allowed.shape
            assert torch.equal(constraint.allowed(value), allowed)
            again = constraint.advance(value, token)
            assert torch.equal(constraint.allowed(again), constraint.allowed(onward))
            value = onward
    assert whole >= 10, "its texts are short"


@pytest.mark.parametrize("kind", ["byte", "bpe", "word"])
def test_every_text_matches(kind: str) -> None:
    tokenizer = made(kind)
    found = written(tokenizer, {"name": "regex", "pattern": PATTERN}, 60)
    ended = [one for one in found if one.finish_reason == "end"]
    assert len(ended) >= 55
    assert all(re.fullmatch(PATTERN, one.text) for one in ended)
    assert len({one.text for one in ended}) > 5
    model = random_predictor(tokenizer.vocab_size, 1)
    for one in ended[:5]:
        nats = model.window(model.begin(1), torch.tensor([one.tokens])).nll.sum()
        assert one.log_prob == pytest.approx(-float(nats), abs=1e-9)


def test_words_may_end_by_the_end_symbol() -> None:
    """The pattern can always go on, so that the end symbol alone ends it, and is not shown."""
    found = written(made("word"), {"name": "regex", "pattern": "(Cat|Dogs)( (Cat|Dogs))*"}, 40, 400)
    assert {one.finish_reason for one in found} == {"end"}
    assert all(re.fullmatch("(Cat|Dogs)( (Cat|Dogs))*", one.text) for one in found)
    assert max(len(one.tokens) for one in found) > 2


def test_what_allows_all_changes_nothing() -> None:
    tokenizer = made("char")
    free, bound = (written(tokenizer, one, 5) for one in (None, {"name": "regex", "pattern": "(?s:.*)"}))
    assert [one.tokens for one in free] == [one.tokens for one in bound]
    assert [one.log_prob for one in free] == [one.log_prob for one in bound]


def test_json_fits_its_schema() -> None:
    schema = {
        "type": "object", "required": ["name", "age"], "additionalProperties": False,
        "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0}},
    }  # fmt: skip
    for found in written(made("byte"), {"name": "json", "value": schema}, 20, 400):
        assert found.finish_reason == "end"
        value = json.loads(found.text)
        assert set(value) == {"name", "age"}
        assert value["age"] >= 0
        assert len(value["name"]) <= 8


def test_beams_are_the_best_of_the_language() -> None:
    tokenizer = made("char")
    model: Predictor = random_predictor(tokenizer.vocab_size, 3)
    texts = ["Cat 1", "Cat 22", "Dogs 4", "He sat"]
    sampler = SamplerConfig.parse({"constrain": {"name": "regex", "pattern": "|".join(texts)}})
    found = beam_search(model, tokenizer, "", 20, BeamConfig(beams=8, nbest=4, length=0), sampler)
    nats = {}
    for text in texts:
        ids = tokenizer.encode(text)
        nats[text] = -float(model.window(model.begin(1), torch.tensor([ids])).nll.sum())
    assert [one.text for one in found] == sorted(texts, key=lambda text: -nats[text])
    assert [one.log_prob for one in found] == pytest.approx(sorted(nats.values(), reverse=True), abs=1e-9)


def test_what_a_vocabulary_lacks_is_named() -> None:
    with pytest.raises(UsageError, match=r"no token for what must come next \('x'\); use a model of bytes"):
        written(made("char"), {"name": "regex", "pattern": "Cat x"}, 1)
    with pytest.raises(UsageError, match=r"'\{'"):
        written(made("char"), {"name": "json", "value": {"type": "object"}}, 1)


def test_a_dead_end_on_the_way() -> None:
    """That is found on the way alone: the walks at the start do not come by it."""
    tokenizer = made("char")
    constraint = {"name": "regex", "pattern": "[a-z]{200}~"}
    with pytest.raises(UsageError, match=r"the constraint regex, after '.*', the vocabulary has no token .*'~'"):
        written(tokenizer, constraint, 1, 300)


@pytest.mark.parametrize(
    ("constrain", "sentence"),
    [
        ({"name": "regex", "pattern": "[a-"}, "regex cannot be read: .*unclosed character class"),
        ({"name": "grammar", "rules": "start: nothing"}, "grammar cannot be read"),
        ({"name": "json", "value": "[1]"}, "a JSON schema is a JSON object"),
        ({"name": "json", "value": {"type": "what"}}, "json cannot be read"),
        ({"name": "regx"}, "did you mean 'regex'"),
    ],
)
def test_refused(constrain: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UnrolledError, match=sentence) as told:
        written(made("byte"), constrain, 1)
    assert "\n" not in str(told.value)


def test_other_options_may_leave_nothing() -> None:
    with pytest.raises(UsageError, match="forbidden by other options"):
        written(made("byte"), {"name": "regex", "pattern": "a{9}"}, 1, no_repeat=2)


def test_stop_tokens_are_not_shown() -> None:
    tokenizer = made("byte")
    (free,) = written(tokenizer, None, 1)
    token = free.tokens[20]
    (found,) = written(tokenizer, None, 1, stop_tokens=[token])
    place = free.tokens.index(token)
    assert found.tokens == free.tokens[: place + 1]
    assert found.finish_reason == "stop"
    assert found.text == tokenizer.decode(free.tokens[:place])
    with pytest.raises(UsageError, match="stop token names the id 999"):
        written(tokenizer, None, 1, stop_tokens=[999])
