"""``unrolled compress`` and ``unrolled decompress``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unrolled.cli.common import (
    CacheOption,
    DeviceOption,
    DynamicOption,
    JsonOption,
    PredictOption,
    SettingsOption,
    TemperatureOption,
    ThreadsOption,
    app,
    at_test_time,
    emit,
    progress_bar,
    use_threads,
    write,
)

if TYPE_CHECKING:
    from unrolled.compress import Sizes
    from unrolled.runs import Run

SUFFIX = ".unr"


@app.command()
def compress(
    run: Annotated[Path, typer.Argument(help="A run directory; with byte tokens for files of any kind.")],
    file: Annotated[Path, typer.Argument(help="What to compress.")],
    target: Annotated[
        Path | None, typer.Option("--out", "-o", help="The compressed file; absent: FILE.unr.", show_default=False)
    ] = None,
    lanes: Annotated[
        int, typer.Option(min=1, max=65536, help="Parts read side by side: faster, and slightly larger.")
    ] = 16,
    temperature: TemperatureOption = 1.0,
    dynamic: DynamicOption = None,
    cache: CacheOption = None,
    predict: PredictOption = None,
    settings: SettingsOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Compress a file without loss, by the model's predictions.

    Decompressing takes as long as compressing and needs the same run, and a machine that computes the same numbers;
    where it does not, the file is refused before anything is written. What was set here is read from the file there.

    Example: unrolled compress runs/x book.txt --lanes 64
    """
    from unrolled.compress import CompressConfig, compress_file
    from unrolled.core.errors import UsageError
    from unrolled.core.files import ready_output
    from unrolled.evaluate import open_predictor
    from unrolled.predict import PredictorConfig

    if target is None:
        target = file.with_name(file.name + SUFFIX)
        if target.exists() or target.is_symlink():
            raise UsageError(f"{target} exists; say with --out where the compressed file goes.")
    ready_output(target, file)
    options, _ = at_test_time(predict, settings, temperature=temperature, dynamic=dynamic, cache=cache)
    asked = PredictorConfig.parse(options)
    opened = _open(run, device, threads)
    config = CompressConfig(lanes=lanes)
    with (
        progress_bar("compressing", not json) as advance,
        open_predictor(opened, asked, progress=advance) as predictor,
    ):
        sizes = compress_file(file, target, predictor, opened.tokenizer, config, advance, opened.identity())
    _tell(target, sizes, json)


@app.command()
def decompress(
    run: Annotated[Path, typer.Argument(help="The run directory that compressed.")],
    file: Annotated[Path, typer.Argument(help="The compressed file.")],
    target: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The restored file; absent: FILE without .unr.", show_default=False),
    ] = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Restore a file that ``unrolled compress`` wrote.

    Example: unrolled decompress runs/x book.txt.unr --out restored.txt
    """
    from unrolled.compress import decompress_file, file_header
    from unrolled.core.errors import UsageError
    from unrolled.core.files import ready_output
    from unrolled.evaluate import open_predictor
    from unrolled.predict import PredictorConfig

    if target is None:
        if file.suffix != SUFFIX:
            raise UsageError(f"{file} does not end in {SUFFIX}; say with --out where the restored file goes.")
        target = file.with_suffix("")
        if target.exists() or target.is_symlink():
            raise UsageError(f"{target} exists; say with --out where the restored file goes.")
    ready_output(target, file)
    header = file_header(file)
    opened = _open(run, device, header.threads)
    predict = PredictorConfig.parse(header.options)
    with (
        progress_bar("decompressing", not json) as advance,
        open_predictor(opened, predict, progress=advance) as predictor,
    ):
        sizes = decompress_file(file, target, predictor, opened.tokenizer, advance, opened.identity())
    _tell(target, sizes, json)


def _open(run: Path, device: str, threads: int | None) -> "Run":
    from unrolled.runs import Run

    use_threads(threads)
    return Run(run, device)


def _tell(target: Path, sizes: "Sizes", json: bool) -> None:
    bits = 8 * sizes.coded / sizes.bytes if sizes.bytes else 0.0
    if json:
        emit({"file": str(target), **sizes._asdict(), "bits_per_byte": bits})
    else:
        write(f"{sizes.bytes:,} bytes, compressed {sizes.coded:,} ({bits:.4f} bits per byte); written to {target}")
