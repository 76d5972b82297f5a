"""``unrolled compress`` and ``unrolled decompress``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unrolled.cli.common import DeviceOption, JsonOption, app, emit, progress_bar, write

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
    dynamic: Annotated[
        str | None, typer.Option(help="Learn while reading: krause, mos, lamb, sgd or sgd_decay.", show_default=False)
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting such as dynamic.lr=1e-4 or temperature=0.95.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads, on both sides.")] = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Compress a file without loss, by the model's predictions.

    Decompressing takes as long as compressing and needs the same run, and a machine that computes the same numbers;
    where it does not, the file is refused before anything is written. What was set here is read from the file there.

    Example: unrolled compress runs/x book.txt --lanes 64
    """
    from unrolled.compress import CompressConfig, compress_file
    from unrolled.core.config import apply_settings
    from unrolled.evaluate import PredictorConfig, open_predictor

    options: dict[str, Any] = {} if dynamic is None else {"dynamic": {"preset": dynamic}}
    predict = PredictorConfig.parse(apply_settings(options, settings or ()))
    opened = _open(run, device, threads)
    config = CompressConfig(lanes=lanes)
    target = target or file.with_name(file.name + SUFFIX)
    with (
        progress_bar("compressing", not json) as advance,
        open_predictor(opened, predict, progress=advance) as predictor,
    ):
        sizes = compress_file(file, target, predictor, opened.tokenizer, config, advance, _identity(opened))
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
    from unrolled.compress import decompress_file, read_header
    from unrolled.core.errors import UsageError
    from unrolled.evaluate import PredictorConfig, open_predictor

    if target is None:
        if file.suffix != SUFFIX:
            raise UsageError(f"{file} does not end in {SUFFIX}; say with --out where the restored file goes.")
        target = file.with_suffix("")
        if target.exists():
            raise UsageError(f"{target} exists; say with --out where the restored file goes.")
    try:
        header = read_header(file.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read {file}: {(error.strerror or str(error)).lower()}.") from error
    opened = _open(run, device, header.threads)
    predict = PredictorConfig.parse(header.options)
    with (
        progress_bar("decompressing", not json) as advance,
        open_predictor(opened, predict, progress=advance) as predictor,
    ):
        sizes = decompress_file(file, target, predictor, opened.tokenizer, advance, _identity(opened))
    _tell(target, sizes, json)


def _open(run: Path, device: str, threads: int | None) -> "Run":
    import torch

    from unrolled.runs import Run

    if threads is not None:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    return Run(run, device)


def _identity(run: "Run") -> str | None:
    """Count models have no weights; their tables' checksum names them."""
    return run.ngrams.config.tables_sha256 if run.config.counts is not None else None


def _tell(target: Path, sizes: "Sizes", json: bool) -> None:
    bits = 8 * sizes.coded / sizes.bytes if sizes.bytes else 0.0
    if json:
        emit({"file": str(target), **sizes._asdict(), "bits_per_byte": bits})
    else:
        write(f"{sizes.bytes:,} bytes, compressed {sizes.coded:,} ({bits:.4f} bits per byte); written to {target}")
