"""The window over a text against its equations, and models that write what they are told."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from conformance.material import wave
from unrolled.cells import CELLS
from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.generate.frames import write_frames
from unrolled.model.blocks import StackConfig, make_stack
from unrolled.task import Evaluation
from unrolled.tasks.frames import Frames
from unrolled.tasks.written import Written, letters_of
from unrolled.train import ExperimentConfig, train
from unrolled.train.recipes import load_experiment
from unrolled.train.setup import set_up

CELL = {"name": "gaussian_window", "gaussians": 2, "symbols": 3, "length": 5}


def make(**options: Any) -> Any:
    torch.manual_seed(1)
    config = CELLS.parse({**CELL, **options})
    return CELLS["gaussian_window"](4, 6, config).double()


def test_the_window_is_that_of_the_equations() -> None:
    cell, ids = make(), torch.tensor([[0, 2, 1, -1], [1, 1, -1, -1]])
    state, x = cell.with_text(cell.initial_state(2, dtype=torch.float64), ids), wave(2, 7, 4)
    letters = torch.zeros(2, 5, 3, dtype=torch.float64)
    for row, u in np.ndindex(2, 4):
        if ids[row, u] >= 0:
            letters[row, u, ids[row, u]] = 1
    found, after = cell(x, state)
    inner = cell.cell.initial_state(2, dtype=torch.float64)
    window, kappa = torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
    for t in range(7):
        y, inner = cell.cell(torch.cat([x[:, t], window], -1).unsqueeze(1), inner)
        alpha, beta, ahead = (y[:, 0] @ cell.along.T + cell.along_bias).chunk(3, -1)
        kappa = kappa + ahead.exp()
        phi = torch.zeros(2, 5, dtype=torch.float64)
        for u in range(1, 6):
            phi[:, u - 1] = (alpha.exp() * torch.exp(-beta.exp() * (kappa - u) ** 2)).sum(1)
        window = torch.einsum("bu,bua->ba", phi, letters)
        torch.testing.assert_close(found[:, t], torch.cat([y[:, 0], window], -1), rtol=0, atol=1e-12)
    torch.testing.assert_close(after.kappa, kappa, rtol=0, atol=1e-12)
    assert torch.equal(after.text, state.text)
    plain, _ = cell(x)
    assert not plain[..., -3:].any(), "without a text the window is empty"


def test_kappa_never_falls() -> None:
    cell = make(gaussians=4)
    seen: list[Tensor] = []
    with torch.no_grad():
        cell.along.mul_(3)
        cell(3 * wave(2, 200, 4), tap=lambda name, value: seen.append(value) if name == "kappa" else None)
    kappa = torch.stack(seen)
    assert len(kappa) == 200
    assert bool((kappa.diff(dim=0) >= 0).all())
    assert float(kappa.diff(dim=0).std()) > 0


def test_every_layer_reads_the_window() -> None:
    cells = [CELLS.parse(one) for one in (CELL, "gru", "rnn", "lstm")]
    stack = make_stack(4, cells, [6, 5, 5, 7], StackConfig(kind="skip")).double()
    first, second, third, fourth = stack.cells()
    assert [one.in_width for one in stack.cells()] == [4, 4 + 9, 4 + 3 + 5, 4 + 3 + 5]
    x, state = wave(2, 6, 4), stack.initial_state(2, dtype=torch.float64)
    state = (first.with_text(state[0], torch.tensor([[0, 1], [2, 2]])), *state[1:])  # type: ignore[operator]
    one = first(x, state[0])[0]
    window = one[..., -3:]
    assert bool(window.any())
    two = second(torch.cat([x, one], -1))[0]
    three = third(torch.cat([x, window, two], -1))[0]
    four = fourth(torch.cat([x, window, three], -1))[0]
    torch.testing.assert_close(stack(x, state)[0], torch.cat([one, two, three, four], -1), rtol=0, atol=1e-12)


def test_texts() -> None:
    assert letters_of(["ab", "c"], "abc").tolist() == [[0, 1], [2, -1]]
    for wrong in ("", "abd"):
        with pytest.raises(UsageError, match="letters of abc and no others"):
            letters_of([wrong], "abc")
    cell = make()
    with pytest.raises(UsageError, match="a text of 6 letters is longer than the model's 5"):
        cell.with_text(cell.initial_state(1), torch.zeros(1, 6, dtype=torch.int64))
    with pytest.raises(UsageError, match="needs a StepCell"):
        make(cell="mamba")
    with pytest.raises(UsageError, match="cannot wrap a cell whose state has"):
        make(cell=CELL).initial_state(1)


def config_of(**task: Any) -> ExperimentConfig:
    base = load_experiment("pen-written", ["model.width=16", "train.steps=3", "train.validations=1"])
    values = base.model_dump(mode="json")
    values["task"]["frames"] |= {"lines": 12, "held": 4}
    values["task"] |= {"batch": 4, **task}
    return ExperimentConfig.parse(values)


def test_a_text_changes_what_is_likely(tmp_path: Path) -> None:
    run = train(config_of(), tmp_path / "run", "cpu")
    record = json.loads((run / "record.json").read_text())
    assert record["valid"]["task"] == "written"
    parts: Any = set_up(config_of(), "cpu")
    task, model, split = parts.task, parts.model.double(), parts.task.splits["test"]
    with torch.no_grad():
        model.stack.layers[0].along_bias[4:6] = -1.0
    found = task.evaluate(model, split, Evaluation("test")).figures["nats"]
    nats = 0.0
    for number, (start, size) in enumerate(zip(split.starts, split.lengths(), strict=True)):
        y = torch.from_numpy(split.ids(int(start), int(start + size))).double().unsqueeze(0)
        state = task.begun(model, task.texts["test"][number : number + 1])
        out = model(torch.cat([torch.zeros_like(y[:, :1]), y[:, :-1]], 1), state)
        nats += float(model.head.loss(out.dropped, y)[0].detach())
    assert found == pytest.approx(nats / len(split), abs=1e-12)
    task.texts["test"] = task.texts["test"].flip(0)
    assert abs(task.evaluate(model, split, Evaluation("test")).figures["nats"] - found) > 1e-9


def test_batches_are_lines_with_their_texts() -> None:
    task: Any = Written(config_of(), RandomStreams(3))
    source, split = task.source(), task.splits["train"]
    seen = []
    for position in (2, 0, 1):
        batch = source.at(position)
        for row, weight, text in zip(batch.targets, batch.weight, batch.text, strict=True):
            line = row[weight > 0].numpy()
            number = next(
                k
                for k, (b, n) in enumerate(zip(split.starts, split.lengths(), strict=True))
                if n == len(line) and np.array_equal(split.ids(int(b), int(b + n)), line)
            )
            assert torch.equal(text, task.texts["train"][number])
            seen.append(number)
    assert sorted(seen) == list(range(12))
    with pytest.raises(UsageError, match=r"12 lines are fewer than task\.batch = 13"):
        _ = Written(config_of(batch=13), RandomStreams(3)).source()


def test_what_is_refused() -> None:
    with pytest.raises(UsageError, match="these frames have no texts"):
        Written(config_of(frames={"name": "chorales", "pieces": 4}, head="bernoulli"), RandomStreams(1))
    values = config_of().model_dump(mode="json")
    changed = {**values, "model": {**values["model"], "cell": [CELL, "lstm"]}}
    with pytest.raises(UsageError, match="begins with a layer gaussian_window of 5 symbols"):
        set_up(ExperimentConfig.parse(changed), "cpu")
    changed = {**values, "model": {**values["model"], "cell": ["mamba", "lstm"]}}
    with pytest.raises(UsageError, match="needs a StepCell"):
        set_up(ExperimentConfig.parse(changed), "cpu")


def test_a_window_is_put_around_the_first_cell() -> None:
    values = config_of().model_dump(mode="json")
    changed = {**values, "model": {**values["model"], "cell": ["gru", "lstm"]}}
    found = set_up(ExperimentConfig.parse(changed), "cpu").config.model
    first, second = found.layer_cells()
    assert (first.name, first.cell.name, first.symbols, first.length, second.name) == (
        "gaussian_window", "gru", 5, 16, "lstm",
    )  # fmt: skip


def test_writing_ends_behind_the_text() -> None:
    """A row ends at the first lifted pen after the place behind the text has most weight; no row later than asked."""
    parts: Any = set_up(config_of(), "cpu")
    model = parts.model.eval()
    layer = model.stack.layers[0]
    with torch.no_grad():
        layer.along.zero_()
        layer.along_bias[:] = torch.tensor([0.0] * 6 + [float(np.log(0.5))] * 3)  # half a letter a step
        model.head.weight[-1:], model.head.bias[-1] = 0, 50.0  # the pen is always lifted
    state = parts.task.begun(model, letters_of(["abc"] * 2, "abcde"))
    found = write_frames(model, state, 3, 30, 2, seed=1)
    assert [len(one) for one in found] == [8, 8], "kappa passes 3.5, where letter and end weigh the same, at 4"
    assert np.array_equal(found[0], write_frames(model, state, 3, 30, 2, seed=1)[0])
    assert [len(one) for one in write_frames(model, state, 3, 5, 2)] == [5, 5]
    with torch.no_grad():
        model.head.bias[-1] = -50.0
    assert [len(one) for one in write_frames(model, state, 3, 12, 2)] == [12, 12]


@pytest.mark.slow
def test_the_text_is_worth_nats(tmp_path: Path) -> None:
    nats = []
    for name in ("pen-tiny", "pen-written"):
        changes = ["task.frames.lines=100", "train.steps=250", "train.validations=1", "model.width=32"]
        changes.append("stream.columns=16" if name == "pen-tiny" else "task.batch=16")
        run = train(load_experiment(name, changes), tmp_path / name, "cpu")
        nats.append(json.loads((run / "record.json").read_text())["valid"]["figures"]["nats"])
    assert nats[1] < nats[0] - 0.1


def test_the_plain_task_is_the_same_without_a_text() -> None:
    assert issubclass(Written, Frames)
    assert Written.writes
    assert not Frames.writes
