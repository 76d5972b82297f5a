"""What a server does and allows."""

from pathlib import Path

from pydantic import Field, model_validator

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.predict import PredictorConfig

__all__ = ["LOOPBACK", "ServeConfig"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class ServeConfig(Config):
    """Settings of ``unrolled serve``; sizes in bytes, times in seconds."""

    host: str = Field(default="127.0.0.1", description="address to listen at; others than loopback need api_key_file")
    port: int = Field(default=8000, ge=0, le=65535, description="port; 0 takes a free one")
    hosts: tuple[str, ...] = Field(default=(), description="further names that requests may come to (Host header)")
    predict: PredictorConfig = Field(
        default=PredictorConfig(), description="what is done to every model at test time, such as quantize"
    )
    threads: int = Field(default=2, ge=1, le=256, description="engine threads; each steps texts of its own")
    streams: int = Field(default=512, ge=1, le=1 << 16, description="texts written at once")
    queue: int = Field(default=256, ge=0, le=1 << 16, description="requests that wait for a place")
    max_tokens: int = Field(default=4096, ge=1, description="tokens written for one text")
    max_prompt: int = Field(default=65536, ge=1, description="tokens of one prompt")
    max_samples: int = Field(default=64, ge=1, description="texts of one request")
    max_body: int = Field(default=2 << 20, ge=1024, description="bytes of a request's body")
    max_seconds: float = Field(default=120, gt=0, description="time that writing one text may take")
    client_state: bool = Field(default=True, description="whether clients are given states, as signed blobs")
    state_key: Path | None = Field(
        default=None, description="file of keys, one of 64 hexadecimal digits a line; the first signs, all verify"
    )
    signature: bool = Field(default=True, description="whether states must be signed; false for a laboratory alone")
    state_bytes: int = Field(default=1 << 20, ge=1024, description="largest state that is given out as a blob")
    state_max_age: float | None = Field(default=None, gt=0, description="age at which a blob is refused")
    state_ttl: float = Field(default=3600, gt=0, description="time that a handle lives after its last use")
    state_memory: int = Field(default=256 << 20, ge=0, description="memory for the states of handles")
    api_key_file: Path | None = Field(default=None, description="file of the keys that requests need, one a line")
    rate: int | None = Field(default=None, ge=1, description="requests a minute for each key (or address without keys)")
    cors: tuple[str, ...] = Field(default=(), description="origins of other sites that may ask from a browser")
    flush_ms: float = Field(
        default=20, ge=0, le=1000, description="events of a stream lie so far apart at least once 64 texts are written"
    )
    drain: float = Field(default=20, ge=0, description="time that streams may go on once the server is asked to stop")
    page: bool = Field(default=True, description="whether / shows the page")
    runs_folder: Path | None = Field(
        default=None, description="runs whose learning curves /runs shows: a folder of runs, a comparison, or a run"
    )
    metrics: bool = Field(default=True, description="whether /metrics is there")

    @model_validator(mode="after")
    def _consistent(self) -> "ServeConfig":
        if self.host not in LOOPBACK and self.api_key_file is None:
            raise UsageError(
                "serving to other machines needs --api-key-file FILE (one key a line); or --host 127.0.0.1."
            )
        if self.state_key is not None and not (self.client_state and self.signature):
            raise UsageError("a key for states does not go with states that are not given out or not signed.")
        if not self.signature and self.host not in LOOPBACK:
            raise UsageError("states that are not signed are for this machine alone; leave out --no-signature.")
        return self
