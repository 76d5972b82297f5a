"""Generation by transformers: what is fed, and that the cache changes nothing."""

import copy

import pytest
import torch
from transformers import DynamicCache

from serve.hf.models import CACHE, FIVE, V, cache_of, five, ids, loaded, model_of
from unrolled.core import tree
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.hf import UnrolledCache

MODELS = pytest.mark.parametrize("name", FIVE)
GREEDY = {"do_sample": False, "max_new_tokens": 8}


def recomputed(model, text, steps):
    """Greedy decoding with a whole pass for every token, without generate."""
    for _ in range(steps):
        text = torch.cat([text, model(text, use_cache=False).logits[:, -1:].argmax(-1)], 1)
    return text


@MODELS
def test_greedy_is_recomputation_and_feeds_each_token_once(name, monkeypatch):
    model, text, fed = five(name), ids(2, 7), []
    read = model._read
    monkeypatch.setattr(model, "_read", lambda given, *rest: (fed.append(given.shape[1]), read(given, *rest))[1])
    out = model.generate(text, **GREEDY)
    assert fed == [7, 1, 1, 1, 1, 1, 1, 1]
    with torch.no_grad():
        assert torch.equal(out, recomputed(model, text, 8))
    assert len(set(out[:, 7:].flatten().tolist())) > 2


@MODELS
def test_beams_and_samples_are_those_without_a_cache(name):
    model, text = five(name), ids(2, 7)
    for options in ({"num_beams": 3, "num_return_sequences": 3}, {"num_beams": 2, "length_penalty": 2.0}):
        cached, uncached = (model.generate(text, use_cache=use, **GREEDY, **options) for use in (True, False))
        assert torch.equal(cached, uncached)
        assert len(cached) == 2 * options.get("num_return_sequences", 1)
    sampled = []
    for use in (True, False):
        torch.manual_seed(1)
        sampled.append(model.generate(text, use_cache=use, do_sample=True, num_return_sequences=3, max_new_tokens=8))
    assert torch.equal(*sampled)
    assert len({tuple(row) for row in sampled[0].tolist()}) == 6


@MODELS
def test_a_left_padded_batch_is_its_rows(name):
    model, text = five(name), ids(2, 7)
    mask = torch.ones(2, 7, dtype=torch.int64)
    mask[0, :3] = 0
    for options in ({}, {"num_beams": 2}, {"prefill_chunk_size": 2}):
        both = model.generate(text, attention_mask=mask, **GREEDY, **options)
        for row in range(2):
            alone = model.generate(text[row : row + 1, mask[row].bool()], **GREEDY, **options)
            assert torch.equal(both[row, 7:], alone[0, int(mask[row].sum()) :])


@MODELS
def test_going_on_from_its_own_cache(name):
    model, text = five(name), ids(1, 7)
    whole = model.generate(text, **{**GREEDY, "max_new_tokens": 11})
    first = model.generate(text, return_dict_in_generate=True, **GREEDY)
    for cache in (copy.deepcopy(cache_of(first)), cache_of(first)):  # the copy leaves the first as it was
        assert cache.get_seq_length() == 14
        again = model.generate(first.sequences, **{CACHE: cache, **GREEDY, "max_new_tokens": 3})
        assert torch.equal(again, whole)
        assert cache.get_seq_length() == 17  # a cache that was given is gone on with in place
    new = torch.cat([whole, ids(1, 2, seed=5)], 1)
    out = model.generate(whole[:, :14], return_dict_in_generate=True, **{**GREEDY, "max_new_tokens": 1})
    told = torch.ones(1, new.shape[1], dtype=torch.int64)
    later = model.generate(new[:, 14:], attention_mask=told, **{CACHE: cache_of(out), **GREEDY})
    assert torch.equal(later[0, -8:], model.generate(new, **GREEDY)[0, -8:])


@MODELS
def test_a_prompt_in_chunks(name):
    model, text = five(name), ids(2, 11)
    assert torch.equal(model.generate(text, prefill_chunk_size=4, **GREEDY), model.generate(text, **GREEDY))


@MODELS
def test_what_cuts_a_state_back_is_refused(name):
    model, text = five(name), ids(1, 7)
    for options in ({"assistant_model": five(name)}, {"prompt_lookup_num_tokens": 3}):
        with pytest.raises(ValueError, match="assisted generation is not supported with stateful models"):
            model.generate(text, **GREEDY, **options)
    with pytest.raises(UnrolledError, match="cannot be cut back"):
        cache_of(model(text)).crop(1)


@MODELS
def test_a_gradient_goes_through_a_carried_cache(name):
    model, text = five(name), ids(1, 8)
    embedded = model.get_input_embeddings()(text).detach().requires_grad_()
    (whole,) = torch.autograd.grad(model(inputs_embeds=embedded).logits[:, -1].sum(dim=1)[0] * 1e-3 +
                                   model(inputs_embeds=embedded).logits[0, -1, 3], embedded)  # fmt: skip
    first = model(inputs_embeds=embedded[:, :5])
    second = model(inputs_embeds=embedded[:, 5:], cache=cache_of(first))
    loss = second.logits[0, -1].sum() * 1e-3 + second.logits[0, -1, 3]
    (pieces,) = torch.autograd.grad(loss, embedded)
    assert float(pieces[:, :5].abs().max()) > 1e-6
    torch.testing.assert_close(pieces, whole, atol=1e-5, rtol=1e-3)


