"""``POST /v1/score``."""

import contextlib
import math
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from unrolled.core.errors import UsageError
from unrolled.data.reading import Part
from unrolled.evaluate import ScoreConfig, Scored, TextBlock, WordTable, read_text, read_words
from unrolled.evaluate.text.rows import row_columns, row_of
from unrolled.predict import KeptState
from unrolled.serve.engine.jobs import Ended, Rows, ScoreJob
from unrolled.serve.engine.served import Served
from unrolled.serve.http.bodies import ScoreBody, parsed
from unrolled.serve.http.events import unless_gone
from unrolled.serve.http.service import Service

__all__ = ["score"]

_PIECES = ("id", "top_ids", "top_texts")


async def score(request: Request, service: Service) -> Any:
    """Surprisal of the words or tokens of a text, as ``unrolled score`` writes it."""
    body = await parsed(request, ScoreBody)
    served, state = service.state(body.state, body.model)
    if body.return_state:
        service.check_format(served, body.state_format)
    config = ScoreConfig.parse({
        "unit": "token" if body.ids is not None else body.unit, "reset": body.reset, "boundary": body.boundary,
        "entropy": body.entropy, "rank": body.rank, "top_k": body.top_k, "close": body.close,
    })  # fmt: skip
    if state is not None:
        config.check_goes_on()
    most, ids = service.config.max_prompt, body.ids
    if ids is not None and len(ids) > most:
        raise UsageError(f"field 'ids' may have {most:,} tokens, and this has {len(ids):,}; shorten it.")
    blocks = [] if ids is not None else _blocks(body, served)
    job = ScoreJob(served, state, service.deadline(), config, blocks, ids)
    ends = (body.words is None) if body.ends is None else body.ends
    return JSONResponse(await unless_gone(request, _answer(service, served, job, body, ends)))


async def _answer(service: Service, served: Served, job: ScoreJob, body: ScoreBody, ends: bool) -> dict[str, Any]:
    columns = row_columns(job.config)
    pieces = _Pieces(served, job.before.last if job.goes_on else None) if body.pieces else None
    rows: list[dict[str, Any]] = []
    words = tokens = 0
    nats = word_nats = 0.0
    after: KeptState | None = None
    last = None
    async with contextlib.aclosing(service.engine.submit(job).events()) as stream:
        async for events in stream:
            for event in events:
                if isinstance(event, Ended):
                    after = event.state
                if not isinstance(event, Rows):
                    continue
                for scored in event.rows:
                    word = scored.unit.kind == "word"
                    more = pieces.of(scored) if pieces is not None else {}
                    tokens, nats = tokens + scored.tokens, nats + scored.nats
                    if word:
                        word_nats += scored.nats
                        words += scored.unit is not last
                    last = scored.unit
                    if word or ends:
                        rows.append(row_of(scored, columns) | more)
    found: dict[str, Any] = {
        "object": "score", "model": served.id, "columns": [*columns, *(_PIECES if body.pieces else ())], "rows": rows,
        "total": {
            "tokens": tokens, "words": words, "nats": nats, "bits": nats / math.log(2),
            "bits_of_words": word_nats / math.log(2),
        },
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }  # fmt: skip
    if body.return_state and after is not None:
        found |= {"state": service.given(served, after, body.state_format), "tokens": after.tokens}
    return found


class _Pieces:
    """Tokens as ids, and as the texts that they add where they stand.

    Args:
        last: the token before the first.
    """

    def __init__(self, served: Served, last: int | None):
        self._decoder = served.tokenizer.decoder(last)
        self._alone = not served.tokenizer.tables.implied.any()  # what a token adds is the same everywhere
        self._known: dict[int, str | None] = {}

    def of(self, scored: Scored) -> dict[str, Any]:
        """Of one token, in the order of the text: its id, the ids of ``top``, and the text that each of them would add
        in its place; None where those are no whole characters."""
        assert scored.id is not None
        ids = scored.top_ids
        texts = None
        if ids is not None:
            texts = [None] * len(ids) if self._decoder.pending else [self._text(one) for one in ids]
        self._decoder.push(scored.id)
        return {"id": scored.id, "top_ids": ids, "top_texts": texts}

    def _text(self, token: int) -> str | None:
        if self._alone and token in self._known:
            return self._known[token]
        try:
            text = self._decoder.alternative(token).decode("utf-8")
        except UnicodeDecodeError:
            text = None
        self._known[token] = text
        return text


def _blocks(body: ScoreBody, served: Served) -> list[TextBlock]:
    tokenizer = served.tokenizer
    if body.words is not None:
        odd = next((one for one in body.words if any(sign in one for sign in "\t\r\n")), None)
        if odd is not None:
            raise UsageError("field 'words' holds a word with a tab or a line end in it; divide it there.")
        part = Part("the words", make="\n".join(body.words).encode)
        table = WordTable(join=body.join, quotes="plain")
        return list(read_words(part, table, spaced=bool(tokenizer.tables.implied.any())))
    assert body.text is not None
    try:
        data = body.text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the text is not valid Unicode at character {error.start}; remove it.") from error
    blocks = list(read_text(Part("the text", make=lambda: data), not tokenizer.reads_bytes, tokenizer.blanks))
    if not blocks:
        raise UsageError("the text is empty; send one.")
    return blocks
