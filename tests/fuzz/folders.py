"""Folders as transformers has them: one of our own export and one of a published model, each with its tokenizer."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from unrolled.core import tree
from unrolled.runs import Run, weights
from unrolled.tokenizer import save_tokenizer

__all__ = ["make_folders"]

_SIZES = {
    "embeddings.weight": (264, 16), "norm_f.weight": (16,), "layers.0.norm.weight": (16,),
    "layers.0.mixer.in_proj.weight": (64, 16), "layers.0.mixer.conv1d.weight": (32, 1, 4),
    "layers.0.mixer.conv1d.bias": (32,), "layers.0.mixer.x_proj.weight": (5, 32),
    "layers.0.mixer.dt_proj.weight": (32, 1), "layers.0.mixer.dt_proj.bias": (32,), "layers.0.mixer.A_log": (32, 2),
    "layers.0.mixer.D": (32,), "layers.0.mixer.out_proj.weight": (16, 32),
}  # fmt: skip


def make_folders(home: Path, run: Path) -> tuple[Path, Path]:
    """The folders, made without transformers. run: a neural run."""
    own, opened = home / "exported", Run(run, "cpu")
    own.mkdir()
    tree.save_tensors(own / "model.safetensors", {f"lm.{name}": value for name, value in weights(opened.model).items()})
    size = opened.tokenizer.vocab_size
    config = {"model_type": "unrolled", "unrolled": opened.model.config.model_dump(mode="json"), "symbols": size}
    (own / "config.json").write_text(json.dumps({**config, "vocab_size": size + 2}))
    save_tokenizer(opened.tokenizer, own / "unrolled_tokenizer.json")
    about = {"kind": "unrolled export", "version": 1, "title": "x", "corpus": None, "record": {"steps": 6}}
    (own / "unrolled.json").write_text(json.dumps(about))
    published = home / "published"
    published.mkdir()
    drawn = torch.Generator().manual_seed(1)
    named = {f"backbone.{name}": torch.randn(shape, generator=drawn) for name, shape in _SIZES.items()}
    tree.save_tensors(published / "model.safetensors", named)
    config = {"model_type": "mamba", "hidden_size": 16, "num_hidden_layers": 1, "state_size": 2, "vocab_size": 264}
    (published / "config.json").write_text(json.dumps({**config, "bos_token_id": 0, "eos_token_id": 0}))
    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    engine.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=260, initial_alphabet=alphabet, special_tokens=["<eos>"], show_progress=False
    )
    engine.train_from_iterator(["the cat and the hat"] * 9, trainer)
    engine.save(str(published / "tokenizer.json"))
    return own, published
