"""A folder of transformers as an ordinary run directory."""

from pathlib import Path
from typing import Any

from unrolled.core import tree
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import atomic_folder, make_folder, read_json, write_json
from unrolled.core.record import environment
from unrolled.core.registry import cut
from unrolled.data.table import CORPORA
from unrolled.runs import CONFIG, MODEL, RECORD, TOKENIZER, RunConfig, weights
from unrolled.serve.hf.names import ABOUT, OWN_TOKENIZER
from unrolled.serve.hf.read import Found, model_of, opened_folder
from unrolled.tokenizer import Tokenizer, load_tokenizer, save_tokenizer
from unrolled.tokenizer.pretrained import PretrainedTokenizer

__all__ = ["import_run"]

_MOST_TOKENIZER = 128 << 20
# stands for a text that did not come with the model
_NO_TEXT = "the-text-of-training-is-not-here"


def import_run(source: str | Path, out: Path, revision: str | None = None) -> dict[str, Any]:
    """Write a run directory from a folder that transformers reads, or from a name on the hub.

    Args:
        source, revision: see :func:`unrolled.serve.hf.read.from_hugging_face`. out: must not exist.
    Returns:
        what was written: folder, model_type, parameters, vocabulary, tokenizer.
    Raises:
        UsageError, UnrolledError: see there; a tokenizer that is missing or cannot be read.
    """
    if out.exists():
        raise UsageError(f"{out} exists already; name a folder that does not, with --out.")
    found = opened_folder(source, revision)
    tokenizer = _tokenizer(found)
    if tokenizer.vocab_size != found.symbols:
        raise UnrolledError(
            f"the tokenizer of {found.folder} has {tokenizer.vocab_size:,} ids and its model {found.symbols:,}; they "
            "do not belong together."
        )
    model, about = model_of(found), _about(found)
    corpus = about.get("corpus")
    known = {"name": corpus} if isinstance(corpus, str) and corpus in CORPORA else {"path": _NO_TEXT}
    title = about.get("title") or f"{found.kind} of {found.folder.absolute().name}"
    config = RunConfig.parse(
        {
            "title": title if isinstance(title, str) else "",
            "corpus": known,
            "tokenizer": tokenizer.config.model_dump(mode="json"),
            "model": found.config.model_dump(mode="json"),
        }
    )
    kept = about.get("record")
    record = {
        **(kept if isinstance(kept, dict) else {}),
        "kind": "unrolled record",
        "version": 1,
        "task": "lm",
        "status": "imported",
        "imported": {"from": found.folder.absolute().name, "model_type": found.kind, "by": environment()},
        "parameters": model.num_params(),
        "vocabulary": tokenizer.vocab_size,
        "tokenizer": tokenizer.fingerprint(),
        "symbols": tokenizer.symbols_checksum(),
    }
    make_folder(out.absolute().parent)
    with atomic_folder(out) as part:
        config.save(part / CONFIG)
        tree.save_tensors(part / MODEL, weights(model))
        save_tokenizer(tokenizer, part / TOKENIZER)
        write_json(part / RECORD, record)
    return {
        "folder": str(out),
        "model_type": found.kind,
        "parameters": model.num_params(),
        "vocabulary": tokenizer.vocab_size,
        "tokenizer": tokenizer.kind,
    }


def _tokenizer(found: Found) -> Tokenizer:
    """The tokenizer that lies in the folder, as ours."""
    if (found.folder / OWN_TOKENIZER).is_file():
        return load_tokenizer(found.folder / OWN_TOKENIZER)
    file = found.folder / TOKENIZER
    if not file.is_file():
        raise UnrolledError(
            f"{found.folder} has no {TOKENIZER}; write one where the tokenizer is: "
            "AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER)."
        )
    state, end, start = read_json(file, _MOST_TOKENIZER), _id(found, "eos_token_id"), _id(found, "bos_token_id")
    start = end if start is None else start
    try:
        config = PretrainedTokenizer.Config(start=start or 0, end=end, size=found.symbols)
        return PretrainedTokenizer.from_json(config, {"tokenizers": state})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UnrolledError(f"{file} cannot be read ({cut(str(error), 80)}); get it again.") from error


def _id(found: Found, name: str) -> int | None:
    """An id that the config names; of several the first."""
    value = found.values.get(name)
    value = value[0] if isinstance(value, list) and value else value
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < found.symbols else None


def _about(found: Found) -> dict[str, Any]:
    """What our own export tells of its run; empty for others."""
    if not (found.folder / ABOUT).is_file():
        return {}
    value = read_json(found.folder / ABOUT)
    if not isinstance(value, dict) or value.get("kind") != "unrolled export" or value.get("version") != 1:
        raise UnrolledError(f"{found.folder / ABOUT} is damaged, or of a newer release; export the run again.")
    return value
