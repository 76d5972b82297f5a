"""``unrolled corpora``: list, get, check, show."""

from pathlib import Path
from typing import Annotated, Any

import typer

from unrolled.cli.common import JsonOption, app, emit, progress_bar, table, write

verbs = typer.Typer(help="Find, download, verify and look at corpora.", no_args_is_help=True)
app.add_typer(verbs, name="corpora")

NameArgument = Annotated[str, typer.Argument(help="Name of a corpus, see `unrolled corpora list`.")]


@verbs.command(name="list")
def list_all(json: JsonOption = False) -> None:
    """List the known corpora and where they were found.

    Example: unrolled corpora list
    """
    from unrolled.data import list_corpora

    rows = list_corpora()
    if json:
        emit(rows)
        return
    table(
        ["name", "found", "tokenizer", "description"],
        [
            (
                row["name"],
                row["found"] or ("can be downloaded" if row["downloadable"] else "-"),
                row["tokenizer"],
                row["description"],
            )
            for row in rows
        ],
    )


@verbs.command()
def get(name: NameArgument, json: JsonOption = False) -> None:
    """Download a corpus and verify it, or say which file to put where.

    Example: unrolled corpora get text8
    """
    from unrolled.data.download import get_corpus

    with progress_bar(name, not json) as advance:
        result = get_corpus(name, lambda file, done, total: advance(done, total or done, 0.0))
    if json:
        emit(result)
    else:
        for key, value in result.items():
            write(f"{key}: {value}")


@verbs.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(help="Corpora; absent: all that were found.")] = None,
    json: JsonOption = False,
) -> None:
    """Verify corpora by checksum, published counts, and the perplexity of the unigram model.

    Example: unrolled corpora check ptb --json
    """
    from unrolled.core.errors import UnrolledError
    from unrolled.data import list_corpora
    from unrolled.tokenizer.check import check_corpus

    chosen = names or [row["name"] for row in list_corpora() if row["found"]]
    results = [check_corpus(name) for name in chosen]
    if json:
        emit(results)
    else:
        table(
            ["corpus", "split", "tokens", "types", "unigram", "verdict"],
            [r for result in results for r in _rows(result)],
        )
    bad = [result["name"] for result in results if not result["ok"]]
    if bad:
        raise UnrolledError(f"not as published: {', '.join(bad)}; get the files again.")


def _rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for split, measured in result["splits"].items():
        unigram = measured["unigram"]
        figure = "-" if unigram is None else f"{unigram:.6g} {result['unigram_unit']}"
        files_ok = all(file["status"] != "mismatch" for file in result["files"])
        verdict = (
            "ok"
            if files_ok and not measured["differs"]
            else "differs: " + ", ".join(measured["differs"] or ["checksum"])
        )
        rows.append((result["name"], split, f"{measured['tokens']:,}", f"{measured['types']:,}", figure, verdict))
    return rows


@verbs.command()
def show(
    corpus: Annotated[str, typer.Argument(help="A known corpus, or a file, folder or pattern of yours.")],
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "train",
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many lines.")] = 10,
    json: JsonOption = False,
) -> None:
    """Print the first lines of a corpus.

    Example: unrolled corpora show ptb --split valid -n 3
    """
    from unrolled.data import corpus_named, show_corpus

    found = show_corpus(corpus_named(corpus), split, lines)
    if json:
        emit(found)
    else:
        for line in found:
            write(line)


@verbs.command()
def build(
    corpus: Annotated[str, typer.Argument(help="A known corpus, or a file, folder or pattern of yours.")],
    folder: Annotated[Path, typer.Argument(help="What to write: a new folder, which --corpus then takes.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="A.B=VALUE", help="A field of corpus or tokenizer, as in a recipe."),
    ] = None,
    shard_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a file, at most.")] = 1 << 30,
    json: JsonOption = False,
) -> None:
    """Encode a corpus once, into files of a bounded size with an index, for runs of several processes.

    A run opens the files that its columns lie in, and checks each by its checksum when it does.

    Example: unrolled corpora build texts/ tokens/ --set tokenizer.name=bpe
    """
    from unrolled.core.config import apply_settings, parse_setting
    from unrolled.core.errors import UsageError
    from unrolled.data import corpus_named, open_corpus
    from unrolled.runs import RunConfig
    from unrolled.tokenizer.build import build_corpus

    for setting in settings or ():
        keys, _ = parse_setting(setting)
        if keys[0] not in ("corpus", "tokenizer"):
            raise UsageError(f"{'.'.join(keys)} is no part of a corpus; set fields of corpus and tokenizer alone.")
    given = corpus_named(corpus).model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    config = RunConfig.parse(apply_settings({"corpus": given}, settings or ()))
    with progress_bar(str(folder), not json) as advance:

        def heard(_: str, done: int) -> None:
            advance(done, done, 0.0)

        index = build_corpus(open_corpus(config.corpus), folder, config.tokenizer, shard_tokens, heard)
    if json:
        emit({"folder": str(folder), **index.model_dump(mode="json")})
        return
    for name, split in index.splits.items():
        tokens = sum(file.tokens for file in split.ids)
        write(f"{name}: {tokens:,} tokens in {len(split.ids):,} files, of {split.bytes:,} bytes of text")
