"""Several processes train a run as one does: the same losses, weights and states, however many there are."""

import json
import shutil
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from train.group import Ended, launch
from train.runs import events, experiment, write_text
from unrolled.core.errors import UnrolledError
from unrolled.runs import Run
from unrolled.train import ExperimentConfig

CLOSE = 1e-12

MODELS: dict[str, dict[str, Any]] = {
    "lstm": {"model": {"cell": {"name": "lstm"}}},
    "weight-drop": {
        "model": {
            "cell": {"name": "mlstm"}, "layers": 2,
            "dropout": {"weight": 0.3, "output": 0.2, "between": 0.2, "embedding": 0.1, "input": 0.1},
        }
    },
    "mogrifier": {"model": {"cell": {"name": "mogrifier"}, "dropout": {"state": 0.3}}},
    "qrnn": {"model": {"cell": {"name": "qrnn"}, "dropout": {"zoneout": {"c": 0.2}}}},
    "mamba": {"model": {"cell": {"name": "mamba"}}},
    "tied": {"model": {"cell": {"name": "lstm"}, "embedding": {"tied": True, "size": 8}}},
    "mos": {"model": {"cell": {"name": "lstm"}, "head": {"name": "mos", "components": 3}}},
    "sampled": {"model": {"cell": {"name": "lstm"}, "head": {"name": "softmax", "negatives": 4, "frequent": 6}}},
    "nt-asgd": {
        "train": {"optimizer": {"name": "sgd", "lr": 2.0}, "averaging": {"name": "nonmonotone", "patience": 1}}
    },
    "accumulate": {"train": {"accumulate": 3}, "model": {"dropout": {"output": 0.3}}},
    "windows": {
        "stream": {"variable_windows": True, "state_drop": 0.3, "jitter": 5, "random_offset": True},
        "train": {"lr_by_length": True},
    },
    "restarts": {
        "corpus": {"reset": "line"},
        "train": {"objective": {"ar": 1.0, "tar": 1.0}, "clip": 0.05},
    },
    "objectives": {
        "corpus": {"reset": "line"},
        "model": {"layers": 2, "dropout": {"output": 0.2}},
        "train": {
            "extra": ["twin", "phrase", "smooth_similar", "smooth_sequence", {"name": "transport", "iterations": 20}]
        },
    },
    "phases": {"train": {"steps": 10, "then": [{"steps": 10, "averaging": {"name": "ema", "decay": 0.9}}]}},
}  # fmt: skip
QUICK = ("lstm", "weight-drop", "sampled")  # the others with the slow tests
SPREAD = ("weight-drop", "tied", "sampled", "nt-asgd", "accumulate", "phases")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("group") / "text")


def setup(name: str, text: Path, shards: int = 4, **parallel: Any) -> Any:
    parts = {key: dict(value) for key, value in MODELS[name].items()}
    train = {"steps": 20, "validations": 4, "log_every": 1, "threads": 1, **parts.pop("train", {})}
    train["parallel"] = {"shards": shards, **parallel}
    model = {"compute": {"backend": "auto"}, **parts.pop("model", {})}
    stream = {"columns": 8, "window": 7, **parts.pop("stream", {})}
    corpus = {"path": str(text), **parts.pop("corpus", {})}
    return experiment(text, train=train, model=model, stream=stream, corpus=corpus, **parts)


def right(ended: Ended) -> None:
    assert set(ended.codes) == {0}, ended


def losses(run: Path) -> list[tuple[str, int, float]]:
    return [(event["type"], event["step"], event["nats"]) for event in events(run)]


def check_close(run: Path, other: Path, tolerance: float = CLOSE) -> None:
    first, second = losses(run), losses(other)
    assert [one[:2] for one in first] == [one[:2] for one in second]
    assert max(abs(a[2] - b[2]) for a, b in zip(first, second, strict=True)) < tolerance
    left, right = (load_file(folder / "model.safetensors") for folder in (run, other))
    assert set(left) == set(right)
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], rtol=0, atol=tolerance)


def _slow_but(quick: Iterable[str], names: Iterable[str]) -> list[Any]:
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", _slow_but(QUICK, MODELS))
def test_two_processes_equal_one(name: str, text: Path, tmp_path: Path) -> None:
    config = setup(name, text)
    right(launch(1, config, tmp_path / "one"))
    right(launch(2, config, tmp_path / "two"))
    check_close(tmp_path / "one", tmp_path / "two")
    record = json.loads((tmp_path / "two" / "record.json").read_text())
    assert record["status"] == "finished"
    assert record["tokens"] == json.loads((tmp_path / "one" / "record.json").read_text())["tokens"]


