"""The engine: what is written depends on nothing beside it, and every job comes to an end."""

import asyncio
from typing import Any

import pytest
import torch

from serve.engine.tiny import chars, completion, counted, predictors, served, texts, with_engine
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.generate import SamplerConfig, generate
from unrolled.predict import ClampedPredictor, KeptState, NeuralPredictor, StateForm
from unrolled.predict.clamp import Clamp
from unrolled.predict.mixture import Mixture
from unrolled.serve.engine.jobs import Completion, Ended, Reading, Told, Wrote
from unrolled.serve.engine.pool import Engine
from unrolled.serve.engine.served import Served
from unrolled.serve.engine.worker import Worker


def wanted(model: Served, prompt: str, count: int, **sampler: Any) -> str:
    made = generate(model.reader, model.tokenizer, (prompt,), count, SamplerConfig.parse(sampler))
    return made[0].text


@pytest.mark.parametrize("cell", ["lstm", "mingru", "window_attention"])
def test_a_text_is_that_of_generate(cell: str) -> None:
    model = served(cell=cell)

    async def work(engine: Engine) -> None:
        for sampler in ({"temperature": 0}, {"seed": 3}, {"seed": 4, "top_k": 3, "temperature": 0.7}):
            (found,) = await texts(engine, completion(model, "abc", max_tokens=30, **sampler))
            assert found == wanted(model, "abc", 30, **sampler)

    with_engine([model], work)


def test_three_hundred_streams_are_each_their_solo_text() -> None:
    models = [served("one", threads=2), counted("two")]
    jobs = []
    for number in range(300):
        options = {"seed": number, "max_tokens": 5 + number % 23, "temperature": 0.5 + number % 3}
        options |= {"top_k": 5} if number % 5 == 0 else {}
        jobs.append((models[number % 7 == 0], "abcdefgh"[: number % 9], options))
    solo = {}

    async def alone(engine: Engine) -> None:
        for number, (model, prompt, options) in enumerate(jobs[:40]):
            solo[number] = (await texts(engine, completion(model, prompt, **options)))[0]

    async def together(engine: Engine) -> list[list[str]]:
        return await asyncio.gather(*(texts(engine, completion(m, p, **o)) for m, p, o in jobs))

    with_engine(models, alone)
    found = with_engine(models, together)
    assert [one[0] for one in found[:40]] == list(solo.values())
    for (model, prompt, options), (one,) in zip(jobs, found, strict=True):
        assert len(one) == options["max_tokens"], (model.name, prompt, options)


def test_samples_are_those_of_generate() -> None:
    model = served()

    async def work(engine: Engine) -> list[str]:
        return await texts(engine, completion(model, "ab", samples=40, max_tokens=9, seed=5))

    made = generate(model.reader, chars(), ("ab",), 9, SamplerConfig.parse({"seed": 5}), samples=40)
    assert with_engine([model], work) == [one.text for one in made]


def test_models_of_every_kind() -> None:
    """Counts, a mixture, and a model that serves one thread at a time."""
    neural, counts = served("neural"), counted()
    writer, reader = (Mixture([one, counts.reader], [3, 1]) for one in (neural.writers[0], neural.reader))
    mixture = Served("both", chars(), writer, reader, StateForm("both@000000000003", writer), 2)
    plain = predictors()[1]
    assert isinstance(plain, NeuralPredictor)
    clamped = ClampedPredictor(plain, [Clamp(0, "h", 1, 0.5)])
    alone = Served("clamped", chars(), clamped, clamped, StateForm("clamped@000000000004", clamped), 2)

    async def work(engine: Engine) -> None:
        for model in (counts, mixture, alone):
            jobs = [completion(model, "ab", seed=seed, max_tokens=8) for seed in range(10)]
            found = await asyncio.gather(*(texts(engine, job) for job in jobs))
            assert [one for (one,) in found] == [wanted(model, "ab", 8, seed=seed) for seed in range(10)]

    with_engine([neural, counts, mixture, alone], work)


def test_texts_that_change_each_other_are_not_served() -> None:
    for name, value in (("lockstep", True), ("independent", False)):
        reader = predictors()[1]
        setattr(reader, name, value)
        with pytest.raises(UsageError, match="texts change each other"):
            Served("odd", chars(), reader, reader, StateForm("odd@1", reader), 2)


def test_parts_are_the_whole_on_any_thread() -> None:
    model = served()

    async def work(engine: Engine) -> None:
        for seed in range(6):
            whole = (await texts(engine, completion(model, "abc", seed=seed, max_tokens=40)))[0]
            state, text = model.begun, ""
            for number, size in enumerate((7, 1, 20, 12)):
                job = completion(model, "" if number else "abc", seed=seed, max_tokens=size, keep=True, before=state)
                async for events in engine.submit(job).events():
                    for event in events:
                        assert isinstance(event, Wrote)
                        text += event.text
                        state = event.state or state
                state = model.form.unpack(model.form.pack(state))
            assert text == whole
            assert state.tokens == 43

    with_engine([model], work)


