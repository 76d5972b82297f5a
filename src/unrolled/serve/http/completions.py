"""``POST /v1/completions``."""

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from unrolled.core.errors import UsageError
from unrolled.generate import SamplerConfig, constraint_of
from unrolled.generate.config import Choosing
from unrolled.generate.constraints import Constraint
from unrolled.generate.prompts import check_choice
from unrolled.serve.engine.jobs import Completion, Ended, Event, Reading, Told, Wrote
from unrolled.serve.engine.pool import Ticket
from unrolled.serve.engine.served import Served
from unrolled.serve.http.bodies import CompletionBody, parsed
from unrolled.serve.http.choice import Choice, Prompt
from unrolled.serve.http.events import DONE, EventStream, event, unless_gone
from unrolled.serve.http.service import Service, new_id

__all__ = ["complete"]

# texts under way from which on events of a stream lie flush_ms apart; seconds that they lie apart in any case, which
# nobody sees, and parts of an answer that is given whole
_MANY = 64
_APART, _WHOLE = 0.005, 0.05


async def complete(request: Request, service: Service) -> Any:
    """Continue texts."""
    body = await parsed(request, CompletionBody)
    asked = _Asked(body, service)
    if body.max_tokens and body.constrain is not None:  # read once for all prompts, apart from those who are served
        asked.constraint = await asyncio.to_thread(constraint_of, asked.sampler, asked.served.tokenizer)
    tickets = asked.submit()
    if body.stream:
        return EventStream(asked.stream(tickets))
    return JSONResponse(await unless_gone(request, asked.whole(tickets)))