@MODELS
@torch.no_grad()
def test_a_state_is_saved_and_one_row_restored(name, tmp_path):
    model, text = five(name), ids(3, 7)
    cache = cache_of(model(text))
    tree.save_tree(tmp_path / "state.safetensors", cache.carried)
    kept = UnrolledCache(tree.load_tree(tmp_path / "state.safetensors", cache.carried), cache.seen)
    kept.batch_select_indices(torch.tensor([1]))
    assert kept.batch_size == 1
    expected = model(torch.cat([text, text[:, :2]], 1)).logits[1:2, -2:]
    torch.testing.assert_close(model(text[1:2, :2], cache=kept).logits, expected, atol=2e-5, rtol=1e-5)


@MODELS
@torch.no_grad()
def test_in_bf16(name, tmp_path):
    """All parameters and states in bf16; the text in pieces is nearly the whole."""
    model, text = five(name), ids(2, 9)
    model.save_pretrained(tmp_path)
    low = loaded(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in low.parameters()} == {torch.bfloat16}
    assert (low.lm.head.weight is low.lm.embedding.weight) == model.config.tie_word_embeddings
    whole, exact = low(text).logits.float(), model(text).logits
    assert 0 < float((whole - exact).abs().mean()) < 0.5 * float(exact.std())
    first = low(text[:, :6])
    later = low(text[:, 6:], cache=cache_of(first)).logits.float()
    assert float((later - whole[:, 6:]).abs().mean()) < 0.5 * float(exact.std())
    assert low.generate(text, **GREEDY).shape == (2, 17)


@pytest.mark.parametrize("name", ["lru", "s4", "urn"])
def test_a_type_that_is_too_narrow_is_refused(name, tmp_path):
    model_of(name).save_pretrained(tmp_path)
    with pytest.raises(UnrolledError, match=r"does not compute in bfloat16; load it with dtype=torch\.float32"):
        loaded(tmp_path, dtype=torch.bfloat16)


def test_caches_that_do_not_fit():
    model, text = five("lstm"), ids(2, 5)
    cache = cache_of(model(text))
    with pytest.raises(UnrolledError, match="2 rows and the ids 1"):
        model(text[:1], cache=cache)
    with pytest.raises(UnrolledError, match="two names of one argument"):
        model(text, cache=cache, past_key_values=UnrolledCache())
    foreign = DynamicCache()
    foreign.update(torch.zeros(2, 1, 3, 4), torch.zeros(2, 1, 3, 4), 0)
    with pytest.raises(UnrolledError, match="holds no state of this model"):
        model(text, past_key_values=foreign)
    cache.reset()
    assert torch.equal(model(text, cache=cache).logits, model(text).logits)


def test_what_a_call_cannot_be_given():
    model, text = five("lstm"), ids(2, 5)
    with pytest.raises(UnrolledError, match="the attention mask has the shape"):
        model(text, attention_mask=torch.ones(2, 4))
    with pytest.raises(UnrolledError, match=f"outside the vocabulary of {V}"):
        model(text + V)
    with pytest.raises(UsageError, match="input_ids or inputs_embeds"):
        model()
    with pytest.raises(UsageError, match="no hidden states of layers"):
        model(text, output_hidden_states=True)
    with pytest.raises(UsageError, match="cannot change"):
        model.resize_token_embeddings(V + 1)


@torch.no_grad()
def test_a_position_of_zero_begins_a_text():
    model, text = five("lstm"), ids(1, 8)
    packed = model(text, position_ids=torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4]])).logits
    torch.testing.assert_close(packed[:, 3:], model(text[:, 3:]).logits)
    assert not torch.allclose(packed, model(text).logits)


@torch.no_grad()
def test_a_head_that_remembers_words():
    """The pointer's words are carried, padding is none of them, and positions of zero forget them."""
    model, text = model_of("lstm", head={"name": "pointer", "length": 4}), ids(2, 9)
    whole = model(text).logits
    first = model(text[:, :4])
    later = model(text[:, 4:], cache=cache_of(first)).logits
    torch.testing.assert_close(torch.cat([first.logits, later], 1), whole)
    plain, state = model.lm(text), model.lm.initial_state(2).head
    scored = model.lm.head.loss(plain.raw[:, :-1], text[:, 1:], None, state)[1]
    torch.testing.assert_close(-whole[:, :-1].gather(2, text[:, 1:, None]).squeeze(2), scored)
    mask = torch.ones(2, 9, dtype=torch.int64)
    mask[0, :4] = 0
    torch.testing.assert_close(model(text, attention_mask=mask).logits[:1, 4:], model(text[:1, 4:]).logits)
    packed = model(text, position_ids=torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]])).logits
    torch.testing.assert_close(packed[:, 4:], model(text[:, 4:]).logits)
