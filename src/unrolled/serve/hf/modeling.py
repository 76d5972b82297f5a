"""The one class by which transformers runs a model of any cell."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from unrolled.core import tree
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.random import RandomStreams
from unrolled.model import LanguageModel, ModelState
from unrolled.serve.hf.cache import Carried, UnrolledCache, own_cache, rows_where
from unrolled.serve.hf.columns import last_columns, plan_of
from unrolled.serve.hf.configuration import UnrolledConfig
from unrolled.serve.hf.ids import own_ids, own_labels

__all__ = ["UnrolledForCausalLM"]

_FIELD = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"
"""What the carried state is called in an output; transformers 5.24 renamed it."""


class UnrolledForCausalLM(PreTrainedModel, GenerationMixin):
    """A language model of unrolled under the interface of transformers, whatever its cells and head.

    Logits are log-probabilities, which are logits too. In training mode masks of the config's dropout are drawn from
    torch's own generator. The state is carried by an :class:`UnrolledCache`, which a call with ``use_cache`` replaces
    in place or returns; without one a call begins a new text.
    """

    config: UnrolledConfig
    config_class = UnrolledConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    _is_stateful = True
    _no_split_modules: list[str] = []

    def __init__(self, config: UnrolledConfig):
        super().__init__(config)
        dtype = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            # not on the meta device: what a cell computes once from its config would be lost there
            with torch.device("cpu"):
                self.lm = LanguageModel(config.model_config(), config.symbols or config.vocab_size)
        finally:
            torch.set_default_dtype(dtype)
        self.lm.to(dtype)
        self._constants = {
            f"{name}.{key}" if name else key: (module, key, module.get_buffer(key).clone())
            for name, module in self.named_modules()
            for key in module._non_persistent_buffers_set
        }
        self._tied_weights_keys = self._aliases()
        self.post_init()

    def _aliases(self) -> dict[str, str]:
        """Every further name of a parameter -> its first one."""
        first: dict[int, str] = {}
        named = self.named_parameters(remove_duplicate=False)
        return {name: found for name, value in named if (found := first.setdefault(id(value), name)) != name}

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """Further names of parameters -> first ones: those of a tied embedding and those that layers share."""
        return dict(self._tied_weights_keys)

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: parts draw their weights when they are made."""

    @classmethod
    def from_pretrained(cls, *arguments: Any, **options: Any) -> Any:
        """As of every model of transformers.

        Raises:
            UnrolledError: weights that are missing, not expected, or of other shapes; a narrow ``dtype`` in which the
                cells do not compute (complex states have none).
        """
        wanted = options.pop("output_loading_info", False)
        try:
            loaded: Any = super().from_pretrained(*arguments, output_loading_info=True, **options)
        except RuntimeError as error:
            if "size" not in str(error) and "mismatch" not in str(error):
                raise
            raise UnrolledError("the weights have other shapes than the config says; export the run again.") from error
        model, info = loaded
        for kind in ("missing", "unexpected", "mismatched"):
            if names := sorted(map(str, info.get(f"{kind}_keys") or ())):
                raise UnrolledError(f"the weights do not fit the config ({kind}: {names[0]}); export the run again.")
        for module, key, value in model._constants.values():
            getattr(module, key).copy_(value)  # memory given anew
        if model.dtype not in (torch.float32, torch.float64):
            _try_narrow(model)
        return (model, info) if wanted else model

    def train(self, mode: bool = True) -> "UnrolledForCausalLM":
        """As of every module; the head stays in evaluation mode, since its softmax is the full one here."""
        super().train(mode)
        self.lm.head.eval()
        return self

    def get_input_embeddings(self) -> nn.Module:
        """The embedding: ids (batch, time) -> (batch, time, width)."""
        return self.lm.embedding

    def get_output_embeddings(self) -> nn.Module:
        """The head."""
        return self.lm.head

    def set_input_embeddings(self, value: Any) -> None:
        """Raises UsageError: the embedding belongs to the model's config."""
        raise UsageError("the embedding cannot be replaced; train a run with another config and export that.")

    def set_output_embeddings(self, new_embeddings: Any) -> None:
        """Raises UsageError, as :meth:`set_input_embeddings`."""
        self.set_input_embeddings(new_embeddings)

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *args: Any, **options: Any) -> nn.Module:
        """The embedding, where the size stays. Raises UsageError for another one."""
        if new_num_tokens not in (None, self.config.vocab_size):
            raise UsageError(
                f"the vocabulary has {self.config.vocab_size} ids and cannot change; train with another tokenizer."
            )
        return self.lm.embedding

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        cache: Any = None,
        past_key_values: Any = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        position_ids: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """Read a window.

        Args:
            input_ids: (batch, time). inputs_embeds: in their place, what the embedding gives.
            attention_mask: (batch, columns), 0 for padding; of more columns than ids the last count.
            cache, past_key_values: two names of the state to go on from.
            labels: (batch, time) of the same text as the ids; they are shifted here, and -100 is left out.
            use_cache: whether the state after the window is returned; absent: as the config says, and not in training.
            logits_to_keep: the last so many columns, or their indices; 0: all.
            position_ids: without a cache, a 0 after the first column begins a new text.
            options: go to the loss.
        Raises:
            UnrolledError: a mask, cache or ids that do not fit. UsageError: hidden states or attentions of layers.
        """
        if output_hidden_states or output_attentions:
            raise UsageError("a recurrent model gives no hidden states of layers here; see LanguageModel.trace.")
        if (input_ids is None) == (inputs_embeds is None):
            raise UsageError("give input_ids or inputs_embeds, and not both.")
        given = input_ids if inputs_embeds is None else inputs_embeds
        assert given is not None
        if use_cache is None:
            use_cache = bool(self.config.use_cache) and not self.training
        held = own_cache(cache, past_key_values)
        carried = self._carried(held, len(given))
        real = last_columns(attention_mask, *given.shape[:2])
        if inputs_embeds is None:
            given, real = own_ids(self.config, given, real)
        begins = None
        if position_ids is not None and (held is None or held.carried is None):
            begins = (position_ids == 0).expand(given.shape[:2]).clone()
            begins[:, 0] = False
            begins = begins if real is None else begins & real
        logits, carried = self._read(given, real, begins, carried, use_cache, logits_to_keep)
        if more := self.config.vocab_size - self.lm.vocab_size:
            logits = pad(logits, (0, more), value=-torch.inf)
        loss = None
        if labels is not None:
            labels = own_labels(self.config, labels)
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **options)
        after = None
        if use_cache:
            after = held if held is not None else UnrolledCache()
            after.carried, after.seen = carried, after.seen + given.shape[1]
        if return_dict is False or (return_dict is None and not self.config.return_dict):
            return tuple(value for value in (loss, logits, after) if value is not None)
        output: Any = CausalLMOutputWithPast(loss=loss, logits=logits)
        if after is not None:
            output[_FIELD] = after
        return output

    def _carried(self, held: UnrolledCache | None, batch: int) -> Carried:
        """The state to go on from."""
        if held is not None and held.carried is not None:
            if held.batch_size != batch:
                raise UnrolledError(f"the cache has {held.batch_size} rows and the ids {batch}; give equally many.")
            return held.carried
        start, like = self.lm.initial_state(batch), self.lm.embedding.weight
        hidden = like.new_zeros(batch, self.lm.stack.out_width)
        return Carried(start.cells, start.head, hidden, torch.zeros(batch, dtype=torch.bool, device=like.device))

    def _read(
        self,
        given: Tensor,
        real: Tensor | None,
        begins: Tensor | None,
        carried: Carried,
        keep: bool,
        last: int | Tensor,
    ) -> tuple[Tensor, Carried]:
        """The logits (batch, columns kept, V) of a window and the state after it."""
        batch, time = given.shape[:2]
        embedded = given.dim() == 3
        if carried.head is not None:
            if embedded:
                raise UsageError("a head that remembers words needs ids; give input_ids in place of inputs_embeds.")
            return self._read_stepwise(given, real, begins, carried)
        plan, streams = plan_of(real, carried.begun, time, keep, begins), None
        if self.training:
            streams = RandomStreams(int(torch.randint(1 << 31, ())))
        start, outputs, masks = carried, [], None
        for low, high, still in plan.pieces:
            part, reset = given[:, low:high], None if plan.reset is None else plan.reset[:, low:high]
            masks = None if streams is None else self.lm.draw_masks(batch, high - low, streams, 0)
            read = self.lm.run_stack if embedded else self.lm
            out = read(part, ModelState(carried.cells, None), reset, masks)
            new = Carried(out.state.cells, None, out.dropped[:, -1], torch.ones_like(carried.begun))
            carried = new if still is None else rows_where(still, carried, new)
            outputs.append(out.dropped)
        hidden = torch.cat(outputs, 1) if len(outputs) > 1 else outputs[0]
        if plan.empty is not None:
            first = self._carried(None, batch) if not bool(start.begun.any()) else start
            carried = rows_where(plan.empty, first, carried)
        drawn = None if masks is None else masks.head
        if drawn is None:
            return self.lm.head.log_prob(_kept(hidden, last))[0], carried
        return _kept(self.lm.head.log_prob(hidden, None, drawn)[0], last), carried

    def _read_stepwise(
        self, ids: Tensor, real: Tensor | None, begins: Tensor | None, carried: Carried
    ) -> tuple[Tensor, Carried]:
        """As :meth:`_read`, for a head that carries something: it learns each token from the output before it."""
        rows, logits = torch.ones_like(carried.begun), []
        for t in range(ids.shape[1]):
            if begins is not None and bool(begins[:, t].any()):
                carried = rows_where(begins[:, t], self._carried(None, len(ids)), carried)
            one = ids[:, t : t + 1]
            _, _, head = self.lm.head.loss(carried.hidden.unsqueeze(1), one, None, carried.head)
            head = tree.reset_rows(carried.head, head, carried.begun)
            out = self.lm(one, ModelState(carried.cells, None))
            new = Carried(out.state.cells, head, out.dropped[:, -1], rows)
            carried = new if real is None else rows_where(~real[:, t], carried, new)
            logits.append(self.lm.head.log_prob(carried.hidden, carried.head)[0])
        return torch.stack(logits, 1), carried


def _kept(value: Tensor, last: int | Tensor) -> Tensor:
    """The columns that are asked for."""
    return value[:, -last:] if isinstance(last, int) and last else value if isinstance(last, int) else value[:, last]


@torch.no_grad()
def _try_narrow(model: UnrolledForCausalLM) -> None:
    """Raises UnrolledError where a few tokens show that a model does not compute in its narrow type."""
    ids = torch.arange(8, device=model.lm.device).unsqueeze(0) % model.lm.vocab_size
    try:
        sound = bool(model.eval()(ids, use_cache=False).logits[..., : model.lm.vocab_size].isfinite().all())
    except (RuntimeError, TypeError, ValueError):
        sound = False
    if not sound:
        name = str(model.dtype).removeprefix("torch.")
        raise UnrolledError(f"this model does not compute in {name}; load it with dtype=torch.float32.")
