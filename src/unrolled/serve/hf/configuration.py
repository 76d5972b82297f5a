"""The configuration that transformers reads."""

from typing import Any

from transformers import PreTrainedConfig

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.model import ModelConfig

__all__ = ["UnrolledConfig"]


class UnrolledConfig(PreTrainedConfig):
    """A :class:`ModelConfig` with the names that transformers asks for.

    There is no length beyond which a state cannot be carried, hence no ``max_position_embeddings``.

    Attributes:
        unrolled: the model's config as plain JSON values; absent: that of the default model.
        vocab_size: number of ids of the tokenizer.
        symbols: number of ids V of the model, those below it; absent: all. Others stand for padding (``pad_token_id``)
            or the start of a text (``bos_token_id``).
        start_id: what the model reads at the start of a text, in place of ``bos_token_id``.
        hidden_size, num_hidden_layers: follow from ``unrolled``.
        tie_word_embeddings: follows from ``unrolled``, and may not contradict it.
        use_cache: whether calls return the state, unless they say otherwise.
        bos_token_id, eos_token_id, pad_token_id: ids of those tokens, or None.
    Raises:
        UnrolledError: a config that is damaged or contradicts itself.
    """

    model_type = "unrolled"
    keys_to_ignore_at_inference = ["cache", "past_key_values"]

    unrolled: dict[str, Any] | None = None
    vocab_size: int = 256
    symbols: int | None = None
    start_id: int | None = None
    hidden_size: int | None = None
    num_hidden_layers: int | None = None
    tie_word_embeddings: bool | None = None
    use_cache: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    pad_token_id: int | None = None

    def __post_init__(self, **others: Any) -> None:
        try:
            model = ModelConfig.parse(self.unrolled or {})
        except UsageError as error:
            raise UnrolledError(f"the config of the model is damaged: {error}") from error
        tied = model.embedding.tied
        if self.tie_word_embeddings not in (None, tied):
            raise UnrolledError(
                f"tie_word_embeddings is {self.tie_word_embeddings}, and embedding.tied of the model is {tied}; make "
                "them equal."
            )
        self.tie_word_embeddings = tied
        self.hidden_size, self.num_hidden_layers = model.layer_widths()[-1], model.layers
        self.unrolled = model.model_dump(mode="json")
        self.symbols = self.vocab_size if self.symbols is None else self.symbols
        if not 0 < self.symbols <= self.vocab_size:
            raise UnrolledError(f"symbols is {self.symbols}, and is from 1 to vocab_size, {self.vocab_size}.")
        super().__post_init__(**others)

    def model_config(self) -> ModelConfig:
        """The model's own config."""
        return ModelConfig.parse(self.unrolled or {})
