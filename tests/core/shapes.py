"""Configurations with a part by name, a nested part and a version, to test with."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from unrolled.core.config import Config, VersionedConfig
from unrolled.core.registry import Registry


class BallConfig(Config):
    name: Literal["ball"] = "ball"
    radius: float = Field(default=1.0, gt=0, description="radius in metres")


class BoxConfig(Config):
    name: Literal["box"] = "box"
    height: int = Field(default=1, description="height in metres")


class Ball:
    Config = BallConfig


class Box:
    Config = BoxConfig


SHAPES: Registry[Any] = Registry("shape", {"ball": f"{__name__}:Ball", "box": f"{__name__}:Box"})
AnyShape = Annotated[SerializeAsAny[Config], BeforeValidator(SHAPES.parse)]


class Inner(Config):
    rate: float = Field(default=0.1, ge=0, lt=1, description="a rate")
    steps: int = Field(default=3, description="a count")


class Outer(VersionedConfig):
    kind: ClassVar[str] = "outer"
    inner: Inner = Field(default=Inner(), description="a part")
    shape: AnyShape = Field(default=BallConfig(), description="a shape")
    title: str = Field(default="", description="a title")
