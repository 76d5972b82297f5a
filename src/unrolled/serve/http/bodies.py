"""What requests may say. Unknown fields are refused with the nearest known one."""

import json
from typing import Any, Literal, TypeVar

from pydantic import Field, model_validator
from starlette.requests import Request

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.core.files import nested_deeper
from unrolled.generate.config import Choosing

__all__ = ["AdvanceBody", "CompletionBody", "ForkBody", "InspectBody", "ScoreBody", "StateBody", "parsed"]

_MOST_STOPS, _LONGEST_STOP = 8, 64


Body = TypeVar("Body", bound=Config)
StateFormat = Literal["blob", "handle"]


class StreamOptions(Config):
    """Options of streaming."""

    include_usage: bool = Field(default=False, description="an event with the usage before the end")


class CompletionBody(Choosing):
    """A request for completions, in OpenAI's form; the sampler's options, ``first`` and states are ours."""

    model: str | None = Field(default=None, description="name or id of a model; optional where only one is served")
    prompt: str | list[str] | list[int] | list[list[int]] = Field(
        default="", description="text, ids, or a list of either; an empty one goes on from the state, or begins a text"
    )
    max_tokens: int = Field(default=16, ge=0, description="tokens written for each text; 0 reads only")
    no_repeat: int | None = Field(default=None, ge=1, le=64, description="no sequence of so many tokens twice")
    n: int = Field(default=1, ge=1, description="texts for each prompt")
    stream: bool = Field(default=False, description="server-sent events as the text is written")
    stream_options: StreamOptions | None = Field(default=None, description="options of streaming")
    logprobs: int | None = Field(default=None, ge=0, le=20, description="the so many likeliest tokens at each place")
    echo: bool = Field(default=False, description="the prompt comes back before the text, with its log-probabilities")
    stop: str | list[str] | None = Field(default=None, description="up to 8 strings that end a text")
    seed: int | None = Field(default=None, ge=0, description="equal seeds give equal texts; absent: a random one")
    logit_bias: dict[str, float] | None = Field(default=None, description="id -> what is added to its log-probability")
    user: str | None = Field(default=None, description="accepted for OpenAI's clients, and not used")
    suffix: str | None = Field(default=None, description="not supported: these models read forwards")
    best_of: int | None = Field(default=None, ge=1, description="not supported beyond n")
    presence_penalty: float = Field(default=0.0, ge=-2, le=2, description="taken off tokens that were written")
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2, description="taken off once for each time")
    first: Literal["null", "score"] | None = Field(
        default=None,
        description="log-probability of a text's first token: null, as OpenAI's, or its score after the start symbol; "
        "default: null without a state",
    )
    state: str | None = Field(default=None, description="blob or handle of the state to go on from")
    return_state: bool = Field(default=False, description="the state after each text comes with it")
    state_format: StateFormat = Field(default="blob", description="as what the state comes")

    @model_validator(mode="after")
    def _supported(self) -> "CompletionBody":
        if self.suffix:
            raise UsageError("field 'suffix' is not supported: these models read forwards; leave it out.")
        if self.best_of not in (None, self.n):
            raise UsageError("field 'best_of' beyond n is not supported; leave it out.")
        if self.constrain is not None and self.constrain.reads_files:
            raise UsageError(f"field 'constrain': {self.constrain.name} reads a file; choose another constraint.")
        stops = self.stops
        if len(stops) > _MOST_STOPS or any(not 1 <= len(one) <= _LONGEST_STOP for one in stops):
            raise UsageError(
                f"field 'stop' takes up to {_MOST_STOPS} strings of 1 to {_LONGEST_STOP} characters; shorten it."
            )
        return self

    @property
    def stops(self) -> list[str]:
        """The stop strings."""
        return [] if self.stop is None else [self.stop] if isinstance(self.stop, str) else self.stop

    @property
    def prompts(self) -> list[str | list[int]]:
        """One a text, or a list of ids."""
        prompt = self.prompt
        if isinstance(prompt, str):
            return [prompt]
        if all(isinstance(one, int) for one in prompt) and prompt:
            return [prompt]  # type: ignore[list-item]
        return list(prompt) or [""]  # type: ignore[arg-type]


