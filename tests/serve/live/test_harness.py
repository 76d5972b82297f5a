"""The lm-evaluation-harness against the server, as against the run itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import unrolled as ur
from serve.live.conftest import Live
from serve.tasks import write_tasks
from unrolled.runs import Run
from unrolled.serve.engine.served import Served
from unrolled.serve.harness import run_harness

NAMES = ["tiny_texts", "tiny_choices", "tiny_written"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_local_completions(live: Callable[..., Live], models: list[Served], run: Path, tmp_path: Path) -> None:
    """Its own client, with the tokenizer of the exported model, gives the figures of ``eval --harness``."""
    pytest.importorskip("tenacity", reason="lm-eval's client of servers is not installed")
    import lm_eval
    from lm_eval.tasks import TaskManager

    tasks = write_tasks(tmp_path / "tasks")
    ours = run_harness(Run(run, "cpu"), NAMES, tasks)["tasks"]
    ur.to_hugging_face(run, tmp_path / "hf")
    server = live(models)
    options: dict[str, Any] = {
        "model": models[0].name, "base_url": f"{server.address}/v1/completions", "tokenizer": str(tmp_path / "hf"),
        "max_length": 100_000,
    }  # fmt: skip
    evaluate: Any = lm_eval.simple_evaluate
    found = evaluate(
        model="local-completions", model_args=options, tasks=NAMES, bootstrap_iters=0,
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False), log_samples=True,
    )  # fmt: skip
    for name in NAMES:
        theirs = {key.removesuffix(",none"): value for key, value in found["results"][name].items()}
        for figure, value in ours[name]["figures"].items():
            assert theirs[figure] == pytest.approx(value, rel=1e-6), (name, figure)
    written = [sample["resps"][0][0] for sample in found["samples"]["tiny_written"]]
    assert all(isinstance(one, str) for one in written)
    assert "\n" not in "".join(written)