@pytest.mark.parametrize("name", _slow_but(["weight-drop"], SPREAD))
def test_spread_parameters_give_the_same(name: str, text: Path, tmp_path: Path) -> None:
    config = setup(name, text, kind="fsdp")
    right(launch(1, config, tmp_path / "one"))
    right(launch(2, config, tmp_path / "two"))
    check_close(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "replicas"), [("ddp", 1), ("fsdp", 1), ("fsdp", 2)])
def test_four_processes_equal_one(kind: str, replicas: int, text: Path, tmp_path: Path) -> None:
    config = setup("weight-drop", text, kind=kind, replicas=replicas)
    right(launch(1, config, tmp_path / "one"))
    right(launch(4, config, tmp_path / "four"))
    check_close(tmp_path / "one", tmp_path / "four")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_the_final_score_is_that_of_one(kind: str, text: Path, tmp_path: Path) -> None:
    config = setup("lstm", text, kind=kind)
    config = config.model_copy(update={"train": config.train.model_copy(update={"final_eval": True})})
    exact = []
    for world in (1, 2):
        right(launch(world, config, tmp_path / str(world)))
        exact.append(json.loads((tmp_path / str(world) / "record.json").read_text())["valid_exact"])
    assert exact[0]["tokens"] == exact[1]["tokens"]
    assert abs(exact[0]["nats"] - exact[1]["nats"]) < 1e-9


def test_targets_that_do_not_count(tmp_path: Path) -> None:
    """Of rows whose number of targets differs from process to process."""
    config = ExperimentConfig.parse({
        "task": {"name": "made", "rows": 8, "valid_rows": 16, "problem": "flipflop"},
        "model": {"width": 8, "cell": "lstm"},
        "train": {"steps": 10, "validations": 2, "log_every": 1, "threads": 1, "parallel": {"shards": 2}},
    })  # fmt: skip
    for world in (1, 2):
        right(launch(world, config, tmp_path / str(world)))
    check_close(tmp_path / "1", tmp_path / "2")


def test_shards_have_masks_of_their_own(text: Path, tmp_path: Path) -> None:
    """One shard draws what a run always drew; more shards draw something else."""
    right(launch(1, setup("weight-drop", text, shards=1), tmp_path / "one"))
    right(launch(1, setup("weight-drop", text, shards=2), tmp_path / "two"))
    assert losses(tmp_path / "one") != losses(tmp_path / "two")
    assert json.loads((tmp_path / "two" / "config.json").read_text())["train"]["parallel"]["shards"] == 2


