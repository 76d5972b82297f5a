"""Options of documents that are read before the text."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from unrolled.predict.adapter import AdapterConfig
from unrolled.predict.retriever import RetrieverConfig

__all__ = ["DocumentsConfig"]


class DocumentsConfig(AdapterConfig):
    """Options of documents."""

    short: ClassVar[str | None] = "store"

    name: Literal["documents"] = "documents"
    store: str | None = Field(
        default=None,
        description="folder that `unrolled store --documents` made; absent: pieces of the run's training text",
    )
    k: int = Field(default=4, ge=1, description="documents that are read")
    stride: int = Field(default=16, ge=1, description="tokens between two retrievals")
    query: int = Field(default=32, ge=1, description="last tokens that are looked for, and read after a new document")
    weights: Literal["scores", "equal"] = Field(
        default="scores", description="of the documents: the softmax of their scores, or equal (the published code)"
    )
    tau: float = Field(default=1.0, gt=0, description="divides the scores before the softmax")
    piece: int = Field(default=64, ge=1, description="without a store: tokens of a piece of the training text")
    limit: int | None = Field(
        default=None, ge=1, description="without a store: only the first so many tokens of the training text"
    )
    retriever: Literal["bm25", "learned"] = Field(
        default="bm25",
        description="what finds documents: the words in common, or an encoder that learns on the validation text what "
        "helps the model (LSR), kept with the run",
    )
    learning: RetrieverConfig = Field(default=RetrieverConfig(), description="of the retriever that learns")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.retriever == "bm25" and self.learning != RetrieverConfig():
            raise ValueError("documents.learning is of the retriever that learns; set documents.retriever=learned too")
        if self.store is not None and self.limit is not None:
            raise ValueError("documents.limit is of the training text, and a store is given; leave out one of them")
        return self
