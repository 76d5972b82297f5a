"""``unrolled inspect features``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from unrolled.cli.common import DeviceOption, JsonOption, ThreadsOption, progress_bar, table, use_threads, write
from unrolled.cli.inspect.common import FolderOption, RunArgument, open_runs, present, verbs

__all__ = ["features"]


@verbs.command()
def features(
    run: RunArgument,
    train: Annotated[str, typer.Argument(help="Labelled sentences: .csv, .tsv or .jsonl (compressed too); or sst2.")],
    test: Annotated[Path | None, typer.Option(help="Labelled sentences to measure on; needed but for sst2.")] = None,
    dev: Annotated[
        Path | None, typer.Option(help="Labelled sentences that choose the strength; absent: a part of TRAIN.")
    ] = None,
    text: Annotated[str, typer.Option(help="Column or key of the sentence.")] = "sentence",
    label: Annotated[str, typer.Option(help="Column or key of the label, one of two.")] = "label",
    layer: Annotated[int | None, typer.Option(min=0, help="Layer, from 0; absent: the last.")] = None,
    state: Annotated[
        str | None, typer.Option(help="State of the layer, such as h or c; absent: c where there is one, else h.")
    ] = None,
    pool: Annotated[str, typer.Option(help="last: after the last token; mean: over all tokens.")] = "last",
    batch: Annotated[int, typer.Option(min=1, help="Sentences read at once; never changes a value.")] = 64,
    held_out: Annotated[float, typer.Option(help="Share of TRAIN that chooses the strength without --dev.")] = 0.1,
    bins: Annotated[int, typer.Option(min=2, help="Bins of the histogram.")] = 40,
    words: Annotated[bool, typer.Option("--words/--no-words", help="Compare with a bag of words.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Of the held-out part and the solver.")] = 1,
    folder: FolderOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Classify sentences by the states that they leave, and find the unit that does best by itself.

    Every sentence is read from a fresh state. A sparse logistic regression over all units, whose strength the held-out
    sentences choose, stands beside the best single unit and a regression over words. Needs the extra probe.

    Example: unrolled inspect features runs/x train.csv --test test.csv --out features

    Example: unrolled inspect features runs/x sst2 --state h --pool mean
    """
    from unrolled.analyse import (
        FeaturesConfig,
        features_of_run,
        features_record,
        read_labelled,
        write_features,
    )
    from unrolled.core.errors import UsageError
    from unrolled.data.labelled.reading import find_sst2

    states = {"layer": layer, "state": state, "pool": pool, "batch": batch}
    config = FeaturesConfig.parse({"states": states, "held_out": held_out, "bins": bins, "seed": seed})
    source = Path(train)
    if train == "sst2" and not source.exists():
        source, own_dev, own_test = find_sst2()
        dev, test = dev or own_dev, test or own_test
    if test is None:
        raise UsageError("there are no sentences to measure on; give --test FILE.")
    learnt = read_labelled(source, text, label)
    measured = read_labelled(test, text, label, learnt.classes)
    chosen = None if dev is None else read_labelled(dev, text, label, learnt.classes)
    use_threads(threads)
    (opened,) = open_runs([run], device, folder)
    with progress_bar("reading sentences", not json) as advance:
        found = features_of_run(opened, learnt, measured, chosen, config, words, advance)
    record = features_record(found)
    note = None if folder is None else write_features(folder, found, record)
    present(record, json, lambda: _print(record), note)


def _print(record: dict[str, Any]) -> None:
    best, rows = record["best_unit"], []
    fits = [("all units", record["regression"]), ("words", record["bag_of_words"])]
    for name, fit in fits:
        if fit is not None:
            used = f"{fit['nonzero_weights']:,} of {fit['features']:,} weights, C {fit['strength']:g}"
            used += " (the last one tried)" if fit["strength_at_end"] else ""
            rows.append([name, *_cells(fit["test"]), used])
    rows.insert(1, [f"unit {best['unit']}", *_cells(best["test"]), f"threshold {best['threshold']:.4g}, higher when "
                    f"{best['higher_when']}"])  # fmt: skip
    table(["features", "accuracy", "95 % interval", "AUC", ""], rows)
    if best["tied"] > 1:
        write(
            f"{best['tied']:,} units tie in the AUC of training; unit {best['unit']} has the largest gap between the "
            "classes' means of them"
        )
    sizes = record["sentences"]
    write(
        f"{record['state']} of layer {record['layer']}; {sizes['train']:,} sentences in training, {sizes['dev']:,} "
        f"choose C, {sizes['test']:,} measured"
    )


def _cells(measured: dict[str, Any]) -> list[str]:
    area = "-" if measured["auc"] is None else f"{measured['auc']:.3f}"
    return [f"{measured['accuracy']:.1%}", f"{measured['low']:.1%} to {measured['high']:.1%}", area]
