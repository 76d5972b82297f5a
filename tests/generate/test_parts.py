"""A text written in parts: the state after each is what the next goes on from."""

from collections.abc import Callable

import pytest
import torch

from generate.test_text import GREEDY, Reciter, shown
from unrolled.generate import SamplerConfig, generate, stream
from unrolled.generate.sampler import generator_of
from unrolled.predict import KeptState, NeuralPredictor, StateForm
from unrolled.tokenizer import Tokenizer
from unrolled.tokenizer.byte import ByteTokenizer

SEEDED = SamplerConfig.parse({"seed": 7})


def in_parts(
    model, tok, sizes: list[int], sampler: SamplerConfig, prompt: str = "", stop: tuple[str, ...] = ()
) -> list:
    """Pieces of a text whose parts have so many tokens; each part goes on from the bytes of the state before."""
    form = StateForm("m@1", model)
    state, pieces = form.begin(), []
    for number, size in enumerate(sizes):
        ends: dict[tuple[int, int], KeptState] = {}
        given = (prompt if number == 0 else "",)
        pieces += stream(model, tok, given, size, sampler, stop, 1, state, ends)
        state = form.unpack(form.pack(ends[0, 0]))
    return pieces


@pytest.mark.parametrize("sampler", [GREEDY, SEEDED])
def test_parts_are_the_whole(
    predictor: Callable[..., NeuralPredictor], tokenizer: Tokenizer, sampler: SamplerConfig
) -> None:
    model = predictor()
    whole = generate(model, tokenizer, ("abc",), 40, sampler)[0]
    pieces = in_parts(model, tokenizer, [1, 9, 20, 10], sampler, "abc")
    assert [piece.token for piece in pieces] == whole.tokens
    assert shown(pieces) == whole.text
    assert sum(piece.log_prob for piece in pieces) == pytest.approx(whole.log_prob, abs=1e-9)


def test_samples_of_a_state_differ_and_are_those_of_its_text(
    predictor: Callable[..., NeuralPredictor], tokenizer: Tokenizer
) -> None:
    model, form = predictor(), StateForm("m@1", predictor())
    ends: dict[tuple[int, int], KeptState] = {}
    list(stream(model, tokenizer, ("abc",), 5, GREEDY, (), 1, form.begin(), ends))
    begun = ends[0, 0]._replace(drawn=0)
    wrote = "abc" + generate(model, tokenizer, ("abc",), 5, GREEDY)[0].text
    found = generate(model, tokenizer, ("",), 12, SEEDED, (), 3, begun)
    wanted = generate(model, tokenizer, (wrote,), 12, SEEDED, (), 3)
    assert [one.tokens for one in found] == [one.tokens for one in wanted]
    assert len({one.text for one in found}) == 3


def test_state_counts_tokens() -> None:
    tok = ByteTokenizer()
    ends: dict[tuple[int, int], KeptState] = {}
    model = Reciter(list(b"xyz"), 256)
    list(stream(model, tok, ("ab",), 4, GREEDY, (), 1, None, ends))
    assert ends[0, 0][2:5] == (6, ord("z"), 4)
    list(stream(model, tok, ("",), 3, GREEDY, (), 1, ends[0, 0], ends))
    assert ends[0, 0][2:5] == (9, ord("z"), 7)
    list(stream(model, tok, ("c",), 3, GREEDY, (), 1, ends[0, 0], ends))
    assert ends[0, 0][2:5] == (13, ord("x"), 3), "after a prompt a seed begins anew"


def test_nothing_is_lost_between_parts() -> None:
    """Half a character, and what may begin a stop string, are shown with the part that completes them."""
    tok, text = ByteTokenizer(), "häus und höf. STOP nie"
    model = Reciter(list(text.encode()), 256)
    for size in (1, 2, 3, 5):
        pieces = in_parts(model, tok, [size] * (30 // size), GREEDY, stop=("STOP",))
        first = [piece.finish_reason for piece in pieces].index("stop")
        assert shown(pieces[: first + 1]) == "häus und höf. "
        assert "�" not in shown(pieces[: first + 1])


def test_a_prompt_ends_what_was_kept_back() -> None:
    tok = ByteTokenizer()
    model = Reciter(list("ä".encode()), 256)
    ends: dict[tuple[int, int], KeptState] = {}
    list(stream(model, tok, ("",), 1, GREEDY, (), 1, None, ends))
    assert ends[0, 0].pending == "ä".encode()[:1]
    pieces = list(stream(model, tok, ("x",), 2, GREEDY, (), 1, ends[0, 0], None))
    assert "".join(piece.text for piece in pieces) == "ä"


def test_numbers_used_before_are_passed_over() -> None:
    for drawn in (0, 1, 17, 70_000):
        plain = generator_of(3, 2)
        for _ in range(drawn if drawn < 100 else 0):
            torch.rand(1, generator=plain, dtype=torch.float64)
        if drawn >= 100:
            torch.rand(drawn, generator=plain, dtype=torch.float64)
        passed = generator_of(3, 2, drawn)
        assert torch.equal(
            torch.rand(3, generator=passed, dtype=torch.float64), torch.rand(3, generator=plain, dtype=torch.float64)
        )