class ScoreBody(Config):
    """A request for the surprisal of a text's words or tokens."""

    model: str | None = Field(default=None, description="name or id of a model; optional where only one is served")
    text: str | None = Field(default=None, description="running text")
    ids: list[int] | None = Field(default=None, description="tokens in place of a text; rows are about tokens then")
    words: list[str] | None = Field(default=None, description="words in place of a text; an empty one ends a line")
    join: Literal["script", "space", "none"] = Field(default="script", description="what stands between words")
    state: str | None = Field(default=None, description="blob or handle of the state to go on from")
    unit: Literal["word", "token"] = Field(default="word", description="what one row is about")
    boundary: Literal["leading", "trailing"] = Field(
        default="leading", description="to which word a word's end belongs"
    )
    reset: Literal["none", "line", "document"] = Field(default="none", description="where the state begins anew")
    entropy: bool = Field(default=False, description="entropy of the distribution of the first token")
    rank: bool = Field(default=False, description="rank of the first token")
    top_k: int | None = Field(default=None, ge=1, le=100, description="the likeliest tokens in place of the first")
    pieces: bool = Field(default=False, description="the id of the first token; of the likeliest ones ids and texts")
    close: bool = Field(default=True, description="whether the text ends here; false where another part may follow")
    ends: bool | None = Field(default=None, description="rows for line ends; by default for running text only")
    return_state: bool = Field(default=False, description="the state after the text comes with the rows")
    state_format: StateFormat = Field(default="blob", description="as what the state comes")

    @model_validator(mode="after")
    def _one_text(self) -> "ScoreBody":
        if sum(one is not None for one in (self.text, self.ids, self.words)) != 1:
            raise UsageError("give one of the fields 'text', 'ids' and 'words'.")
        if self.pieces and self.ids is None and self.unit == "word":
            raise UsageError("field 'pieces' is about tokens; say unit = token, or leave it out.")
        return self


class StateBody(Config):
    """A request for a new state."""

    model: str | None = Field(default=None, description="name or id of a model; optional where only one is served")
    text: str = Field(default="", description="what is read")
    state_format: StateFormat = Field(default="handle", description="as what the state comes")


class AdvanceBody(Config):
    """A request for the state after more text."""

    model: str | None = Field(default=None, description="name or id of the model; optional where only one is served")
    state: str = Field(description="blob or handle")
    text: str = Field(description="what is read")
    state_format: StateFormat = Field(default="handle", description="as what the state comes")


class ForkBody(Config):
    """A request for further handles of one state."""

    model: str | None = Field(default=None, description="name or id of the model; optional where only one is served")
    state: str = Field(description="blob or handle")
    n: int = Field(default=1, ge=1, le=64, description="how many")


class InspectBody(Config):
    """A question about a state."""

    model: str | None = Field(default=None, description="name or id of the model; optional where only one is served")
    state: str = Field(description="blob or handle")


async def parsed(request: Request, kind: type[Body]) -> Body:
    """The body of a request. Raises UsageError in one sentence."""
    data = await request.body()
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_refuse)
        if not isinstance(value, dict):
            raise ValueError("no object")
        if nested_deeper(value):
            raise UsageError("the values of the request lie in each other too deeply; it needs no such depth.")
    except (ValueError, RecursionError) as error:
        raise UsageError('the body is no JSON object in UTF-8; send one, such as {"prompt": "The "}.') from error
    try:
        return kind.parse(value)
    except UsageError as error:
        raise UsageError(str(error).replace("config key", "field")) from error


def _refuse(sign: str) -> Any:
    raise ValueError(sign)
