"""Moving squares, and errors of frames that a model makes by itself."""

import numpy as np
import torch

from unrolled.core.random import RandomStreams
from unrolled.data.frames import FrameSplit
from unrolled.data.frames.squares import Squares, SquaresConfig
from unrolled.model import LanguageModel
from unrolled.runs import RunConfig
from unrolled.task import Evaluation
from unrolled.tasks.frames import Frames


def test_a_square_moves_by_its_step_and_stays_in_the_plane() -> None:
    source = Squares(SquaresConfig(sequences=40, noise=0.0))
    splits = source.splits()
    assert splits["train"].checksum == Squares(source.config).splits()["train"].checksum != splits["valid"].checksum
    turned = 0
    for frames in splits["train"].ids(0, 400).reshape(40, 10, 12, 12):
        places = []
        for frame in frames:
            assert frame.sum() == 16
            x, y = np.argwhere(frame)[0]
            assert (frame[x : x + 4, y : y + 4] == 1).all()
            places.append((x, y))
        steps = np.abs(np.diff(places, axis=0))
        assert steps.max() <= 2
        turned += int((steps != steps[0]).any())
    assert 0 < turned < 40, "some meet a border, not all"


def test_the_errors_are_those_of_a_loop() -> None:
    config = RunConfig.model_validate({
        "task": {"name": "frames", "head": {"name": "values"}, "given": 3, "rows": 3,
                 "frames": {"name": "squares", "side": 5, "square": 2, "length": 7, "sequences": 10}},
        "model": {"width": 6}, "stream": {"columns": 2, "window": 7},
    })  # fmt: skip
    task = Frames(config, RandomStreams(1))
    torch.manual_seed(0)
    model: LanguageModel = task.build().double()
    rows = [np.asarray(task.splits["train"].ids(7 * k, 7 * k + n)) for k, n in enumerate((7, 5, 3, 6, 7))]
    split = FrameSplit.of(rows)
    found = task.evaluate(model, split, Evaluation(split="valid")).figures
    next_error, copied, future, kept, count, made = 0.0, 0.0, 0.0, 0.0, 0, 0
    for row in rows:
        frames = torch.from_numpy(row).double()
        state, before = None, torch.zeros(1, 1, 25).double()
        for frame in frames:
            out = model(before, state)
            state = out.state
            next_error += float((model.head.mean(out.raw)[0, 0] - frame).square().sum())
            copied += float((before[0, 0] - frame).square().sum())
            before, count = frame.view(1, 1, -1), count + 25
        state, before = None, torch.zeros(1, 1, 25).double()
        for t, frame in enumerate(frames):
            out = model(before, state)
            state, expected = out.state, model.head.mean(out.raw)
            if t >= 3:
                future += float((expected[0, 0] - frame).square().sum())
                kept += float((frames[2] - frame).square().sum())
                made += 25
            before = expected if t >= 3 else frame.view(1, 1, -1)
    wanted = {
        "mse": next_error / count,
        "mse_of_copying": copied / count,
        "mse_future": future / made,
        "mse_future_of_copying": kept / made,
    }
    for name, value in wanted.items():
        assert abs(found[name] - value) < 1e-10, name