class _Asked:
    """A request for completions: its jobs, and what they come to."""

    def __init__(self, body: CompletionBody, service: Service):
        self.body, self.service = body, service
        self.served, state = service.state(body.state, body.model)
        limits = (
            ("max_tokens", body.max_tokens, service.config.max_tokens),
            ("n", body.n * len(body.prompts), service.config.max_samples),
        )
        for name, value, most in limits:
            if value > most:
                raise UsageError(f"field {name!r} may come to {most:,} at most, and this is {value:,}; ask for less.")
        if body.return_state:
            service.check_format(self.served, body.state_format)
        self.before = self.served.begun if state is None else state
        self.null = (body.first or ("null" if state is None else "score")) == "null"
        self.seed = secrets.randbits(31) if body.seed is None else body.seed
        same = {name: getattr(body, name) for name in Choosing.model_fields}
        self.sampler = SamplerConfig.parse({
            **same, "seed": self.seed, "bias": _bias(body.logit_bias, self.served),
            "presence": body.presence_penalty, "frequency": body.frequency_penalty,
        })  # fmt: skip
        check_choice(self.served.tokenizer, self.sampler, body.stops)
        self.head = {"id": new_id(), "object": "text_completion", "created": int(time.time()), "model": self.served.id}
        self.constraint: Constraint | None = None
        self.choices: list[list[Choice]] = []  # of each prompt
        self.prompt_tokens = 0
        self._last = self._begun = time.monotonic()

    def submit(self) -> list[Ticket]:
        """Hand in one job a prompt; all of them or none."""
        tickets: list[Ticket] = []
        jobs = [self._job(number, prompt) for number, prompt in enumerate(self.body.prompts)]
        try:
            for job in jobs:
                tickets.append(self.service.engine.submit(job))  # noqa: PERF401  (those before must be known)
        except Exception:
            for ticket in tickets:
                ticket.cancel()
            raise
        return tickets

    def _job(self, number: int, given: str | list[int]) -> Reading:
        body, before, tokenizer = self.body, self.before, self.served.tokenizer
        ids, start = self.service.tokens(self.served, given)
        self.prompt_tokens += len(ids)
        echo = (given if isinstance(given, str) else tokenizer.decode(ids)) if body.echo else None
        prompt = Prompt(ids, before.last, echo, start, self.null)
        self.choices.append([
            Choice(number * body.n + sample, tokenizer, prompt, body.logprobs, self._give) for sample in range(body.n)
        ])  # fmt: skip
        measure, deadline = (body.logprobs if body.echo else None), self.service.deadline()
        if not body.max_tokens:
            return Reading(self.served, before, deadline, ids, measure)
        return Completion(
            self.served, before, deadline, ids, measure, body.n, body.max_tokens, self.sampler, body.stops,
            body.logprobs or 0, body.return_state, self.constraint,
        )  # fmt: skip

    def _give(self, last: Wrote) -> str | None:
        if last.state is None:
            return None
        if last.reason == "shutdown":
            return self.service.at_the_end(self.served, last.state)
        return self.service.given(self.served, last.state, self.body.state_format) if self.body.return_state else None

    async def whole(self, tickets: list[Ticket]) -> dict[str, Any]:
        """The answer as one object."""
        for choice in self._each():
            choice.add(choice.begin())
        await asyncio.gather(*(self._take(number, ticket) for number, ticket in enumerate(tickets)))
        choices = [choice.whole() for choice in self._each()]
        return {**self.head, "choices": choices, "usage": self._usage(), "seed": self.seed}

    async def _take(self, number: int, ticket: Ticket) -> None:
        async with contextlib.aclosing(ticket.events(_WHOLE)) as stream:
            async for events in stream:
                for choice, value in self._values(self.choices[number], events):
                    choice.add(value)

    async def stream(self, tickets: list[Ticket]) -> AsyncGenerator[bytes, None]:
        """The answer as events."""
        try:
            for choice in self._each():
                value = choice.begin()
                if value is not None:
                    yield self._event(value)
            if len(tickets) == 1:
                async with contextlib.aclosing(self._ticket(0, tickets[0])) as parts:
                    async for part in parts:
                        yield part
            else:
                async with contextlib.aclosing(_merged([self._ticket(*pair) for pair in enumerate(tickets)])) as parts:
                    async for part in parts:
                        yield part
            options = self.body.stream_options
            if options is not None and options.include_usage:
                yield event({**self.head, "choices": [], "usage": self._usage()})
            yield DONE
        finally:
            for ticket in tickets:
                ticket.cancel()

    async def _ticket(self, number: int, ticket: Ticket) -> AsyncGenerator[bytes, None]:
        engine, flush = self.service.engine, self.service.config.flush_ms / 1000
        apart = flush if engine.used >= _MANY else min(flush, _APART)
        async with contextlib.aclosing(ticket.events(apart)) as stream:
            async for events in stream:
                self._timed()
                parts = [self._event(v) for _, v in self._values(self.choices[number], events) if _says(v)]
                if parts:
                    yield b"".join(parts)

    def _timed(self) -> None:
        now, metrics = time.monotonic(), self.service.metrics
        (metrics.first if self._last == self._begun else metrics.between).observe(now - self._last)
        self._last = now

    def _values(self, choices: list[Choice], events: list[Event]) -> list[tuple[Choice, dict[str, Any]]]:
        """What some events add to the choices of a prompt."""
        found: list[tuple[Choice, dict[str, Any]]] = []
        wrote: dict[int, list[Wrote]] = {}
        for one in events:
            if isinstance(one, Wrote):
                wrote.setdefault(one.sample, []).append(one)
            elif isinstance(one, Told):
                told = [(choice, choice.read(one.tokens)) for choice in choices]
                found += [(choice, value) for choice, value in told if value is not None]
            elif isinstance(one, Ended):
                found += [(choice, choice.end(one.state)) for choice in choices]
        return found + [(choices[sample], choices[sample].take(some)) for sample, some in wrote.items()]

    def _each(self) -> list[Choice]:
        return [choice for choices in self.choices for choice in choices]

    def _event(self, value: Mapping[str, Any]) -> bytes:
        extra = {} if value["finish_reason"] is None else {"seed": self.seed}
        return event({**self.head, "choices": [value], **extra})

    def _usage(self) -> dict[str, int]:
        written = sum(choice.written for choice in self._each())
        return {
            "prompt_tokens": self.prompt_tokens, "completion_tokens": written,
            "total_tokens": self.prompt_tokens + written,
        }  # fmt: skip


def _says(value: Mapping[str, Any]) -> bool:
    """Whether an event has anything in it."""
    return bool(value["text"] or value["logprobs"] or value["finish_reason"])


def _bias(given: Mapping[str, float] | None, served: Served) -> dict[int, float]:
    size = served.tokenizer.vocab_size
    found = {}
    for name, value in (given or {}).items():
        if not (name.isascii() and name.isdecimal() and len(name) < 10 and int(name) < size):
            raise UsageError(f"field 'logit_bias' names ids from 0 to {size - 1:,}; {json.dumps(name[:20])} is none.")
        if not -100 <= value <= 100:
            raise UsageError("field 'logit_bias' takes values from -100 to 100; choose one of these.")
        found[int(name)] = value
    return found


async def _merged(streams: list[AsyncGenerator[bytes, None]]) -> AsyncGenerator[bytes, None]:
    """What several streams give, as it comes. The first error ends them all."""
    queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(64)

    async def run(stream: AsyncGenerator[bytes, None]) -> None:
        try:
            async with contextlib.aclosing(stream) as parts:
                async for part in parts:
                    await queue.put(part)
            await queue.put(None)
        except Exception as error:
            await queue.put(error)

    tasks = [asyncio.ensure_future(run(stream)) for stream in streams]
    try:
        left = len(tasks)
        while left:
            part = await queue.get()
            if isinstance(part, Exception):
                raise part
            if part is None:
                left -= 1
            else:
                yield part
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
