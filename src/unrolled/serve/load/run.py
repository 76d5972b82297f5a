"""Streams that write texts, and what is measured of them."""

import asyncio
import itertools
import random
import resource
import time
import urllib.parse
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.serve.client import Client
from unrolled.serve.load.connection import Answer, Connection, LostError
from unrolled.serve.load.plan import LoadConfig

__all__ = ["run_load"]

_TICKS = 100  # of /proc, a second


class _Wrote(NamedTuple):
    """A text that was checked: its number, seed, prompt and content."""

    seed: int
    prompt: list[int]
    text: str


class _Load:
    def __init__(self, client: Client, model: dict[str, Any], config: LoadConfig, address: str, key: str | None):
        self.client, self.model, self.config, self.key = client, model, config, key
        parts = urllib.parse.urlsplit(address)
        self.host, self.port = parts.hostname or "", parts.port or 80
        self.codes: Counter[str] = Counter()
        self.answers: dict[int, list[Answer]] = {}  # of each stream, those that were under way while it was measured
        self.checked: list[_Wrote] = []
        self.texts, self.hung_up, self.resumed = 0, 0, 0
        self.ending = False

    async def stream(self, number: int) -> None:
        """Write texts, one after another, until the end."""
        draw = random.Random(f"{self.config.seed} {number}")
        connection: Connection | None = None
        for text in range(10**9):
            if self.ending:
                break
            connection = await self._text(number, text, draw, connection)
        if connection is not None:
            connection.close()

    async def _text(
        self, number: int, text: int, draw: random.Random, connection: Connection | None
    ) -> Connection | None:
        config = self.config
        seed = (config.seed * 1_000_003 + number * 10_007 + text) % 2**31
        vocabulary = self.model["vocabulary"]["size"]
        prompt = [draw.randrange(vocabulary) for _ in range(config.prompt_tokens)]
        written, state, found = 0, None, ""
        while written < config.tokens and not self.ending:
            size = min(config.part, config.tokens - written)
            body: dict[str, Any] = {
                "model": self.model["id"], "prompt": prompt if state is None else "", "max_tokens": size, "seed": seed,
                "stream": True, "return_state": True, "stream_options": {"include_usage": True},
            }  # fmt: skip
            if state is not None:
                body["state"] = state
            hang = draw.randrange(1, 12) if draw.random() < config.drop else None
            try:
                connection = connection if connection is not None and not connection.lost else await self._connect()
                answer = Answer()
                self.answers.setdefault(number, []).append(answer)
                await connection.ask(body, answer, hang)
            except (LostError, OSError):
                self.hung_up += hang is not None
                self.resumed += hang is None
                connection = None
                continue
            self.codes[str(answer.status)] += 1
            if answer.status != 200:
                if answer.status not in (429, 503):
                    raise UnrolledError(f"the server answered {answer.status}: {answer.parts[-1][-300:]!r}")
                await asyncio.sleep(0.2 + draw.random())
                continue
            events = answer.events()
            if any("error" in one for one in events):
                self.codes["error event"] += 1
                continue
            last = next(one["choices"][0] for one in reversed(events) if one["choices"])
            found += "".join(one["choices"][0]["text"] for one in events if one["choices"])
            written += next(one["usage"]["completion_tokens"] for one in reversed(events) if "usage" in one)
            state = last.get("state", state)
            self.resumed += last["finish_reason"] == "shutdown"
        if written >= config.tokens:
            self.texts += 1
            if len(self.checked) < config.check and draw.random() < 0.5:
                self.checked.append(_Wrote(seed, prompt, found))
        return connection

    async def _connect(self) -> Connection:
        """A connection; a server that is away is waited for."""
        loop, end = asyncio.get_running_loop(), time.monotonic() + self.config.patience
        while True:
            try:
                _, made = await loop.create_connection(lambda: Connection(self.host, self.key), self.host, self.port)
                return made
            except OSError as error:
                if time.monotonic() > end or self.ending:
                    raise UnrolledError(f"no server listens at {self.host}:{self.port}: {error}.") from error
                await asyncio.sleep(0.2)

    def forget(self) -> None:
        """What came so far is no part of the measurement."""
        for number, answers in self.answers.items():
            self.answers[number] = answers[-1:]

    def measured(self, begun: float, end: float) -> tuple[list[float], list[float], list[int]]:
        """Seconds to first events and between events, and how many each stream had, between two times."""
        first, between = [], []
        each = [0] * self.config.streams
        for number, answers in self.answers.items():
            for answer in answers:
                times = [one for one in answer.times if begun <= one <= end]
                each[number] += len(times)
                between += [b - a for a, b in itertools.pairwise(times)]
                if times and answer.begun >= begun:
                    first.append(times[0] - answer.begun)
        return first, between, sorted(each)


