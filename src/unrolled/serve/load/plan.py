"""What a load test asks."""

from pydantic import Field

from unrolled.core.config import Config

__all__ = ["LoadConfig"]


class LoadConfig(Config):
    """Settings of ``unrolled load-test``."""

    streams: int = Field(default=128, ge=1, le=100_000, description="texts that are written at once")
    seconds: float = Field(default=30, gt=0, description="how long it is measured, once all streams are open")
    prompt_tokens: int = Field(default=0, ge=0, description="ids of a prompt before each text")
    tokens: int = Field(default=200, ge=1, description="tokens of each text")
    part: int = Field(default=200, ge=1, description="tokens of each request; a text goes on from its state")
    drop: float = Field(default=0.0, ge=0, le=1, description="share of requests that hang up in the middle")
    check: int = Field(default=0, ge=0, description="texts that are compared with the same text written undisturbed")
    open_per_second: float = Field(default=100, gt=0, description="new streams a second at the beginning")
    patience: float = Field(default=60, gt=0, description="seconds that a server may be away")
    seed: int = Field(default=0, ge=0, description="of the texts")
