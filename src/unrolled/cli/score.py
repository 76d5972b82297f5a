"""``unrolled score``."""

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from unrolled.cli.common import (
    BackendOption,
    CacheOption,
    DeviceOption,
    DtypeOption,
    DynamicOption,
    PrecisionOption,
    PredictOption,
    QuantizeOption,
    RecycleOption,
    SamplesOption,
    SettingsOption,
    StateOption,
    StateOutOption,
    TemperatureOption,
    ThreadsOption,
    WeightsOption,
    app,
    as_json,
    at_test_time,
    given_text,
    use_threads,
)
from unrolled.cli.streams import say
from unrolled.core.terminal import for_stream

if TYPE_CHECKING:
    from unrolled.data.plain import Reading
    from unrolled.evaluate import ScoreConfig, Scored, TextBlock, Unit, WordTable
    from unrolled.predict import KeptState, Predictor
    from unrolled.tokenizer import Tokenizer

_ESCAPES = str.maketrans({"\t": "\\t", "\n": "\\n", "\r": "\\r"})


@app.command()
def score(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    files: Annotated[
        list[str] | None, typer.Argument(help="Texts (compressed too); - or none: standard input.", show_default=False)
    ] = None,
    unit: Annotated[
        str | None, typer.Option(help="word (unless said), or token: what one row is about.", show_default=False)
    ] = None,
    symbols: Annotated[
        bool,
        typer.Option("--symbols", help="The exact probability of every byte, however the model's tokens cut the text."),
    ] = False,
    words: Annotated[bool, typer.Option("--words", help="The input has one word a line.")] = False,
    column: Annotated[
        str | None, typer.Option(help="The input is a tab-separated table with a header; its column of words.")
    ] = None,
    keep: Annotated[list[str] | None, typer.Option(help="A column to carry along; repeatable.")] = None,
    line_by: Annotated[str | None, typer.Option("--break", help="A line ends where this column changes.")] = None,
    join: Annotated[
        str,
        typer.Option(help="What joins the words of a table: script (a space, or nothing in Chinese...), space, none."),
    ] = "script",
    quotes: Annotated[
        str | None,
        typer.Option(help="Quotation marks around a field of a table: plain (of the word), or fields (as in CSV)."),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Every byte of a text as it is, carriage returns and marks too.")
    ] = False,
    reset: Annotated[str, typer.Option(help="none, line or document: where the state restarts.")] = "none",
    boundary: Annotated[
        str, typer.Option(help="leading: the space belongs to the next word; trailing: a word's end belongs to it.")
    ] = "leading",
    entropy: Annotated[bool, typer.Option("--entropy", help="Entropy of the first token's distribution.")] = False,
    rank: Annotated[bool, typer.Option("--rank", help="Rank of the first token.")] = False,
    top_k: Annotated[int | None, typer.Option(min=1, help="The likeliest tokens in place of the first.")] = None,
    ends: Annotated[
        bool | None, typer.Option("--ends/--no-ends", help="Rows for line ends; by default for running text only.")
    ] = None,
    close: Annotated[
        bool, typer.Option("--close/--open", help="The text ends where it ends; or another part of it may follow.")
    ] = True,
    state: StateOption = None,
    state_out: StateOutOption = None,
    window: Annotated[int, typer.Option(min=1, help="Tokens at once; does not change the figures.")] = 512,
    set_of: Annotated[
        list[str] | None,
        typer.Option(help="A text of a set that is read before, in no order (attention alone); repeatable."),
    ] = None,
    temperature: TemperatureOption = 1.0,
    dynamic: DynamicOption = None,
    cache: CacheOption = None,
    samples: SamplesOption = None,
    quantize: QuantizeOption = None,
    recycle: RecycleOption = None,
    predict: PredictOption = None,
    settings: SettingsOption = None,
    weights: WeightsOption = "saved",
    dtype: DtypeOption = "float32",
    form: Annotated[str, typer.Option("--format", help="tsv or jsonl.")] = "tsv",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write here; absent: standard output.")] = None,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    backend: BackendOption = None,
    precision: PrecisionOption = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line, as --format jsonl.")] = False,
) -> None:
    """Surprisal of every word of a text, in bits, as the text is read; any length, in constant memory.

    The first word is scored too. A word's surprisal is the sum over its tokens; the state is carried through the whole
    text, and every file is a text of its own.

    Example: unrolled score runs/x text.txt --entropy > surprisal.tsv

    Example: unrolled score runs/attention answer.txt --set-of "one fact" --set-of "another"

    Example: unrolled score runs/bpe text.txt --symbols

    Example: unrolled score runs/x stories.tsv --column word --keep item --break item --reset line
    """
    from unrolled.core.errors import UsageError
    from unrolled.core.files import open_output, ready_output
    from unrolled.core.registry import unknown_name
    from unrolled.data.reading import text_part
    from unrolled.evaluate import ScoreConfig, WordTable, open_predictor, state_form
    from unrolled.evaluate.of_run import DTYPES
    from unrolled.predict import PredictorConfig
    from unrolled.predict.spell import SpelledPredictor
    from unrolled.predict.state_files import read_state, write_state
    from unrolled.runs import Run
    from unrolled.tokenizer.symbols_of import spelling_of

    for name, value, known in (("format", form, ("tsv", "jsonl")), ("dtype", dtype, DTYPES)):
        if value not in known:
            raise unknown_name(name, value, known)
    config = ScoreConfig.parse({
        "unit": unit or ("token" if symbols else "word"),
        "reset": reset, "boundary": boundary, "entropy": entropy, "rank": rank, "top_k": top_k,
        "window": window, "close": close,
    })  # fmt: skip
    table = None
    if words or column is not None or keep or line_by is not None:
        table = WordTable(column, tuple(dict.fromkeys(keep or ())), line_by, join, quotes)  # type: ignore[arg-type]
        table.check()
        if exact:
            raise UsageError("a table is a text, with line ends as any has; leave out --exact.")
    elif join != "script" or quotes is not None:
        raise UsageError("--join and --quotes are about tables; name the words' --column, or say --words.")
    names = files or ["-"]
    for name in names:
        text_part(name)
    if state is not None:
        config.check_goes_on()
    if (state is not None or state_out is not None) and len(names) > 1:
        raise UsageError("a state is that of one text; give one file with --state and --state-out.")
    for path in (out, state_out):
        if path is not None:
            ready_output(path, *names, *([] if state is None else [state]))
    use_threads(threads)
    opened = Run(run, device, backend, precision, weights)  # type: ignore[arg-type]
    options, _ = at_test_time(
        predict, settings, temperature=temperature, dynamic=dynamic, cache=cache, dropout=samples, quantize=quantize,
        recycle=recycle,
        sets=[given_text(one, "a text of the set") for one in set_of] if set_of else None,
    )  # fmt: skip
    ends = table is None if ends is None else ends
    if symbols and (state is not None or state_out is not None):
        raise UsageError("a state is that of a text in tokens; leave out --symbols, or --state and --state-out.")
    spelling = spelling_of(opened.tokenizer) if symbols else None
    texts = _Texts(
        opened.tokenizer if spelling is None else spelling.symbols,
        config,
        table,
        tuple(names),
        ends,
        "exact" if exact else "text",
    )
    in_json = json or form == "jsonl"
    with open_predictor(opened, PredictorConfig.parse(options), DTYPES[dtype]) as opened_predictor:
        predictor = opened_predictor if spelling is None else SpelledPredictor(opened_predictor, spelling)
        kept = None if state is None and state_out is None else state_form(opened, predictor)
        if kept is not None:
            texts.begun = kept.begin() if state is None else read_state(state, kept)

        def to(file: TextIO) -> None:
            if not in_json:
                file.write("\t".join(texts.columns()) + "\n")
            for row in texts.rows(predictor, file.flush):
                file.write(for_stream(as_json(row) if in_json else _line(row), file) + "\n")

        if out is None:
            to(sys.stdout)
        else:
            with open_output(out) as file:
                to(file)
        if kept is not None and state_out is not None:
            write_state(state_out, texts.after["after"], kept)
    say(texts.summary())


