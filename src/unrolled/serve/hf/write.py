"""A run as a folder that transformers reads."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unrolled.core.errors import UsageError
from unrolled.core.extras import require
from unrolled.core.files import atomic_folder, make_folder, write_json
from unrolled.core.record import environment
from unrolled.data.table import CORPORA
from unrolled.kernels.dispatch import Compute
from unrolled.runs import Run
from unrolled.serve.export import Exported
from unrolled.serve.hf.card import card
from unrolled.serve.hf.names import ABOUT, OWN_TOKENIZER
from unrolled.tokenizer import save_tokenizer

__all__ = ["export_hugging_face"]

_CODE = '''"""Loads the model's classes from the installed package unrolled."""

from unrolled.hf import UnrolledConfig, UnrolledForCausalLM  # noqa: F401
'''
_MODULE = "modeling_unrolled"
_KEPT = (
    "title",
    "status",
    "parameters",
    "steps",
    "tokens",
    "checksums",
    "symbols",
    "valid",
    "valid_exact",
    "environment",
)


def export_hugging_face(run: Run, out: Path, options: Mapping[str, Any]) -> Exported:
    """Write config, weights, tokenizer, generation config and model card; and, for ``unrolled import``, the run's own
    tokenizer and record.

    Args:
        options: ``remote_code``: whether the folder says by itself which classes read it.
    Raises:
        UsageError: a folder that exists, a run without a neural language model. UnrolledError: the extra is missing.
    """
    require("hf", "transformers")
    if out.exists():
        raise UsageError(f"{out} exists already; name a folder that does not.")
    remote, model = bool(options.get("remote_code")), run.model
    wrapped = _wrapped(run, remote)
    from unrolled.serve.hf.tokenizers import fast_tokenizer

    fast = fast_tokenizer(run.tokenizer)
    make_folder(out.absolute().parent)
    with atomic_folder(out) as part, _quiet():
        wrapped.save_pretrained(part)
        fast.save_pretrained(part)
        save_tokenizer(run.tokenizer, part / OWN_TOKENIZER)
        write_json(part / ABOUT, _about(run))
        (part / "README.md").write_text(card(run, remote), encoding="utf-8")
        for file in part.iterdir():  # safetensors are written for their owner alone
            file.chmod(part.joinpath("README.md").stat().st_mode)
        if remote:
            (part / f"{_MODULE}.py").write_text(_CODE, encoding="utf-8")
    size = sum(file.stat().st_size for file in out.iterdir())
    record = {"folder": str(out), "parameters": model.num_params(), "bytes": size, "remote_code": remote}
    sentence = f"{model.num_params():,} parameters written to {out}; `hf upload NAME {out}` publishes it"
    return Exported(record, sentence)


def _wrapped(run: Run, remote: bool) -> Any:
    """The run's weights in the adapter."""
    import torch
    from transformers import GenerationConfig

    from unrolled.serve.hf.configuration import UnrolledConfig
    from unrolled.serve.hf.modeling import UnrolledForCausalLM
    from unrolled.serve.hf.tokenizers import specials

    model, ids = run.model, specials(run.tokenizer)
    # a backend by name may not be there where the model is read
    compute = Compute(precision=model.config.compute.precision)
    config = UnrolledConfig(
        unrolled=model.config.model_copy(update={"compute": compute}).model_dump(mode="json"),
        vocab_size=ids.start + 1,
        symbols=model.vocab_size,
        start_id=run.tokenizer.start_id,
        bos_token_id=ids.start,
        eos_token_id=ids.end,
        pad_token_id=ids.pad,
    )
    if remote:
        classes = {"AutoConfig": UnrolledConfig, "AutoModelForCausalLM": UnrolledForCausalLM}
        config.auto_map = {name: f"{_MODULE}.{cls.__name__}" for name, cls in classes.items()}
    wrapped = UnrolledForCausalLM(config)
    with torch.no_grad():
        for own, given in zip(wrapped.lm.parameters(), model.parameters(), strict=True):
            own.copy_(given)
    wrapped.generation_config = GenerationConfig(
        bos_token_id=ids.start, eos_token_id=ids.end, pad_token_id=ids.pad, do_sample=False
    )
    return wrapped.eval()


def _about(run: Run) -> dict[str, Any]:
    """What ``unrolled import`` makes a run of again."""
    corpus = run.config.corpus.name
    return {
        "kind": "unrolled export",
        "version": 1,
        "title": run.config.title,
        "corpus": corpus if corpus in CORPORA and not run.config.corpus.own else None,
        "record": {name: run.record[name] for name in _KEPT if name in run.record},
        "environment": environment(),
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars of transformers."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
