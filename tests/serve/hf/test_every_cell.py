"""Every registered causal cell, and every memory, under the interface of transformers: one path, no list."""

from typing import Any

import pytest
import torch

from families import family_of, first_of_each
from serve.hf.models import EXAMPLES, cache_of, ids, model_of
from unrolled.model import ModelState
from unrolled.serve.hf.modeling import UnrolledForCausalLM


def _kind(example: tuple[str, Any, dict[str, Any]]) -> str:
    """Cells by their family, each memory for itself."""
    name, _, options = example
    return name if options else family_of(name)


CASES = pytest.mark.parametrize(
    ("name", "config", "options"),
    first_of_each(EXAMPLES, _kind, keep=3, unpack=True),
    ids=[f"{name}-{i}" for i, (name, *_) in enumerate(EXAMPLES)],
)


@CASES
@torch.no_grad()
def test_a_text_in_pieces_is_the_whole(name, config, options):
    model, text = model_of(config, **options), ids(2, 15)
    whole = model(text, use_cache=False)
    raw = model.lm(text, ModelState(model.lm.initial_state(2).cells)).raw
    torch.testing.assert_close(whole.logits, model.lm.head.log_prob(raw)[0], atol=0, rtol=0)
    assert "cache" not in whole
    assert "past_key_values" not in whole
    out, parts, low = model(text[:, :7]), [], 7
    parts.append(out.logits)
    for size in (1, 2, 5):
        out = model(text[:, low : low + size], past_key_values=cache_of(out))
        parts.append(out.logits)
        low += size
    assert cache_of(out).get_seq_length() == 15
    torch.testing.assert_close(torch.cat(parts, 1), whole.logits, atol=2e-5, rtol=1e-5)


@CASES
@torch.no_grad()
def test_padding_is_not_read(name, config, options):
    """Padding at the left, and a gap within: each row is what it is alone, and the state after it too."""
    model, text = model_of(config, **options), ids(2, 9)
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 1, 1, 0, 1]])
    out = model(text, attention_mask=mask)
    for row in range(2):
        real = mask[row].bool()
        alone = model(text[row : row + 1, real])
        torch.testing.assert_close(out.logits[row : row + 1, real], alone.logits, atol=2e-5, rtol=1e-5)
    going_on = ids(2, 2, seed=1)
    after = model(going_on, cache=cache_of(out)).logits
    for row in range(2):
        alone = model(torch.cat([text[row, mask[row].bool()], going_on[row]]).unsqueeze(0)).logits
        torch.testing.assert_close(after[row : row + 1], alone[:, -2:], atol=2e-5, rtol=1e-5)


@CASES
@torch.no_grad()
def test_saved_and_loaded(name, config, options, tmp_path):
    model, text = model_of(config, embedding={"one_hot": True} if name == "lstm" else {}, **options), ids(2, 9)
    model.save_pretrained(tmp_path)
    again = UnrolledForCausalLM.from_pretrained(tmp_path)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    # on some processors products round by where their factors lie in memory
    assert torch.allclose(again(text).logits, model(text).logits, rtol=0, atol=2e-6)
