"""How much the engine takes on, and how jobs end before they are done."""

import asyncio
import time

import pytest

from serve.engine.test_engine import wanted
from serve.engine.tiny import completion, served, texts, with_engine
from unrolled.core.errors import UsageError
from unrolled.serve.engine.jobs import TookTooLongError, Wrote
from unrolled.serve.engine.pool import BusyError, Engine
from unrolled.serve.engine.threads import ShutDownError


def test_waiting_and_busy() -> None:
    model = served()

    async def work(engine: Engine) -> None:
        first = [asyncio.create_task(texts(engine, completion(model, "a", max_tokens=20))) for _ in range(5)]
        await asyncio.sleep(0)
        assert (engine.used, engine.waiting) == (2, 3)
        assert not engine.ready
        with pytest.raises(BusyError, match=r"in \d+ seconds"):
            engine.submit(completion(model))
        assert len({(await task)[0] for task in first}) == 1
        with pytest.raises(UsageError, match="no more than 2"):
            engine.submit(completion(model, samples=3))
        assert engine.ready
        assert (engine.used, engine.waiting) == (0, 0)

    with_engine([model], work, streams=2, queue=3)


def test_who_leaves_frees_the_place() -> None:
    model = served()

    async def work(engine: Engine) -> None:
        endless = engine.submit(completion(model, max_tokens=10**9))
        waits = engine.submit(completion(model, max_tokens=10**9))
        stream = endless.events()
        await anext(stream)
        assert engine.waiting == 1
        waits.cancel()
        await stream.aclose()
        assert (engine.used, engine.waiting) == (0, 0)
        assert await texts(engine, completion(model, "ab", seed=2)) == [wanted(model, "ab", 12, seed=2)]
        await asyncio.sleep(0.05)
        assert not any(worker.has_work() for worker in engine.workers)

    with_engine([model], work, streams=1)


def test_time_is_limited() -> None:
    model = served()

    async def work(engine: Engine) -> None:
        with pytest.raises(TookTooLongError):
            await texts(engine, completion(model, "abc", deadline=0.0))
        job = completion(model, "abc", max_tokens=10**9, deadline=time.monotonic() + 0.2)
        reasons = [e.reason async for es in engine.submit(job).events() for e in es if isinstance(e, Wrote)]
        assert reasons[-1] == "time"

    with_engine([model], work)


def test_drain_ends_with_the_state() -> None:
    model = served()

    async def work(engine: Engine) -> None:
        job, text, state = completion(model, "abc", seed=9, max_tokens=10**9), "", None
        stream = engine.submit(job).events()
        for event in await anext(stream):
            assert isinstance(event, Wrote)
            text += event.text
        drained = asyncio.create_task(engine.drain(0.1))
        await asyncio.sleep(0)
        with pytest.raises(ShutDownError):
            engine.submit(completion(model))
        async for events in stream:
            for event in events:
                assert isinstance(event, Wrote)
                text, state = text + event.text, event.state
                assert event.reason == (None if state is None else "shutdown")
        await drained
        assert state is not None
        assert text == wanted(model, "abc", len(text), seed=9)

    with_engine([model], work)
