"""Adaptive inputs, and the head that shares their tables."""

from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.kernels.cpu import why_no_library
from unrolled.model import LanguageModel, ModelConfig, count_params
from unrolled.model.embedding import Embedding, EmbeddingConfig
from unrolled.predict import NeuralPredictor, PackedPredictor

V, N, CUTS, DIV = 23, 8, (6, 14), 2.0
TABLES = {"cutoffs": CUTS, "div_value": DIV}
TOKENS = torch.arange(2 * 12).view(2, 12).mul(7) % V


def model(**options: Any) -> LanguageModel:
    torch.manual_seed(0)
    values = {
        "width": N,
        "cell": "lstm",
        "embedding": {**TABLES, "init": "normal", "scale": 1.0, "tied": True, "multiplier": 2.0},
        "head": {"name": "projected", **TABLES},
        **options,
    }
    made = LanguageModel(ModelConfig.parse(values), V).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def by_hand(one: LanguageModel, tables: Any, h: Tensor, temperature: float = 1.0) -> Tensor:
    """The formula of the head, group by group."""
    head: Any = one.head
    first = tables.maps[0] if head.first is None else head.first
    z = (h @ first) @ torch.cat([tables.weight, head.clusters]).t()
    z = z + torch.cat([head.bias[:6], head.cluster_bias])
    top = torch.log_softmax(z / temperature, -1)
    found = [top[..., :6]]
    for i, (low, high) in enumerate(((6, 14), (14, V))):
        z = (h @ tables.maps[i + 1]) @ tables.tails[i].t() + head.bias[low:high]
        found.append(top[..., 6 + i, None] + torch.log_softmax(z / temperature, -1))
    return torch.cat(found, -1)


def test_an_adaptive_input_looks_up_narrow_rows_and_widens_them() -> None:
    torch.manual_seed(1)
    config = EmbeddingConfig.parse({**TABLES, "init": "normal", "scale": 1.0, "multiplier": 3.0})
    embedding = Embedding(V, N, config).double()
    tables: Any = embedding.tables
    assert [tuple(rows.shape) for rows in embedding.looked_up()] == [(6, 8), (8, 4), (9, 2)]
    rows = [t @ m.t() for t, m in zip([tables.weight, *tables.tails], tables.maps, strict=True)]
    wanted = 3 * torch.cat(rows)
    torch.testing.assert_close(embedding(TOKENS), wanted[TOKENS])
    torch.testing.assert_close(embedding.table(), wanted)
    mask = torch.arange(V).view(V, 1) % 2 * 2.0
    torch.testing.assert_close(embedding(TOKENS, mask.double()), (wanted * mask)[TOKENS])
    torch.testing.assert_close(embedding.table(mask.double()), wanted * mask)


@pytest.mark.parametrize("tied", [True, False])
def test_the_head_is_its_formula(tied: bool) -> None:
    embedding = {**TABLES, "init": "normal", "scale": 1.0, "tied": tied}
    one = model(embedding=embedding)
    head: Any = one.head
    assert (head.tables is one.embedding.tables) == tied
    raw = one(TOKENS).raw.detach()
    wanted = by_hand(one, head.tables, raw)
    torch.testing.assert_close(head.log_prob(raw)[0], wanted)
    torch.testing.assert_close(head.tempered(1.7).log_prob(raw)[0], by_hand(one, head.tables, raw, 1.7))
    torch.testing.assert_close(wanted.exp().sum(-1), torch.ones_like(wanted[..., 0]))
    targets = TOKENS.roll(-1, 1)
    nll = -wanted.gather(2, targets.unsqueeze(2)).squeeze(2)
    total, found, _ = head.loss(raw, targets)
    torch.testing.assert_close(found, nll.detach())
    # tied, the first map is the embedding's alone
    parameters = [p for p in head.parameters() if not (tied and p is head.tables.maps[0])]
    for a, b in zip(torch.autograd.grad(total, parameters), torch.autograd.grad(nll.sum(), parameters), strict=True):
        torch.testing.assert_close(a, b)


def test_parameters_are_counted_once() -> None:
    one = model()
    tables, shared = 6 * 8 + 8 * 4 + 9 * 2, 8 * (8 + 4 + 2)
    own = V + 2 * (N + 1) + N * N
    names = [name for name, _ in one.named_parameters()]
    assert sum("tails" in name for name in names) == 2
    cells = sum(p.numel() for p in one.stack.parameters())
    assert one.num_params() == tables + shared + own + cells == count_params(one.config, V)


@pytest.mark.skipif(why_no_library() is not None, reason=str(why_no_library()))
def test_it_is_decoded_from_packed_weights() -> None:
    one = model().eval()
    plain, packed = NeuralPredictor(one, 0), PackedPredictor(one, 0)
    a, b = plain.begin(2), packed.begin(2)
    for t in range(5):
        torch.testing.assert_close(packed.predict(b).log_prob, plain.predict(a).log_prob)
        a, b = plain.observe(a, TOKENS[:, t]), packed.observe(b, TOKENS[:, t])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"head": {"name": "softmax"}}, "tied to the head projected alone"),
        ({"head": {"name": "projected", "cutoffs": [5, 14], "div_value": 2.0}}, "tables of other sizes"),
        ({"head": {"name": "projected", "cutoffs": [6, 14], "div_value": 1.5}}, "tables of other sizes"),
        ({"embedding": {"tied": True}}, "an adaptive input alone"),
        ({"embedding": {"cutoffs": [6, 6], "init": "normal"}}, "must rise strictly"),
        ({"embedding": {"cutoffs": [6], "div_value": 100.0, "init": "normal"}}, "lower div_value"),
        ({"embedding": {"cutoffs": [6]}}, "go with init"),
        ({"embedding": {"cutoffs": [6], "init": "normal", "project": 3}}, "go with init"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        model(**options)
