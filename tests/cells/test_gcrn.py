"""The graph convolutional recurrent network beside plain forms, and what its graph does."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conformance.material import wave
from conformance.tolerance import assert_close
from unrolled.cells.gated.gcrn import GCRN, GCRNConfig
from unrolled.core.errors import UsageError
from unrolled.core.graph import Graph
from unrolled.model import LanguageModel, ModelConfig
from unrolled.runs import Run
from unrolled.tasks import symbols
from unrolled.train import ExperimentConfig, train

NODES, FEATURES, MAPS, TIME = 7, 2, 3, 5
# weighted, and the last node has no edge
EDGES = ((0, 1, 0.5), (0, 3, 1.25), (1, 2, 2.0), (2, 5, 0.75), (3, 4, 0.3), (4, 5, 1.0))


def make(**options: Any) -> GCRN:
    torch.manual_seed(0)
    config = GCRNConfig(nodes=NODES, edges=EDGES, **options)
    cell = GCRN(FEATURES * NODES, MAPS * NODES, config).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.normal_(0, 0.5)
    return cell


def of_nodes(x: Tensor, count: int) -> Tensor:
    """(batch, time, count * nodes) -> (batch, time, nodes, count)."""
    return x.unflatten(-1, (count, NODES)).transpose(-1, -2)


def plain(cell: GCRN, x: Tensor) -> Tensor:
    """The equations node by node, with dense matrices of the graph: (batch, time, nodes, maps)."""
    terms = cell.config.terms
    weights = torch.zeros(NODES, NODES).double()
    for a, b, weight in EDGES:
        weights[a, b] = weights[b, a] = weight
    degree = weights.sum(1)
    root = torch.tensor([float(d) ** -0.5 if d > 0 else 0.0 for d in degree], dtype=torch.float64)
    laplacian = torch.eye(NODES).double() - torch.diag(root) @ weights @ torch.diag(root)
    scale = float(torch.linalg.eigvalsh(laplacian).max()) if cell.config.largest else 2.0
    scaled = 2 * laplacian / scale - torch.eye(NODES)
    powers = [torch.eye(NODES).double(), scaled]
    for _ in range(2, terms):
        powers.append(2 * scaled @ powers[-1] - powers[-2])

    def filtered(signal: Tensor, matrix: Tensor) -> Tensor:
        by_term = matrix.unflatten(1, (-1, terms))
        return sum(powers[k] @ signal @ by_term[..., k].T for k in range(terms))  # type: ignore[return-value]

    s, h = torch.sigmoid, torch.zeros(len(x), NODES, MAPS).double()
    c, outputs = h, []
    peep = {gate: getattr(cell, f"peephole_{gate}", torch.zeros(MAPS).double()) for gate in "ifo"}
    for t in range(x.shape[1]):
        pre = filtered(of_nodes(x, FEATURES)[:, t], cell.weight_ih) + filtered(h, cell.weight_hh) + cell.bias
        i, f, g, o = pre.split(MAPS, -1)
        c = s(f + peep["f"] * c) * c + s(i + peep["i"] * c) * torch.tanh(g)
        h = s(o + peep["o"] * c) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs, 1)


@pytest.mark.parametrize("terms", [2, 3, 5])
@pytest.mark.parametrize("options", [{}, {"largest": False, "peephole": False}])
def test_it_is_its_equations(terms: int, options: dict[str, Any]) -> None:
    cell, x = make(terms=terms, **options), wave(2, TIME, FEATURES * NODES).requires_grad_()
    found, wanted = of_nodes(cell(x)[0], MAPS), plain(cell, x)
    assert_close(found, wanted, "outputs")
    over = wave(*found.shape, phase=2.0)
    inputs = [x, *cell.parameters()]
    for a, b in zip(*(torch.autograd.grad((y * over).sum(), inputs) for y in (found, wanted)), strict=True):
        assert_close(a, b, "gradients")


def test_with_one_term_every_node_is_an_lstm_of_its_own() -> None:
    cell, x = make(terms=1, peephole=False), wave(2, TIME, FEATURES * NODES)
    other = nn.LSTM(FEATURES, MAPS, batch_first=True).double()
    with torch.no_grad():
        for name, value in (("weight_ih_l0", cell.weight_ih), ("weight_hh_l0", cell.weight_hh)):
            getattr(other, name).copy_(value)
        for name, value in (("bias_ih_l0", cell.bias), ("bias_hh_l0", torch.zeros_like(cell.bias))):
            getattr(other, name).copy_(value)
    found = of_nodes(cell(x)[0], MAPS)
    for node in range(NODES):
        assert_close(found[:, :, node], other(of_nodes(x, FEATURES)[:, :, node])[0], f"node {node}")


def test_nodes_have_no_order() -> None:
    cell, x = make(), wave(2, TIME, FEATURES * NODES)
    places = torch.tensor([3, 6, 0, 5, 1, 4, 2])  # new node k is the old node places[k]
    new = {int(old): k for k, old in enumerate(places)}
    edges = tuple((new[a], new[b], weight) for a, b, weight in EDGES)
    turned = GCRN(cell.in_width, cell.width, cell.config.model_copy(update={"edges": edges})).double()
    turned.load_state_dict(cell.state_dict())
    moved = of_nodes(x, FEATURES)[:, :, places].transpose(-1, -2).flatten(2)
    found = of_nodes(turned(moved)[0], MAPS)
    assert_close(found, of_nodes(cell(x)[0], MAPS)[:, :, places], "permuted nodes")


def test_what_a_node_sees_lies_within_its_terms() -> None:
    """One step reaches K - 1 edges, and an isolated node stays alone."""
    cell = make(terms=3)
    x = torch.zeros(1, 1, FEATURES * NODES).double()
    changed = x.clone()
    changed.view(FEATURES, NODES)[:, 0] = 1
    moved = (of_nodes(cell(changed)[0] - cell(x)[0], MAPS)[0, 0].abs().amax(1) > 1e-12).tolist()
    assert moved == [True, True, True, True, True, False, False]  # two edges away from node 0, not 5 at three, nor 6


def test_what_is_refused() -> None:
    for edges in (((0, 7, 1.0),), ((1, 1, 1.0),), ((0, 1, 0.0),), ((0, 1, 1.0), (1, 0, 2.0))):
        with pytest.raises(UsageError, match=r"no edge between two of 7 nodes|is there twice"):
            GCRNConfig.parse({"nodes": 7, "edges": edges})
    with pytest.raises(UsageError, match="the graph of a gcrn is to be that of the data"):
        LanguageModel(ModelConfig.parse({"width": 8, "cell": {"name": "gcrn", "graph": "data"}}), 8)
    for odd in (np.ones((2, 3)), np.array([[0.0, 1], [2, 0]]), np.array([[0.0, -1], [-1, 0]]), np.eye(2)):
        with pytest.raises(UsageError, match=r"square matrix|correct it"):
            Graph.of(odd)


def test_a_graph_is_told_once_and_also_to_a_cell_inside() -> None:
    found = Graph(3, ((0, 2, 1.0),))
    asked = []

    def graph() -> Graph:
        asked.append(1)
        return found

    around = ModelConfig.parse({"cell": {"name": "mogrifier", "cell": {"name": "gcrn", "graph": "data"}}})
    told = around.with_graph(graph)
    assert told.cell.cell.shape() == found  # type: ignore[union-attr]
    assert told.with_graph(graph) == told
    plain = ModelConfig.parse({"cell": ["gcrn", "lstm"], "layers": 2})
    assert plain.with_graph(graph) == plain
    assert len(asked) == 1


class Split:
    """Ids as a split of a text gives them."""

    def __init__(self, ids: list[int]):
        self._ids = np.array(ids)

    def __len__(self) -> int:
        return len(self._ids)

    def ids(self, start: int, stop: int) -> np.ndarray:
        return self._ids[start:stop]


@pytest.mark.parametrize("block", [1, 2, 100])
def test_symbols_are_joined_by_how_often_they_stand_side_by_side(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbols, "_BLOCK", block)
    found = symbols.symbol_graph(Split([0, 1, 0, 1, 2, 2, 2, 0]), 4)  # type: ignore[arg-type]
    # 0 and 1 three times, 1 and 2 once, 2 and 0 once; a symbol beside itself is no edge, and 3 has none
    third = 3**-0.5
    assert found.nodes == 4
    assert [edge[:2] for edge in found.edges] == [(0, 1), (0, 2), (1, 2)]
    assert np.allclose([edge[2] for edge in found.edges], [1, third, third])
    with pytest.raises(UsageError, match="no two different symbols"):
        symbols.symbol_graph(Split([1, 1]), 2)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is too large, 4096 is the most"):
        symbols.symbol_graph(Split([0, 1]), 5000)  # type: ignore[arg-type]


# of two symbols that stand side by side the first tells the second; which two come is drawn: log(3) / 2 nats a symbol
TEXT = "".join(np.random.default_rng(1).choice(["ab", "cd", "ef"], 1200))


def language_model(tmp_path: Path, terms: int, steps: int) -> tuple[Path, float]:
    (tmp_path / "text.txt").write_text(TEXT)
    config = ExperimentConfig.parse({
        "corpus": {"train": str(tmp_path / "text.txt"), "valid": str(tmp_path / "text.txt")},
        "tokenizer": {"name": "char"}, "stream": {"columns": 4, "window": 12},
        "model": {"width": 6 * 8, "embedding": {"one_hot": True}, "head": {"name": "nodes"},
                  "cell": {"name": "gcrn", "graph": "data", "terms": terms}},
        "train": {"steps": steps, "validations": 1, "threads": 1, "optimizer": {"name": "adam", "lr": 0.02}},
    })  # fmt: skip
    run = train(config, tmp_path / f"run{terms}", "cpu")
    return run, json.loads((run / "record.json").read_text())["valid"]["figures"]["nats_per_token"]


def test_a_language_model_of_nodes(tmp_path: Path) -> None:
    run, _ = language_model(tmp_path, 3, 2)
    opened = Run(run, "cpu")
    model: Any = opened.trained
    cell, head = model.stack.cells()[0], model.head
    size = model.vocab_size
    assert (cell.config.nodes, cell.weight_ih.shape[1]) == (size, 3), "one feature of each symbol"
    assert sum(one.numel() for one in head.parameters()) == 48 // size, "a number a map, for any vocabulary"
    h = torch.randn(2, 48)
    wanted = (head.weight[0].unsqueeze(1) * h.view(2, -1, size)).sum(1)
    assert_close(head.logits(h), wanted, "logits of each symbol's own node")
    with pytest.raises(UsageError, match="no matrix that could be tied"):
        LanguageModel(ModelConfig.parse({"width": 8, "head": "nodes", "embedding": {"tied": True}}), 8)


@pytest.mark.slow
def test_the_graph_says_which_symbol_came(tmp_path: Path) -> None:
    """With one term a symbol's node knows nothing of the others."""
    nats = [language_model(tmp_path, terms, 250)[1] for terms in (3, 1)]
    assert nats[0] < 0.7 < 1.0 < nats[1]
