"""``unrolled inspect errors``."""

import math
from typing import Annotated, Any

import typer

from unrolled.cli.common import DeviceOption, JsonOption, ThreadsOption, table, use_threads
from unrolled.cli.inspect.common import (
    CorpusOption,
    FolderOption,
    RunsArgument,
    SplitOption,
    TextOption,
    open_runs,
    passages,
    present,
    provenance,
    verbs,
)


@verbs.command()
def errors(
    runs: RunsArgument,
    text: TextOption = None,
    corpus: CorpusOption = None,
    split: SplitOption = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many tokens.")] = None,
    order: Annotated[int, typer.Option(min=1, help="Longest n-gram of the count model, in tokens.")] = 9,
    rare: Annotated[int, typer.Option(min=0, help="A word seen at most so often in training is rare.")] = 5,
    train_tokens: Annotated[
        int, typer.Option(min=1, help="Count only the first so many tokens of the training text.")
    ] = 10_000_000,
    folder: FolderOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Divide the loss into categories that sum to it: n-grams, rare words, spaces, punctuation, beginnings of words.

    Each token is in the first that holds: predicted (p at least 0.5), ngram (a Kneser-Ney model of the run's training
    text gives more than 0.5), rare, space, punctuation, word_start, word_rest, other.

    Example: unrolled inspect errors runs/lstm runs/mlstm --out errors
    """
    from unrolled.analyse import (
        LossPartsConfig,
        loss_parts,
        loss_parts_record,
        open_reader,
        passage_text,
        read_memory,
        write_loss_parts,
    )

    config = LossPartsConfig(order=order, rare=rare, train_tokens=train_tokens)
    use_threads(threads)
    found, memories = [], {}
    for run, name, passage, advance in passages(open_runs(runs, device, folder), text, corpus, split, limit, not json):
        key = (run.tokenizer.fingerprint(), run.config.corpus.model_dump_json())
        if key not in memories:  # runs of one training text share its counts
            memories[key] = read_memory(run, config)
        spelled = passage_text(run.tokenizer, passage)
        one = loss_parts(open_reader(run), passage, spelled, memories[key], config, advance)
        about = provenance(run, passage.origin) | {"counted_tokens": memories[key].tokens}
        found.append(one._replace(name=name, provenance=about))
    record = loss_parts_record(found, config)
    note = None if folder is None else write_loss_parts(folder, record)
    present(record, json, lambda: _print(record), note)


def _print(record: dict[str, Any]) -> None:
    rows = []
    for run in record["runs"]:
        tokens = run["tokens"]
        for name, part in run["categories"].items():
            bits, counted = (part[of] / math.log(2) / tokens for of in ("nats", "count_model_nats"))
            rows.append([run["name"], name, f"{part['tokens'] / tokens:.1%}", f"{part['nats']:.2f}",
                         f"{part['share']:.1%}", f"{bits:.4f}", f"{counted:.4f}"])  # fmt: skip
        bits, counted = (run[of] / math.log(2) / tokens for of in ("nats", "count_model_nats"))
        rows.append([run["name"], "all", "100.0%", f"{run['nats']:.2f}", "100.0%", f"{bits:.4f}", f"{counted:.4f}"])
    table(["run", "category", "tokens", "nats", "share", "bits per token", "count model's"], rows)
