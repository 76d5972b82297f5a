"""The LTM against its equations, how far its gradient reaches beside an LSTM's, and on words."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, sigmoid

from conformance.tolerance import assert_close
from unrolled.analyse import MemoryConfig, measure_memory, memory_record, open_reader, passage_of_run
from unrolled.cells import CELLS
from unrolled.cells.gated.ltm import LTM, LTMConfig, LTMState
from unrolled.data import MissingCorpusError
from unrolled.runs import Run
from unrolled.train import ExperimentConfig, train

B, T, N = 2, 37, 16


@pytest.mark.parametrize(("join", "inputs"), [("sum", N), ("sum", 9), ("concat", 9)])
def test_the_equations(join: Any, inputs: int) -> None:
    torch.manual_seed(0)
    cell = LTM(inputs, N, LTMConfig(join=join)).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.mul_(3)  # so that gates move
    w = {name: parameter.detach() for name, parameter in cell.named_parameters()}
    x = torch.randn(B, T, inputs, dtype=torch.float64)
    h, c = torch.randn(2, B, N, dtype=torch.float64).unbind()
    y, final = cell(x, LTMState(h, c))
    wide = x if join == "concat" or inputs == N else x @ w["widen"].T
    for t in range(T):
        if join == "sum":
            a = (wide[:, t] + h) @ w["weight_hh"].T
        else:
            a = torch.cat([x[:, t], h], -1) @ torch.cat([w["weight_ih"], w["weight_hh"]], 1).T
        l1, l2, l3 = sigmoid(a + w["bias"]).chunk(3, -1)
        c = sigmoid((l1 * l2 + c) @ w["weight_cc"].T + w["bias_c"])
        h = c * l3
        assert_close(y[:, t], h, f"h at step {t}")
    assert_close(final.c, c, "c")


def reach(cell: Any, lags: int) -> Tensor:
    """Norm of the gradient of a last output with respect to the inputs before it, as shares of that at the last."""
    torch.manual_seed(1)
    x = torch.randn(16, lags + 1, cell.in_width, dtype=torch.float64, requires_grad=True)
    y, _ = cell(x)
    (grad,) = torch.autograd.grad((y[:, -1] * torch.randn(16, cell.width, dtype=torch.float64)).sum(), x)
    norms = grad.norm(dim=-1).mean(0).flip(0)
    return norms / norms[0]


def test_drawn_as_a_linear_layer_it_remembers_two_tokens() -> None:
    """What W_4 can keep is a quarter of its norm, at most; the default is drawn four times as large."""
    found = {}
    for name, options in (("ltm", {"scale": 1.0}), ("ltm", {}), ("lstm", {"forget_bias": 0.0})):
        torch.manual_seed(0)
        config = CELLS.parse({"name": name, **options})
        found[name, bool(options)] = reach(CELLS[name](128, 128, config).double(), 10)
    plain, scaled, lstm = found["ltm", True], found["ltm", False], found["lstm", True]
    assert plain[2] < 0.01 < lstm[2]
    assert plain[10] < 1e-8
    assert plain[10] < scaled[10] < lstm[10]
    cell = LTM(128, 128, LTMConfig(scale=1.0))
    assert torch.linalg.matrix_norm(cell.weight_cc.detach(), 2) < 4


@pytest.mark.slow
def test_it_learns_words_and_forgets_sooner_than_an_lstm(tmp_path: Path) -> None:
    """Calibrated: perplexity 443 where unigrams have 701; of lag 1 the gradient is at a hundredth at lag 6 (tied
    embeddings), that of an LSTM of the same size at lag 9."""
    values: dict[str, Any] = {
        "corpus": {"name": "ptb"},
        "tokenizer": {"name": "word"},
        "stream": {"columns": 20, "window": 35},
        "model": {"width": 128, "embedding": {"size": 128, "tied": False}},
        "train": {
            "steps": 350,
            "threads": 1,
            "optimizer": {"name": "adam", "lr": 0.003},
            "schedule": {"name": "constant", "warmup": 0.0},
            "clip": 1.0,
            "validations": 1,
            "valid_tokens": 20_000,
            "valid_columns": 20,
            "final_eval": False,
        },
    }
    lags, perplexities = {}, {}
    memory = MemoryConfig(places=60, gradients=60, longest=16, lags=60)
    for name in ("ltm", "lstm"):
        values["model"]["cell"] = {"name": name}
        try:
            folder = train(ExperimentConfig.parse(values), tmp_path / name, "cpu")
        except MissingCorpusError:
            pytest.skip("the Penn Treebank is not on this machine")
        run = Run(folder, "cpu", "auto")
        found = measure_memory(open_reader(run), passage_of_run(run, None, None, "valid", 4000), memory)
        (record,) = memory_record([found])["runs"]
        lags[name] = record["gradient_lags"]["hundredth"]
        perplexities[name] = json.loads((folder / "record.json").read_text())["valid"]["figures"]["perplexity_per_word"]
    run = Run(tmp_path / "ltm", "cpu", "auto")
    counts = np.bincount(passage_of_run(run, None, None, "train", None).ids, minlength=10_000) + 1
    seen = passage_of_run(run, None, None, "valid", 20_000).ids
    unigram = math.exp(-np.log(counts[seen] / counts.sum()).mean())
    assert 600 < unigram < 800
    assert perplexities["ltm"] < 0.7 * unigram, perplexities
    assert lags["ltm"] < lags["lstm"], lags