class _Texts:
    """The rows of some texts, and what they come to.

    Args:
        names: of files, - for standard input. ends: whether line ends have rows. reading: of running texts.
    """

    def __init__(
        self,
        tokenizer: "Tokenizer",
        config: "ScoreConfig",
        table: "WordTable | None",
        names: tuple[str, ...],
        ends: bool,
        reading: "Reading" = "text",
    ):
        self.tokenizer, self.config, self.table, self.names, self.ends = tokenizer, config, table, names, ends
        self.reading: Reading = reading
        self.words, self.line_ends, self.tokens, self.nats, self.of_words = 0, 0, 0, 0.0, 0.0
        self._unit: Unit | None = None
        self.begun: KeptState | None = None
        self.after: dict[str, KeptState] = {}

    def columns(self) -> list[str]:
        """Names of what a row holds."""
        from unrolled.evaluate.text.rows import row_columns

        return row_columns(self.config, self.table.keep if self.table else (), len(self.names) > 1)

    def rows(self, predictor: "Predictor", before_reading: Callable[[], None]) -> Iterator[dict[str, Any]]:
        """One mapping of column to value for each row. before_reading: called when all that was read has been given."""
        from unrolled.evaluate import score_text
        from unrolled.evaluate.text.rows import row_of

        columns = self.columns()
        for name in self.names:
            predictor.restore()  # a text does not depend on those before it
            blocks = _then(self._blocks(name), before_reading)
            for scored in score_text(predictor, self.tokenizer, blocks, self.config, self.begun, self.after):
                self._count(scored)
                if scored.unit.kind == "word" or self.ends:
                    yield row_of(scored, columns, self.table.keep if self.table else (), name)

    def _blocks(self, name: str) -> Iterator["TextBlock"]:
        from unrolled.data.reading import text_part
        from unrolled.evaluate import read_text, read_words

        part, tokenizer = text_part(name), self.tokenizer
        if self.table is not None:
            return read_words(part, self.table, spaced=bool(tokenizer.tables.implied.any()))
        return read_text(part, not tokenizer.reads_bytes, tokenizer.blanks, self.reading, "--exact")

    def _count(self, scored: "Scored") -> None:
        self.tokens, self.nats = self.tokens + scored.tokens, self.nats + scored.nats
        word, new = scored.unit.kind == "word", scored.unit is not self._unit
        self._unit = scored.unit
        self.of_words += scored.nats if word else 0.0
        self.words, self.line_ends = self.words + (new and word), self.line_ends + (new and not word)

    def summary(self) -> str:
        """One line: what was counted, and the total."""
        bits = self.of_words / math.log(2) / max(1, self.words)
        return (
            f"{self.words:,} words ({bits:.3f} bits each), {self.line_ends:,} line ends, {self.tokens:,} tokens: "
            f"{self.nats:.6f} nats in all"
        )


def _then(blocks: Iterable["TextBlock"], call: Callable[[], None]) -> Iterator["TextBlock"]:
    for block in blocks:
        yield block
        call()


def _line(row: dict[str, Any]) -> str:
    return "\t".join(map(_cell, row.values()))


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return f"{value:.6f}"
    if isinstance(value, tuple):
        return as_json(value)
    return str(value).translate(_ESCAPES)
