"""Candidates of contexts, as ``unrolled generate --reference TEXT --json`` writes them, and how like a reference they
are."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from unrolled.core.errors import UsageError
from unrolled.model import LanguageModel
from unrolled.tokenizer import Tokenizer

__all__ = ["Context", "Rows", "read_contexts", "rows_of", "token_f1", "vector_f"]


class Context(NamedTuple):
    """A prompt, its reference and its candidates, as ids."""

    prompt: list[int]
    reference: list[int]
    candidates: list[list[int]]


class Rows(NamedTuple):
    """Continuations as rows (n, time), the shorter ones padded. weight: 1 where a position is a continuation's and
    not its prompt's."""

    inputs: Tensor
    targets: Tensor
    weight: Tensor


def read_contexts(path: str, tokenizer: Tokenizer) -> list[Context]:
    """The contexts of a file of JSON lines, each ``{"prompt", "reference", "candidates": [{"text", ...}]}``. A
    candidate's text is read anew by the tokenizer; where its ``finish_reason`` is ``end`` the end symbol follows.

    Raises:
        UsageError: no such file; a line that is none of these, or has fewer than two candidates that are not empty; a
            text that the tokenizer cannot read. The sentence names the line.
    """
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the candidates {path} cannot be read; name a file of JSON lines.") from error
    contexts = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            prompt, reference = value["prompt"], value["reference"]
            pairs = [(one["text"], one.get("finish_reason")) for one in value["candidates"]]
            if not all(isinstance(text, str) for text in (prompt, reference, *(text for text, _ in pairs))):
                raise TypeError
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(
                f"line {number} of {path} is no context with candidates; write it by unrolled generate --reference "
                "TEXT --beams 8 --nbest 8 --json."
            ) from error
        end = [] if tokenizer.end_id is None else [tokenizer.end_id]
        found = [tokenizer.encode(text) + (end if reason == "end" else []) for text, reason in pairs]
        found, wanted = [ids for ids in found if ids], tokenizer.encode(reference)
        if len(found) < 2 or not wanted:
            raise UsageError(
                f"line {number} of {path} has an empty reference, or fewer than two candidates; leave it out, or raise "
                "--nbest."
            )
        contexts.append(Context(tokenizer.encode(prompt), wanted, found))
    if not contexts:
        raise UsageError(f"the candidates {path} are empty; write some by unrolled generate --reference TEXT --json.")
    return contexts


def rows_of(pairs: Sequence[tuple[list[int], list[int]]], start: int, device: Any = None) -> Rows:
    """(prompt, continuation) pairs as rows that begin with the start symbol."""
    time = max(len(prompt) + len(rest) for prompt, rest in pairs)
    inputs, targets, weight = [], [], []
    for prompt, rest in pairs:
        ids, room = [*prompt, *rest], time - len(prompt) - len(rest)
        inputs.append([start, *ids[:-1], *[start] * room])
        targets.append([*ids, *[start] * room])
        weight.append([0.0] * len(prompt) + [1.0] * len(rest) + [0.0] * room)
    return Rows(*(torch.tensor(part, device=device) for part in (inputs, targets, weight)))


def token_f1(candidate: Sequence[int], reference: Sequence[int]) -> float:
    """The harmonic mean of precision and recall of tokens, each as often as it is there."""
    shared = sum((Counter(candidate) & Counter(reference)).values())
    return 2 * shared / (len(candidate) + len(reference))


@torch.no_grad()
def vector_f(model: LanguageModel, context: Context, start: int) -> list[float]:
    """The same of a model's outputs: each position counts the cosine to the nearest one of the other text, between the
    candidates and the reference (Zhao et al. 2023 by spans of several tokens too; here of one)."""
    continuations = [context.reference, *context.candidates]
    rows = rows_of([(context.prompt, ids) for ids in continuations], start, model.device)
    h = normalize(model(rows.inputs).raw.double(), dim=2)
    low = len(context.prompt)
    wanted, *found = (h[i, low : low + len(ids)] for i, ids in enumerate(continuations))
    values = []
    for one in found:
        cosine = one @ wanted.t()
        precision, recall = float(cosine.amax(1).mean()), float(cosine.amax(0).mean())
        values.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return values