def test_reading_gives_the_state() -> None:
    model = served()
    ids = chars().encode("a mapled of abelian ideal " * 12)[:300]

    async def work(engine: Engine) -> KeptState:
        async for events in engine.submit(Reading(model, model.begun, 1e18, ids)).events():
            (event,) = events
            assert isinstance(event, Ended)
            assert event.state is not None
            return event.state
        raise AssertionError

    state = with_engine([model], work)
    assert (state.tokens, state.last) == (len(ids), ids[-1])
    reader = model.reader
    read = reader.consume(reader.begin(1), torch.tensor([ids]))
    found = reader.predict(reader.own_form(state.tree)).log_prob
    assert float((reader.predict(read).log_prob - found).abs().max()) < 1e-4


def test_measured_prompts() -> None:
    model = served()
    ids = chars().encode("abcd efgh\n" * 40)

    async def work(engine: Engine) -> list[Any]:
        told = []
        job = completion(model, "abcd efgh\n" * 40, measure=3, max_tokens=1)
        async for events in engine.submit(job).events():
            told += [token for event in events if isinstance(event, Told) for token in event.tokens]
        return told

    found = with_engine([model], work)
    assert [one.token for one in found] == ids
    reader = model.reader
    nll = reader.window(reader.begin(1), torch.tensor([ids])).nll[0]
    assert torch.allclose(torch.tensor([-one.nats for one in found]), nll, atol=1e-4)
    for one in found:
        assert len(one.top) == 3
        assert one.top[0][1] >= one.top[1][1] >= one.top[2][1] >= min(one.nats, one.top[2][1])


def test_bias_and_penalties() -> None:
    model = served()
    bias = {model.tokenizer.encode("q")[0]: 100.0}
    options: tuple[dict[str, Any], ...] = ({"no_repeat": 1}, {"repetition": 1.5}, {"presence": 2.0}, {"frequency": 1.0})

    async def work(engine: Engine) -> list[list[str]]:
        jobs = [completion(model, "ab", bias=bias), completion(model, "ab", seed=1)]
        jobs += [completion(model, "ab", seed=1, **one) for one in options]
        return await asyncio.gather(*(texts(engine, job) for job in jobs))

    biased, plain, *others = with_engine([model], work)
    assert biased == ["q" * 12]
    assert plain == [wanted(model, "ab", 12, seed=1)]
    assert others == [[wanted(model, "ab", 12, seed=1, **one)] for one in options]
    assert len(set(others[0][0])) == 12


def test_a_text_with_nothing_left_ends_alone() -> None:
    model = served()

    async def work(engine: Engine) -> None:
        jobs = [completion(model, seed=seed, max_tokens=40) for seed in range(5)]
        jobs += [completion(model, no_repeat=1, max_tokens=40)]
        found = await asyncio.gather(*(texts(engine, job) for job in jobs), return_exceptions=True)
        assert isinstance(found[-1], UsageError)
        assert "larger no_repeat" in str(found[-1])
        assert [one for (one,) in found[:-1]] == [wanted(model, "", 40, seed=seed) for seed in range(5)]  # type: ignore

    with_engine([model], work, threads=1)


def test_a_broken_state_ends_its_own_text_alone() -> None:
    model = served()
    broken = model.begun._replace(
        tree=model.begun.tree._replace(hidden=torch.full_like(model.begun.tree.hidden, torch.nan))
    )

    async def work(engine: Engine) -> None:
        sound = [completion(model, seed=seed, max_tokens=30) for seed in range(5)]
        jobs: list[Completion] = [*sound, completion(model, before=broken)]
        found = await asyncio.gather(*(texts(engine, job) for job in jobs), return_exceptions=True)
        assert isinstance(found[-1], UnrolledError)
        assert [one for (one,) in found[:-1]] == [wanted(model, "", 30, seed=seed) for seed in range(5)]  # type: ignore

    with_engine([model], work)


def test_a_fault_of_ours_is_told_and_the_engine_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model = served()
    write, faults = Worker._write, [RuntimeError("a fault")]

    def broken(self: Worker, *arguments: Any) -> int:
        if faults:
            raise faults.pop()
        return write(self, *arguments)

    monkeypatch.setattr(Worker, "_write", broken)

    async def work(engine: Engine) -> None:
        with pytest.raises(RuntimeError, match="a fault"):
            await texts(engine, completion(model, "abc"))
        assert await texts(engine, completion(model, "ab", seed=2)) == [wanted(model, "ab", 12, seed=2)]

    with_engine([model], work, threads=1)
