"""``unrolled eval --harness``: tasks of the lm-evaluation-harness, and the record of what they gave."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.extras import require
from unrolled.core.registry import nearest, shown, unknown_name
from unrolled.evaluate import open_predictor
from unrolled.evaluate.text.spelling import PREPARATIONS
from unrolled.predict import PredictorConfig
from unrolled.runs import Run

__all__ = ["run_harness"]


def run_harness(
    run: Run,
    tasks: Sequence[str],
    include: Path | None = None,
    limit: int | None = None,
    prepare: str | None = None,
    predict: PredictorConfig | None = None,
    dtype: torch.dtype = torch.float32,
    batch_size: int = 16,
) -> dict[str, Any]:
    """Measure a run on tasks of the harness.

    Args:
        tasks: their names. include: a folder with task files of one's own (which may hold code of their own).
        limit: documents of each task, from the first. prepare: spelling of texts for a word-level vocabulary.
        predict: what is done at test time.
    Returns:
        the record: plain JSON values.
    Raises:
        UsageError: an unknown task or preparation; a word-level vocabulary without one. UnrolledError: the extra is
            missing; a task whose data cannot be had.
    """
    require("hf", "lm_eval")
    if prepare is not None and prepare not in PREPARATIONS:
        raise unknown_name("preparation", prepare, PREPARATIONS)
    if include is not None and not include.is_dir():
        raise UsageError(f"there is no folder {include}; name the one with the task files.")
    import lm_eval
    from lm_eval.tasks import TaskManager

    from unrolled.serve.lm_eval import UnrolledLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = _manager(TaskManager, tasks, include)
    with open_predictor(run, predict, dtype, stepwise=True) as predictor:
        model = UnrolledLM(predictor, run.tokenizer, prepare, batch_size)
        found = _evaluated(lm_eval, model, tasks, manager, limit)
        protocol = {
            "kind": predictor.kind,
            "prepare": model.prepare,
            "limit": limit,
            "precision": predictor.precision,
            "options": predictor.options,
        }
    compared = {name: value for name, value in protocol.items() if name != "precision"}
    return {
        "kind": "harness record",
        "version": 1,
        "harness": {"name": "lm-evaluation-harness", "version": lm_eval.__version__},
        "tasks": {name: _of_task(name, found) for name in found["configs"]},
        "groups": _plain(found.get("groups") or {}),
        "protocol": {**protocol, "comparable_key": json.dumps(compared, sort_keys=True, separators=(",", ":"))},
        "provenance": run.provenance(),
    }


def _manager(make: Any, tasks: Sequence[str], include: Path | None) -> Any:
    """What knows the tasks; those of the harness itself, whose files take seconds to list, only where they are asked
    for. Raises UsageError for an unknown task."""
    if include is not None:
        own = make(include_path=str(include), include_defaults=False)
        if all(name in own.all_tasks for name in tasks):
            return own
    every = make(include_path=None if include is None else str(include))
    for name in tasks:
        if name not in every.all_tasks:
            hint = nearest(name, every.all_tasks)
            remedy = f"did you mean {hint!r}?" if hint else "`lm-eval ls tasks` lists those of the harness."
            raise UsageError(f"unknown task {shown(name)}; {remedy}")
    return every


def _evaluated(lm_eval: Any, model: Any, tasks: Sequence[str], manager: Any, limit: int | None) -> dict[str, Any]:
    try:
        found = lm_eval.simple_evaluate(
            model=model, tasks=list(tasks), task_manager=manager, limit=limit, bootstrap_iters=0, log_samples=True
        )
    except UnrolledError:
        raise
    except Exception as error:  # of datasets, of the network, of a task's own code: there is no common type
        reason = " ".join(str(error).split()).rstrip(".")[:200] or type(error).__name__
        raise UnrolledError(f"the harness could not run {', '.join(tasks)}: {reason}.") from error
    assert found is not None
    return found


def _of_task(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of one task, with what identifies it."""
    samples = found["samples"].get(name, [])
    kind = found["configs"][name].get("output_type")
    result: dict[str, Any] = {
        "version": _plain(found["versions"].get(name)),
        "output_type": kind,
        "samples": len({sample["doc_id"] for sample in samples}),
        "samples_sha256": _checksum(samples),
        "figures": {
            key.replace(",none", ""): value
            for key, value in found["results"].get(name, {}).items()
            if isinstance(value, int | float) and not isinstance(value, bool) and "stderr" not in key
        },
    }
    if kind == "multiple_choice":
        result |= _with_ties(samples)
    return result


def _checksum(samples: Sequence[Mapping[str, Any]]) -> str:
    """sha256 of the documents, prompts and targets: equal for figures on the same questions."""
    rows = sorted(
        (sample["doc_id"], *(sample[f"{part}_hash"] for part in ("doc", "prompt", "target"))) for sample in samples
    )
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _with_ties(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Accuracy where the best answers share what they win: of two equal ones each counts half. The harness takes the
    first of equal ones.

    Returns:
        ``ties``, documents whose best answer is not the only one, and ``accuracy_ties_shared``; nothing where targets
        are no numbers of answers.
    """
    shares, ties = [], 0
    for sample in samples:
        target = sample["target"]
        scores = [float(response[0]) for response in sample["filtered_resps"]]
        if isinstance(target, bool) or not isinstance(target, int) or not 0 <= target < len(scores):
            return {}
        best = [index for index, score in enumerate(scores) if score == max(scores)]
        ties += len(best) > 1
        shares.append((target in best) / len(best))
    return {"ties": ties, "accuracy_ties_shared": sum(shares) / len(shares)} if shares else {}


def _plain(value: Any) -> Any:
    """As JSON has it; what it has not, as text."""
    return json.loads(json.dumps(value, default=str))