def run_load(
    address: str, config: LoadConfig, model: str | None = None, api_key: str | None = None, pid: int | None = None
) -> dict[str, Any]:
    """Load a server and measure it.

    Args:
        pid: of the server's process on this machine, for its CPU seconds and memory.
    Returns:
        plain values: rates, quantiles in milliseconds, answers by code, CPU seconds, what was compared.
    Raises:
        UsageError: no such model. UnrolledError: no server; an answer that is none; texts that are not as alone.
    """
    client = Client(address, api_key, timeout=600)
    models = client.models()
    chosen = [one for one in models if model in (None, one["id"], one["name"])]
    if not chosen:
        raise UsageError(f"there is no model {model!r} there; it has: {', '.join(one['name'] for one in models)}.")
    return asyncio.run(_run(_Load(client, chosen[0], config, address, api_key), pid))


async def _run(load: _Load, pid: int | None) -> dict[str, Any]:
    config = load.config
    tasks = []
    for number in range(config.streams):
        tasks.append(asyncio.ensure_future(load.stream(number)))
        await asyncio.sleep(1 / config.open_per_second)
        _raise(tasks)
    before, own, memory = _cpu(pid), _own(), _memory(pid)
    written = await asyncio.to_thread(_written, load.client)
    load.forget()
    begun = time.perf_counter()
    end = begun + config.seconds
    while time.perf_counter() < end:
        await asyncio.sleep(0.25)
        _raise(tasks)
    seconds = time.perf_counter() - begun
    first, between, each = load.measured(begun, begun + seconds)
    more = await asyncio.to_thread(_written, load.client)
    after, used = _cpu(pid), _own() - own
    load.ending = True
    await asyncio.wait(tasks, timeout=30)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    found: dict[str, Any] = {
        "kind": "load", "model": load.model["id"], "settings": config.model_dump(), "seconds": seconds,
        "tokens_per_second": None if more < written else (more - written) / seconds,
        "events_per_second": sum(each) / seconds,
        "events_per_second_of_a_stream": {"least": each[0] / seconds, "median": each[len(each) // 2] / seconds},
        "first_ms": _quantiles(first), "between_ms": _quantiles(between), "answers": dict(load.codes),
        "texts": load.texts, "hung_up": load.hung_up, "resumed": load.resumed,
        "client_cpu_seconds": used, "server_cpu_seconds": None if before is None or after is None else after - before,
        "server_memory_mb": [memory, _memory(pid)],
    }  # fmt: skip
    found["compared"] = await asyncio.to_thread(_compared, load)
    return found


def _compared(load: _Load) -> dict[str, int]:
    """Write the texts that are checked again, undisturbed."""
    other = 0
    for one in load.checked:
        again = load.client.complete(
            one.prompt or "", max_tokens=load.config.tokens, seed=one.seed, model=load.model["id"]
        )
        other += again.text != one.text
    return {"texts": len(load.checked), "different": other}


def _raise(tasks: list[asyncio.Future[None]]) -> None:
    for task in tasks:
        if task.done() and task.exception() is not None:
            task.result()


def _quantiles(values: list[float]) -> dict[str, float] | None:
    found = sorted(values)
    if not found:
        return None
    at = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    return {name: 1e3 * found[min(len(found) - 1, int(share * len(found)))] for name, share in at.items()}


def _written(client: Client) -> float:
    """Tokens that the server has written, by its own count."""
    answer, connection = client._open("GET", "/metrics", None)
    try:
        for line in answer.read().decode().splitlines():
            if line.startswith("unrolled_tokens_written_total "):
                return float(line.split()[1])
    finally:
        connection.close()
    return 0.0


def _own() -> float:
    found = resource.getrusage(resource.RUSAGE_SELF)
    return found.ru_utime + found.ru_stime


def _cpu(pid: int | None) -> float | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _memory(pid: int | None) -> float | None:
    """Resident megabytes."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), None)
