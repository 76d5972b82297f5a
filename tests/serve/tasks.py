"""Tasks of the harness in files: texts to read, questions with four answers, and texts to go on with."""

import json
from pathlib import Path

__all__ = ["DOCUMENTS", "QUESTIONS", "write_tasks"]

DOCUMENTS = ["the cat runs over the green hill\n", "the dog sleeps", "memory carries the small state and the cat\n" * 9]
QUESTIONS = [
    ("the cat runs under", ["the hill", "the dog", "over and", "the hill"], 0),
    ("the small dog", ["sleeps", "state", "carries memory", "and"], 1),
    ("the cat runs under", ["memory", "green", "the dog", "small"], 3),
]

_TEXTS = """task: tiny_texts
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/texts.jsonl}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list:
  - metric: bits_per_byte
metadata: {{version: 3.0}}
"""
_CHOICES = """task: tiny_choices
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/choices.jsonl}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{context}}}}"
doc_to_choice: "{{{{answers}}}}"
doc_to_target: "{{{{gold}}}}"
metric_list:
  - metric: acc
metadata: {{version: 1.0}}
"""
_WRITTEN = """task: tiny_written
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/choices.jsonl}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{context}}}}"
doc_to_target: "x"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 12, do_sample: false}}
metric_list:
  - metric: exact_match
metadata: {{version: 1.0}}
"""


def write_tasks(folder: Path) -> Path:
    """A folder with three tasks and their texts."""
    folder.mkdir()
    for name, text in (("texts", _TEXTS), ("choices", _CHOICES), ("written", _WRITTEN)):
        (folder / f"{name}.yaml").write_text(text.format(folder=folder))
    rows = [json.dumps({"text": text}) for text in DOCUMENTS]
    (folder / "texts.jsonl").write_text("\n".join(rows) + "\n")
    rows = [json.dumps({"context": c, "answers": a, "gold": g}) for c, a, g in QUESTIONS]
    (folder / "choices.jsonl").write_text("\n".join(rows) + "\n")
    return folder