KILLS = [
    ("unrolled.train.loop:train_step", 7, True),
    ("unrolled.train.checkpoint:write_part", 3, False),
    ("unrolled.train.checkpoint:write_part", 3, True),
    ("unrolled.train.validation:Validator.quick", 2, False),
    ("unrolled.core.tree:save_tensors", 3, True),
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("rank", [0, 1])
def test_killed_and_resumed(kind: str, rank: int, text: Path, tmp_path: Path) -> None:
    """On as many processes to the byte; on others within rounding."""
    config = setup("weight-drop", text, kind=kind)
    right(launch(2, config, tmp_path / "whole"))
    for number, moment in enumerate(KILLS):
        if rank and "save_tensors" in moment[0]:
            continue  # process 0 alone writes weights
        run = tmp_path / f"killed-{number}"
        ended = launch(2, config, run, die={rank: moment})
        assert ended.codes[rank] == -9, moment
        assert "another process of this run has ended" in ended.said[1 - rank]
        assert "--resume" in ended.said[1 - rank]
        for world in (1, 4) if number == 2 else ():
            other = tmp_path / f"on-{world}"
            shutil.copytree(run, other)
            right(launch(world, config, other, again=True))
            check_close(other, tmp_path / "whole")
        right(launch(2, config, run, again=True))
        same = [(folder / "model.safetensors").read_bytes() for folder in (run, tmp_path / "whole")]
        assert same[0] == same[1], moment
        assert losses(run) == losses(tmp_path / "whole")
        assert not list(run.rglob("*.part"))


@pytest.mark.slow
def test_begun_by_one_and_gone_on_with_by_two(text: Path, tmp_path: Path) -> None:
    config = setup("weight-drop", text, shards=2)
    right(launch(1, config, tmp_path / "whole"))
    assert launch(1, config, tmp_path / "run", signals={0: (signal.SIGTERM, 9)}).codes == [143]
    right(launch(2, config, tmp_path / "run", again=True))
    check_close(tmp_path / "run", tmp_path / "whole")


def test_a_signal_to_one_ends_all(text: Path, tmp_path: Path) -> None:
    config = setup("weight-drop", text)
    right(launch(2, config, tmp_path / "whole"))
    ended = launch(2, config, tmp_path / "run", signals={1: (signal.SIGTERM, 9)})
    assert ended.codes == [143, 143]
    assert "stopped by SIGTERM at step 9; continue with: unrolled train --resume" in ended.said[0]
    right(launch(2, config, tmp_path / "run", again=True))
    same = [(folder / "model.safetensors").read_bytes() for folder in (tmp_path / "run", tmp_path / "whole")]
    assert same[0] == same[1]


@pytest.mark.slow
def test_dropped_states_begin_anew(text: Path, tmp_path: Path) -> None:
    kept, dropped = (setup("lstm", text, carried=carried) for carried in ("save", "drop"))
    right(launch(2, kept, tmp_path / "whole"))
    assert launch(2, dropped, tmp_path / "run", signals={0: (signal.SIGTERM, 9)}).codes == [143, 143]
    right(launch(2, dropped, tmp_path / "run", again=True))
    with pytest.raises(UnrolledError, match="parts of several processes"):
        _ = Run(tmp_path / "run", "cpu", weights="raw").weights_file
    first, second = losses(tmp_path / "run"), losses(tmp_path / "whole")
    assert first[:9] == second[:9]
    assert first[-2:] != second[-2:]


@pytest.mark.slow
def test_low_precision_of_what_travels(text: Path, tmp_path: Path) -> None:
    config = setup("lstm", text)
    right(launch(2, config, tmp_path / "full", double=False))
    for kind in ("ddp", "fsdp"):
        right(launch(2, setup("lstm", text, kind=kind, reduce="bf16"), tmp_path / kind, double=False))
        difference = max(
            abs(a[2] - b[2]) for a, b in zip(losses(tmp_path / kind), losses(tmp_path / "full"), strict=True)
        )
        assert 0 < difference < 0.02


def test_a_full_disk_of_one_ends_all(text: Path, tmp_path: Path) -> None:
    config = setup("weight-drop", text)
    ended = launch(2, config, tmp_path / "run", limit={1: 500}, seconds=20)
    assert ended.codes == [1, 1]
    assert ended.said[1].startswith("UnrolledError: cannot write")
    assert ended.said[0] == ended.said[1].replace("UnrolledError", "EchoError")
    assert not list((tmp_path / "run").rglob("*.part"))


def test_refusals(text: Path, tmp_path: Path) -> None:
    def said(world: int, config: Any, again: bool = False, run: str = "run") -> str:
        ended = launch(world, config, tmp_path / run, again=again)
        assert set(ended.codes) == {2}, ended
        assert [one.partition(":")[0] for _, one in sorted(ended.said.items())] == ["UsageError"] + ["EchoError"] * (
            world - 1
        )
        return ended.said[0].partition(": ")[2]

    assert said(2, setup("lstm", text, kind="none")) == (
        "train.parallel.kind is none and 2 processes were started; start one, or say ddp."
    )
    assert said(2, setup("lstm", text, shards=3)) == (
        "train.parallel.shards says 3 shards; 2 processes cannot share them equally: use 1 or 3."
    )
    assert said(2, setup("lstm", text, shards=16)) == (
        "stream.columns = 8 cannot be cut into 16 equal shards; make it a multiple of 16."
    )
    assert said(2, setup("lstm", text, kind="fsdp", replicas=3)) == (
        "train.parallel.replicas = 3 does not divide 2 processes; give a divisor."
    )
    timed = setup("lstm", text, kind="fsdp").model_copy()
    timed = timed.model_copy(update={"train": timed.train.model_copy(update={"steps": None, "minutes": 0.1})})
    assert said(2, timed).startswith("with train.parallel.kind=fsdp a step cannot be timed beforehand")
    assert not (tmp_path / "run").exists()
    other = write_text(tmp_path / "other")
    (other / "valid.txt").write_text("the small cat sleeps\n" * 40)
    ended = launch(2, [setup("lstm", text), setup("lstm", other)], tmp_path / "run")
    assert ended.said[0] == (
        "UsageError: process 1 reads another text than process 0 (split valid); give all of them the same corpus."
    )
    assert launch(2, setup("lstm", text), tmp_path / "begun", signals={0: (signal.SIGTERM, 3)}).codes == [143, 143]
    assert said(3, setup("lstm", text), again=True, run="begun") == (
        f"{tmp_path / 'begun'} was begun with 4 shards; 3 processes cannot share them equally: use 1, 2 or 4."
    )
    assert "already holds a run" in said(2, setup("lstm", text), run="begun")


@pytest.mark.slow
def test_a_budget_in_time_is_shared(text: Path, tmp_path: Path) -> None:
    config = setup("lstm", text)
    train = config.train.model_copy(update={"steps": None, "cpu_minutes": 0.05})
    right(launch(2, config.model_copy(update={"train": train}), tmp_path / "run"))
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["status"] == "finished"
    assert record["cpu_seconds"] < 30
    assert record["steps"] >= 1
