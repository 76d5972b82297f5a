"""Write a run's step as an ONNX file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import atomic_write, ready_output, sha256_file
from unrolled.model import LanguageModel
from unrolled.runs import Run
from unrolled.serve.export import Exported
from unrolled.serve.onnx.graph import OPSET, onnx_graph
from unrolled.serve.onnx.quantised import quantise_products
from unrolled.serve.onnx.session import FORMAT, VERSION, OnnxStep
from unrolled.serve.onnx.step import Step, plain_model
from unrolled.serve.onnx.verify import Verified, steps_to_verify, verify
from unrolled.tokenizer import Tokenizer, tokenizer_value

__all__ = ["described", "export_onnx", "made_step", "pieces_text"]

_STEPS = 200
_MOST = 2**31 - 1  # of one file of this kind, a protocol buffer


def export_onnx(run: Run, out: Path, options: Mapping[str, Any]) -> Exported:
    """Write one step of a neural language model, after it was compared with the predictor.

    Args:
        options: int8, batch, logits, log_prob, verify; see ``unrolled export --help``.
    Raises:
        UsageError: no neural language model, or one that is no fixed graph; options that do not go together.
        UnrolledError: the exported step and the model are too far apart; a library is missing.
    """
    ready_output(out)
    data, record = made_step(run, options)
    atomic_write(out, data)
    record = {"file": str(out), "bytes": len(data), **record}
    return Exported(record, f"{_sentence(record)} written to {out}")


def made_step(run: Run, options: Mapping[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """The file's bytes, and what is to be said about it; see :func:`export_onnx`."""
    int8, steps = bool(options.get("int8")), int(options.get("verify", _STEPS))
    batch = _batch(options.get("batch"))
    if options.get("logits") and options.get("log_prob"):
        raise UsageError("--logits and --log-prob are two forms of one output; give one of them.")
    plain = plain_model(run.model)
    ids, source = steps_to_verify(run, steps) if steps else (None, "")
    made = plain_model(run.model) if int8 else plain
    if int8:
        quantise_products(made)
    step = Step(made, bool(options.get("logits")))
    proto = onnx_graph(step, batch)
    texts = _metadata(run, int8)
    data = described(proto, step, texts)
    record: dict[str, Any] = {
        "precision": "int8" if int8 else "float32",
        "batch": batch or "dynamic",
        "model_id": texts["model_id"],
        "state": {name: list(value.shape[1:]) for name, value in step.start.items()},
        "nodes": len(proto.graph.node),
    }
    if ids is not None:
        record["verified"] = _verified(plain, run.model, data, ids, batch or 1, int8)._asdict() | {"on": source}
    return data, record


def described(proto: Any, step: Step, texts: Mapping[str, str]) -> bytes:
    """The bytes of the file of a graph that says about itself what ``texts`` say, by name, and what the state is.

    Raises:
        UnrolledError: the file would be larger than such a file can be.
    """
    starts = {f"initial.{name}": _numbers(value) for name, value in step.start.items()}
    own = {"format": FORMAT, "format_version": str(VERSION), "state": " ".join(step.start), **starts}
    for key, value in {**own, **texts}.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    if proto.ByteSize() > _MOST:
        raise UnrolledError("the model is larger than the 2 GB of one ONNX file; export it with --int8.")
    return proto.SerializeToString(deterministic=True)


def _batch(given: Any) -> int | None:
    if given in (None, "dynamic"):
        return None
    if not str(given).isdecimal() or not 1 <= int(given) <= 1 << 20:
        raise UsageError(f"--batch is a number of rows or dynamic, not {given!r}.")
    return int(given)


def _verified(model: LanguageModel, own: LanguageModel, data: bytes, ids: Tensor, rows: int, int8: bool) -> Verified:
    found = verify(model, own, OnnxStep(data), ids, rows, int8)
    found.check(int8)
    return found


def _metadata(run: Run, int8: bool) -> dict[str, str]:
    """What the file says about itself: texts, most of them words and numbers that need no parser."""
    tokenizer: Tokenizer = run.tokenizer
    ends = tokenizer.end_id is not None and not tokenizer.pieces[tokenizer.end_id]
    protocol = {
        "precision": "int8" if int8 else "float32",
        "opset": OPSET,
        "begin": "read start_id from the initial state; each output is about the token that follows",
        "weights": run.weights_kind,
    }
    return {
        "model_id": sha256_file(run.weights_file),
        "tokenizer": json.dumps(tokenizer_value(tokenizer), ensure_ascii=False),
        "start_id": str(tokenizer.start_id),
        "end_id": str(tokenizer.end_id if ends else -1),
        "vocab_size": str(tokenizer.vocab_size),
        "protocol": json.dumps(protocol),
        "pieces": pieces_text(tokenizer),
    }


def pieces_text(tokenizer: Tokenizer) -> str:
    """The bytes of each id as hexadecimal digits, with spaces between; a + before those that have a space before them,
    unless a blank or the text's beginning is there; a - for one without text."""
    implied = tokenizer.tables.implied
    return " ".join(("+" if implied[i] else "") + (one.hex() or "-") for i, one in enumerate(tokenizer.pieces))


def _numbers(value: Tensor) -> str:
    """One row of an initial state: its numbers with spaces between, or one number where all are equal."""
    row = value.flatten().tolist()
    if all(one == row[0] for one in row):
        row = row[:1]
    return " ".join(repr(one) if value.is_floating_point() else str(int(one)) for one in row) or "0"


def _sentence(record: Mapping[str, Any]) -> str:
    said = f"step of {record['bytes'] / 1e6:.1f} MB in {record['precision']}"
    found = record.get("verified")
    if found is None:
        return f"{said}, not verified,"
    ours = "" if found["ours"] is None else f" (the decoder here: {found['ours']:,.0f})"
    return (
        f"{said}, verified over {found['steps']} tokens ({found['on']}): largest error {found['error']:.1e}, "
        f"{found['nats']:+.5f} nats per token, {found['tokens_per_second']:,.0f} tokens/s on one thread{ours},"
    )
