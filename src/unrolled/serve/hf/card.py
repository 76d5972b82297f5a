"""The model card: what the model is, on what it was trained, and how its figures were measured."""

from collections.abc import Mapping
from typing import Any

from unrolled.core.registry import cut
from unrolled.data.table import CORPORA
from unrolled.runs import Run

__all__ = ["card"]

_FIGURES = {
    "nats_per_token": "nats per token",
    "perplexity_per_token": "perplexity per token",
    "perplexity_per_word": "perplexity per word",
    "bits_per_character": "bits per character",
    "bits_per_byte": "bits per byte",
}


def card(run: Run, remote_code: bool) -> str:
    """The card of a run, in Markdown. remote_code: whether the folder holds the file that imports unrolled."""
    model, record = run.model, run.record
    title = run.config.title or "A recurrent language model"
    cells = list(dict.fromkeys(cell.name for cell in model.config.layer_cells()))
    corpus = CORPORA.get(run.config.corpus.name or "")
    front = ["---", "library_name: transformers", "pipeline_tag: text-generation"]
    front += ["tags:", "- unrolled", *(f"- {name}" for name in cells), "---"]
    text = "a text of its owner's" if corpus is None else f"{corpus.name}: {corpus.description}"
    licence = "not known" if corpus is None else corpus.licence
    facts = [
        ("cells", f"{', '.join(cells)}, {model.config.layers} layers of width {model.config.layer_widths()[-1]}"),
        ("parameters", f"{model.num_params():,}"),
        ("vocabulary", f"{model.vocab_size:,} ids of the tokenizer {run.tokenizer.kind}"),
        ("trained on", text),
        ("licence of the text", licence),
    ]
    counted = [name for name in ("steps", "tokens") if isinstance(record.get(name), int)]
    facts += [(f"{name} of training", f"{record[name]:,}") for name in counted]
    lines = [
        *front,
        "",
        f"# {cut(title)}",
        "",
        "| | |",
        "| --- | --- |",
        *(f"| {name} | {_cell(v)} |" for name, v in facts),
    ]
    return "\n".join([*lines, "", *_measured(record), *_use(remote_code), ""])


def _cell(text: str) -> str:
    return cut(text.replace("|", "\\|"), 500)


def _measured(record: Mapping[str, Any]) -> list[str]:
    """The figures on the validation split, with their protocol; nothing where there are none."""
    result = record.get("valid_exact") or record.get("valid")
    if not isinstance(result, dict):
        return []
    protocol, figures = result.get("protocol"), result.get("figures")
    if not isinstance(protocol, dict) or not isinstance(figures, dict):
        return []
    rows = [
        f"| {title} | {figures[name]:,.4f} |"
        for name, title in _FIGURES.items()
        if isinstance(figures.get(name), int | float)
    ]
    told = f"Validation split, {result.get('tokens', 0):,} tokens; protocol: {cut(str(protocol.get('name', '')))}."
    return ["## Figures", "", told, "", "| figure | |", "| --- | --- |", *rows, ""]


def _use(remote_code: bool) -> list[str]:
    """How it is loaded."""
    option = ", trust_remote_code=True" if remote_code else ""
    first = [] if remote_code else ["import unrolled.hf  # makes the class known"]
    return [
        "## Use",
        "",
        "It needs the package `unrolled` with its extra `hf`.",
        "",
        "```python",
        *first,
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'model = AutoModelForCausalLM.from_pretrained("FOLDER"{option})',
        f'tokenizer = AutoTokenizer.from_pretrained("FOLDER"{option})',
        'batch = tokenizer(["the "], return_tensors="pt")',
        "print(tokenizer.batch_decode(model.generate(**batch, max_new_tokens=100), skip_special_tokens=True)[0])",
        "```",
        "",
        "Logits are log-probabilities. The state that is carried has a size that does not grow with the text.",
    ]
