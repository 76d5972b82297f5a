"""Nearest neighbours: the search, the mixture against a plain one, and what changes nothing."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from conformance.predictors.build import IDS, _tokenizer, reader, source
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.data import TokenSplit
from unrolled.evaluate import EvalConfig, evaluate_predictor
from unrolled.predict import ADAPTERS, NeuralPredictor, PredictorConfig, adapt
from unrolled.predict.clusters import Members, cluster
from unrolled.predict.datastore import Datastore
from unrolled.predict.nearest import NeighboursConfig, NeighboursPredictor
from unrolled.predict.neighbours import stored_text


def drawn(count: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("count", "width", "k"), [(2000, 16, 10), (40_000, 3, 50), (7, 4, 20), (16_385, 2, 16_384)])
def test_the_exact_search_finds_the_nearest(count: int, width: int, k: int) -> None:
    keys, queries = drawn(count, width), drawn(5, width, 1)
    store = Datastore(keys.numpy(), np.zeros(count), np.zeros(1))
    found, entries = store.nearest(queries, k)
    wanted = torch.cdist(queries, keys).square().sort(1)
    assert torch.equal(entries, wanted.indices[:, :k])
    assert torch.allclose(found, wanted.values[:, :k], rtol=1e-9, atol=1e-12)
    again = store.nearest(queries, k)
    assert torch.equal(again[0], found)
    assert torch.equal(again[1], entries)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_distances_do_not_cancel(dtype: str) -> None:
    """|k|^2 - 2 q k + |q|^2 of far and close keys loses all digits in float32; what is returned does not."""
    keys = (1000 + torch.arange(6.0).unsqueeze(1).expand(-1, 8)).numpy().astype(dtype)
    store = Datastore(keys, np.zeros(6), np.zeros(1))
    found, entries = store.nearest(torch.full((1, 8), 1001.25), 3)
    assert entries.tolist() == [[1, 2, 0]]
    assert found.tolist() == [[8 * 0.0625, 8 * 0.5625, 8 * 1.5625]]


def by_hand(model: NeuralPredictor, keys: Tensor, values: Tensor, ids: Tensor, config: NeighboursConfig) -> Tensor:
    """Nats (batch, time): probabilities, one query and one neighbour after another."""
    nats = torch.zeros(ids.shape, dtype=torch.float64)
    for row, text in enumerate(ids):
        state = model.begin(1)
        for t, token in enumerate(text.tolist()):
            log_prob, hidden = model.predict(state)
            assert hidden is not None
            near = sorted(
                (float((key - hidden[0]).square().sum()), int(v)) for key, v in zip(keys, values, strict=True)
            )
            mass = [(math.exp(-distance / config.tau), value) for distance, value in near[: config.k]]
            found = sum(m for m, value in mass if value == token) / sum(m for m, _ in mass)
            model_has = float(log_prob[0, token].exp())
            nats[row, t] = -math.log((1 - config.weight) * model_has + config.weight * found)
            state = model.observe(state, text[t : t + 1])
    return nats


def test_the_mixture_is_the_plain_one() -> None:
    model, config = reader(), NeighboursConfig(k=6, weight=0.4, tau=0.7)
    keys, values = drawn(50, 6), torch.arange(50) % 5
    store = Datastore(keys.numpy(), values.numpy(), np.zeros(1))
    wanted = by_hand(model, keys, values, IDS, config)
    predictor = NeighboursPredictor(model, config, store)
    assert float((predictor.window(predictor.begin(len(IDS)), IDS).nll - wanted).abs().max()) < 1e-9
    assert float((model.window(model.begin(len(IDS)), IDS).nll - wanted).abs().max()) > 1e-3


@pytest.mark.parametrize("pointers", [False, True])
def test_no_weight_changes_nothing(pointers: bool) -> None:
    model = reader()
    config = PredictorConfig.parse({"neighbours": {"weight": 0, "k": 3, "pointers": pointers}})
    predictor = adapt(reader(), config, source)
    state, plain = predictor.begin(len(IDS)), model.begin(len(IDS))
    assert torch.equal(predictor.predict(state).log_prob, model.predict(plain).log_prob)
    assert torch.equal(predictor.window(state, IDS).nll, model.window(plain, IDS).nll)


def test_what_is_stored_follows_the_documents() -> None:
    model, ids, tables = reader(), IDS[0].numpy().astype(np.int64), _tokenizer().tables
    made = stored_text(model, TokenSplit(ids, tables, starts=np.array([0, 4])), None, False)
    assert made["begins"].unique().tolist() == [0, 4]
    alone = model.window(model.begin(1), IDS[:1, 4:]).hidden
    assert alone is not None
    assert torch.allclose(made["keys"][4:], alone[0], atol=1e-12)
    assert made["ids"].tolist() == ids.tolist()


def test_the_stored_text_is_not_measured() -> None:
    store = Datastore(drawn(50, 6).numpy(), np.arange(50) % 5, np.zeros(1), holds="abc")
    predictor = NeighboursPredictor(reader(), NeighboursConfig(k=2), store)
    text, tables = IDS[0].numpy().astype(np.int64), _tokenizer().tables
    with pytest.raises(UsageError, match="each token finds itself"):
        evaluate_predictor(predictor, TokenSplit(text, tables, checksum="abc"), EvalConfig())
    assert evaluate_predictor(predictor, TokenSplit(text, tables, checksum="abd"), EvalConfig()).tokens == len(text)


def test_options_that_do_not_go_together() -> None:
    for options, said in (
        ({"least": 9, "most": 8}, "raise most or lower least"),
        ({"clusters": True}, "pointers=true"),
        ({"store": "s", "limit": 3}, "leave out one"),
    ):
        with pytest.raises(UsageError, match=said):
            PredictorConfig.parse({"neighbours": options})
    with pytest.raises(UsageError, match="leave out neighbours"):
        adapt(reader(), PredictorConfig.parse({"neighbours": {}}), None)


def test_keys_that_are_no_numbers() -> None:
    keys = drawn(5, 2)
    keys[3, 1] = math.inf
    with pytest.raises(UnrolledError, match="not a finite number"):
        Datastore(keys.numpy(), np.zeros(5), np.zeros(1))


def test_clusters_and_their_members() -> None:
    middles = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]])
    of = torch.arange(60) % 3
    keys = (middles[of] + drawn(60, 2).float()).numpy()
    found = cluster(keys, 3)
    assert len({(int(a), int(b)) for a, b in zip(of, found, strict=True)}) == 3, "one cluster for each group"
    assert np.array_equal(cluster(keys, 3), found)
    members = Members.make(of)
    pointers = torch.tensor([[4, 1, 60, 60, 60, 60], [60] * 6, [2, 0, 1, 3, 4, 5]])
    filled = members.filled(pointers, 60)
    assert filled.tolist() == [[4, 1, 7, 10, 13, 16], [60] * 6, [2, 0, 1, 3, 4, 5]]
    two = members.filled(torch.tensor([[4, 2, *[60] * 30]]), 60)[0].tolist()
    assert two == [4, 2, *range(1, 4, 3), *range(7, 60, 3), *(range(5, 60, 3))][:32]


def test_faiss_with_all_cells_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    from unrolled.predict.approximate import INDEX, approximate_finder

    keys = drawn(2000, 16).half()
    queries = drawn(20, 16, 1).float()
    exact = Datastore(keys.numpy(), np.zeros(2000), np.zeros(1)).nearest(queries, 8)
    for probes, same in ((10**6, True), (1, False)):
        finder = approximate_finder(keys.numpy(), probes, tmp_path)
        found = Datastore(keys.numpy(), np.zeros(2000), np.zeros(1), finder=finder).nearest(queries, 8)
        assert torch.equal(found[1], exact[1]) == same
    assert (tmp_path / INDEX).is_file()
    with pytest.raises(UnrolledError, match="another store"):
        approximate_finder(keys[:50].numpy(), 3, tmp_path)
    (tmp_path / INDEX).write_bytes(b"no index")
    with pytest.raises(UnrolledError, match="damaged"):
        approximate_finder(keys.numpy(), 3, tmp_path)


def test_faiss_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    real: Callable[..., object] = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "faiss" else real(name, *more))
    config = PredictorConfig.parse({"neighbours": {"search": "faiss"}})
    with pytest.raises(UnrolledError, match=r'pip install "unrolled\[knn\]"'):
        adapt(reader(), config, source)


def test_it_is_in_the_table() -> None:
    assert ADAPTERS["neighbours"].needs_hidden
