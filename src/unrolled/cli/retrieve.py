"""``unrolled retrieve``."""

from pathlib import Path
from typing import Annotated

import typer

from unrolled.cli.common import (
    BackendOption,
    DeviceOption,
    JsonOption,
    PredictOption,
    SettingsOption,
    app,
    at_test_time,
    emit,
    given_text,
    write,
)


@app.command()
def retrieve(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    documents: Annotated[Path, typer.Argument(help="A file with a document a line, or a folder of .txt files.")],
    query: Annotated[str, typer.Argument(help="What the model reads; passages of the documents go on from it.")],
    count: Annotated[int, typer.Option("--count", "-k", min=1, help="Documents to tell.")] = 5,
    beams: Annotated[int, typer.Option(min=1, help="Passages under way in the search.")] = 15,
    tokens: Annotated[int, typer.Option(min=1, max=64, help="Tokens of a passage at most.")] = 10,
    predict: PredictOption = None,
    settings: SettingsOption = None,
    device: DeviceOption = "auto",
    backend: BackendOption = None,
    json: JsonOption = False,
) -> None:
    """Find the documents whose passages a model would go on with after a query.

    The model is asked for passages that occur in the documents (beam search in an index of them), and what it says much
    likelier after the query than their frequency explains speaks for the documents that hold it (SEAL). The index is
    made at the start, 2 seconds for a million tokens.

    Example: unrolled retrieve runs/x notes.txt "the price of oil" -k 3

    Example: unrolled retrieve runs/x notes.txt "the price of oil" --set retrieve.power=1
    """
    from unrolled.core.registry import unknown_name
    from unrolled.evaluate import open_predictor
    from unrolled.generate.constraints.corpus import index_of, read_documents
    from unrolled.generate.retrieve import RetrieveConfig
    from unrolled.generate.retrieve import retrieve as find
    from unrolled.predict import PredictorConfig
    from unrolled.runs import Run

    opened, asked = Run(run, device, backend), given_text(query, "the query")
    options, others = at_test_time(predict, settings, {"retrieve": {"beams": beams, "tokens": tokens}})
    config = RetrieveConfig.parse(others.pop("retrieve"))
    if others:
        raise unknown_name("config key", next(iter(others)), ["retrieve", "predict"])
    texts = read_documents(documents)
    index = index_of(texts, opened.tokenizer)
    with open_predictor(opened, PredictorConfig.parse(options), stepwise=True) as predictor:
        found = find(predictor, opened.tokenizer, index, asked, count, config)
    if json:
        emit([{**one._asdict(), "number": one.number + 1, "text": texts[one.number]} for one in found])
        return
    for one in found:
        passages = ", ".join(f"{text!r} {weight:.2f}" for text, weight in one.passages[:3])
        write(f"--- document {one.number + 1}, score {one.score:.3f}: {passages}")
        write(" ".join(texts[one.number][:200].split()))
    if not found:
        write("no document speaks for itself: no passage is likelier after the query than anywhere")
