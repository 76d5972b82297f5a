"""SequenceMatch: states after a backspace, the loss against a table, and its limit."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from train.objective_material import B, T, V, make_model, make_task, make_window, objectives_of, term_of
from train.runs import experiment
from unrolled.core.errors import UsageError
from unrolled.core.tree import leaves
from unrolled.data import TokenSplit
from unrolled.tokenizer.byte import ByteTokenizer
from unrolled.train import train
from unrolled.train.objectives import OBJECTIVES, ObjectiveConfig
from unrolled.train.objectives.combined import Objectives
from unrolled.train.objectives.match import Steps, _check_unused, matching
from unrolled.train.objectives.walk import walk

BACK = 2
NAMES = ["", "a", "b", "aa", "ab", "ba", "bb"]


def reduced(actions: list[int], back: int) -> list[int]:
    left: list[int] = []
    for one in actions:
        if one != back:
            left.append(one)
        elif left:
            left.pop()
    return left


@pytest.mark.parametrize("cell", ["lstm", "mingru"])
def test_the_state_after_a_backspace_is_that_of_the_shorter_text(cell: str) -> None:
    model = make_model(cell=cell)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(100):
            actions = torch.randint(V, (1, 12), generator=generator)
            actions[torch.rand(1, 12, generator=generator) < 0.4] = BACK
            first = torch.randint(V, (1,), generator=generator)
            short = torch.tensor([reduced(actions[0].tolist(), BACK)], dtype=torch.int64)
            found, wanted = (walk(model, first, BACK, actions=one) for one in (actions, short.view(1, -1)))
            assert int(found.length) == short.shape[1]
            for one, other in zip(leaves(found.states), leaves(wanted.states), strict=True):
                assert torch.equal(one, other)


class Table:
    """Logits of every text of two symbols, at most two of them; longer ones are the two that they begin with."""

    def __init__(self, logits: Tensor):
        self.logits = logits
        self.head = SimpleNamespace(
            project=lambda h, drawn: h, linear=lambda h, weight, bias: h, weight=None, scaled_bias=None
        )

    def __call__(self, ids: Tensor, state: Any) -> Any:
        if state is None:
            after = torch.zeros_like(ids)
        else:
            after = torch.tensor([[self.step(int(s), int(a))] for s, a in zip(state, ids, strict=True)])
        return SimpleNamespace(state=after, dropped=self.logits[after])

    @staticmethod
    def step(place: int, action: int) -> int:
        text = NAMES[place] + "ab?"[action]
        return NAMES.index(text) if text in NAMES else place


@pytest.mark.parametrize(("discount", "alpha", "share"), [(0.9, 0.5, 0.5), (1.0, 2.0, 0.3), (0.5, None, 0.7)])
def test_the_loss_is_that_of_explicit_loops(discount: float, alpha: float | None, share: float) -> None:
    logits = torch.randn(len(NAMES), 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    value = [math.log(sum(math.exp(float(one)) for one in row)) for row in logits]
    data, own = [[0, 1], [1, 0], [0, 0]], [[0, BACK], [BACK, 1], [1, BACK], [1, 1]]

    def steps(texts: list[list[int]]) -> Steps:
        found = walk(Table(logits), torch.zeros(len(texts), dtype=torch.int64), BACK, actions=torch.tensor(texts))
        weight = discount ** torch.arange(2, dtype=torch.float64).expand(len(texts), 2)
        return Steps(found.logit, found.value, found.after, weight)

    def expected(texts: list[list[int]]) -> tuple[float, float, float]:
        reward = flow = square = whole = 0.0
        for text in texts:
            place, before = 0, 0
            for i, action in enumerate(text):
                came = before if action == BACK else Table.step(place, action)
                r = float(logits[place, action]) - discount * value[came]
                reward += discount**i * r
                flow += discount**i * (value[place] - discount * value[came])
                square += discount**i * r * r
                whole += discount**i
                before, place = (0, came) if action == BACK else (place, came)
        return reward / whole, flow / whole, square / whole

    (reward, flow, square), (_, own_flow, own_square) = expected(data), expected(own)
    wanted = -reward + (1 - share) * flow + share * own_flow
    if alpha is not None:
        wanted += ((1 - share) * square + share * own_square) / (4 * alpha)
    found = matching(steps(data), steps(own), discount, alpha, share)
    assert float(found) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("discount", [1.0, 0.7])
def test_of_the_text_alone_it_is_the_discounted_cross_entropy(discount: float) -> None:
    model, window = make_model(), make_window(resets=True)
    objectives = objectives_of(model, "match", backspace=8, own=0.0, alpha=None, discount=discount)
    found = term_of(model, objectives, window)
    nll = model.loss(window.inputs, window.targets, None, window.reset)[1].detach()
    weight = torch.zeros(B, T, dtype=torch.float64)
    for row in range(B):
        count = 0
        for t in range(T):
            assert window.reset is not None
            count = 0 if window.reset[row, t] else count
            weight[row, t] = discount**count
            count += 1
    wanted = (weight * nll).sum() / weight.sum() - nll.mean()
    assert float(found.detach()) == pytest.approx(float(wanted), abs=1e-10)


def test_own_texts_are_drawn_from_the_model_and_have_a_gradient() -> None:
    model, uniform = make_model(), torch.rand(400, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    first = torch.zeros(400, dtype=torch.int64)
    found = walk(model, first, 3, end=5, uniform=uniform)
    share = model.head.log_prob(model(first[:1, None]).raw)[0][0, 0].exp()
    counts = torch.bincount(found.actions[:, 0], minlength=V) / 400
    assert float((counts - share).abs().max().detach()) < 4 * math.sqrt(0.25 / 400)
    ended = found.actions[:, 0] == 5
    assert ended.any()
    assert torch.equal(found.going[:, 1], ~ended)
    assert bool((found.after[ended, 0] == 0).all())
    (found.logit - found.after).sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_refused() -> None:
    with pytest.raises(UsageError, match="there are 11 ids"):
        objectives_of(make_model(), "match", backspace=11)
    with pytest.raises(UsageError, match="head softmax"):
        objectives_of(make_model(head={"name": "softmax", "negatives": 4}), "match", backspace=8)
    task = make_task()
    task.config.stream = task.config.stream.model_copy(update={"carry": True})
    task.splits = {"train": SimpleNamespace(starts=None)}
    config = OBJECTIVES.parse({"name": "match", "backspace": 8})
    with pytest.raises(UsageError, match="the objective match compares sequences"):
        Objectives(ObjectiveConfig(), (config,), task, make_model())


def test_a_backspace_that_the_text_has_is_refused_before_anything_is_trained(text: Path, tmp_path: Path) -> None:
    def said(backspace: Any, tokenizer: str = "byte") -> str:
        extra = [{"name": "match", "backspace": backspace, "samples": 1, "length": 2}]
        parts = {"train": {"steps": 1, "validations": 0, "extra": extra}, "tokenizer": {"name": tokenizer}}
        with pytest.raises(UsageError) as caught:
            train(experiment(text, stream={"carry": False}, **parts), tmp_path / "run", "cpu")
        assert not (tmp_path / "run").exists()
        return str(caught.value)

    times = (text / "train.txt").read_bytes().count(b"c")
    sentence = f"the training text has 'c' (id 99) {times:,} times, and it is the backspace of match; choose a token"
    assert said(99) == said("c") == f"{sentence} that the text has not, such as id 0."
    assert 'for which tokenizer.name = "byte" has room.' in said("c", "char")
    config = experiment(text, stream={"carry": False}, tokenizer={"name": "byte"}, train={
        "steps": 1, "validations": 0, "extra": [{"name": "match", "backspace": 0, "samples": 1, "length": 2}],
    })  # fmt: skip
    assert train(config, tmp_path / "run", "cpu")


def test_a_text_that_has_every_id_is_told_so() -> None:
    tables = ByteTokenizer().tables
    with pytest.raises(UsageError, match=r'choose a token that the text has not, for which tokenizer.name = "byte"'):
        _check_unused(TokenSplit(np.arange(256), tables), 7, ByteTokenizer())
    _check_unused(TokenSplit(np.arange(7), tables), 7, ByteTokenizer())


def test_a_batch_whose_targets_became_the_backspace_is_refused() -> None:
    window, model = make_window(), make_model()
    drawn = window._replace(targets=window.targets.masked_fill(window.targets == int(window.targets[1, 2]), 8))
    with pytest.raises(UsageError, match="a batch has id 8, which is the backspace of match; choose another token, or"):
        term_of(model, objectives_of(model, "match", backspace=8, samples=2, length=3), drawn)
