"""Surprisal of the words of a stimulus table: a TSV in, a TSV out, one row for each row.

The table has a header and a column ``word``; ``item`` says which words make a text together. Each item is read by
itself, from the start symbol. The model is trained here, briefly; give a run of yours for figures that mean something.

    python examples/surprisal_table.py [TABLE [OUT [RUN]]]       # absent: a little table and model of its own
"""

import csv
import math
import os
import sys
from pathlib import Path

import unrolled as ur
from unrolled.data.reading import text_part
from unrolled.evaluate import ScoreConfig, WordTable, open_predictor, read_words, score_text

SENTENCES = {"a": "The value of the expression is returned .", "b": "The value of the horse is returned ."}


def own_table(path: Path) -> Path:
    """A table of two items, to have something to read."""
    rows = [f"{item}\t{word}\n" for item, text in SENTENCES.items() for word in text.split()]
    path.write_text("item\tword\n" + "".join(rows), encoding="utf-8")
    return path


def own_model() -> Path:
    """A model of some seconds; ``EXAMPLE_STEPS`` says how many steps."""
    steps = os.environ.get("EXAMPLE_STEPS", "300")
    few = ["model.width=128", "train.final_eval=false", "train.valid_tokens=1000", f"train.steps={steps}"]
    return ur.train(ur.experiment(corpus="pydoc", settings=few))


def main(table: str | None = None, out: str = "surprisal.tsv", run: str | None = None) -> None:
    source = Path(table) if table else own_table(Path("stimuli.tsv"))
    opened = ur.Run(run or own_model())
    how = ScoreConfig(reset="line", boundary="trailing", entropy=True)
    asked = WordTable(column="word", keep=("item",), line_by="item")
    total, words = 0.0, 0
    with open_predictor(opened) as predictor, Path(out).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, quotechar=None)
        writer.writerow(["item", "word", "tokens", "surprisal_bits", "entropy_bits"])
        for scored in score_text(predictor, opened.tokenizer, read_words(text_part(str(source)), asked), how):
            if scored.unit.kind == "word":
                kept = scored.unit.kept or ("",)
                entropy = (scored.entropy or 0.0) / math.log(2)
                writer.writerow([*kept, scored.text, scored.tokens, f"{scored.bits:.4f}", f"{entropy:.4f}"])
                total, words = total + scored.bits, words + 1
    print(f"{words} words, {total / words:.3f} bits each: {out}")


if __name__ == "__main__":
    main(*sys.argv[1:])
