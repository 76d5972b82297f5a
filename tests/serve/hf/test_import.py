"""Checkpoints of transformers with their tokenizers as run directories."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import unrolled as ur
from serve.hf.models import loaded
from serve.hf.test_foreign import theirs
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.runs import Run
from unrolled.serve.hf.importing import import_run
from unrolled.tokenizer import TOKENIZERS, load_tokenizer, save_tokenizer

TEXT = "the cat sat on the mat\n\nthe naïve dog — “too” — sat\n"
SPECIAL = "<|endoftext|>"


def byte_level() -> Tokenizer:
    """As GPT-NeoX: NFC, words of bytes, a special token first."""
    engine = Tokenizer(models.BPE())
    engine.normalizer = normalizers.NFC()  # type: ignore[assignment]
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    engine.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    engine.train_from_iterator([TEXT] * 9, trainers.BpeTrainer(
        vocab_size=290, initial_alphabet=alphabet, special_tokens=[SPECIAL], show_progress=False))  # fmt: skip
    return engine


def pieces() -> Tokenizer:
    """As Gemma: blanks as U+2581, bytes for what the vocabulary lacks."""
    names = [
        SPECIAL,
        *(f"<0x{value:02X}>" for value in range(256)),
        *"\u2581abcdehimnost\n",
        "\u2581t",
        "\u2581th",
        "\u2581the",
    ]
    merges = [("\u2581", "t"), ("\u2581t", "h"), ("\u2581th", "e")]
    engine = Tokenizer(
        models.BPE({name: i for i, name in enumerate(names)}, merges, byte_fallback=True, unk_token=SPECIAL)
    )
    engine.add_special_tokens([AddedToken(SPECIAL, normalized=False)])
    engine.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])  # type: ignore[assignment]
    engine.decoder = decoders.Sequence(  # type: ignore[assignment]
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return engine


ENGINES = {"bytes": byte_level, "pieces": pieces}


@pytest.fixture(params=ENGINES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A tiny mamba whose vocabulary is larger than its tokenizer's, as published ones are."""
    model, engine = theirs("Mamba", {"state_size": 4}), ENGINES[request.param]()
    model.resize_token_embeddings(engine.get_vocab_size() + 7)
    model.save_pretrained(tmp_path / "theirs")
    fast = PreTrainedTokenizerFast(tokenizer_object=engine, eos_token=SPECIAL, clean_up_tokenization_spaces=False)
    fast.save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


def test_every_verb_takes_it(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    done = import_run(folder, tmp_path / "run")
    assert (done["model_type"], done["tokenizer"]) == ("mamba", "pretrained")
    run, fast, model = Run(tmp_path / "run", "cpu"), AutoTokenizer.from_pretrained(folder), loaded(folder)
    ids = fast(TEXT, add_special_tokens=False)["input_ids"]
    assert run.tokenizer.encode(TEXT) == ids
    assert run.tokenizer.decode(ids).lstrip(" ") == TEXT
    (tmp_path / "text.txt").write_text(TEXT)
    found = ur.evaluate(run, corpus=str(tmp_path / "text.txt"), split="whole")
    start, end = model.config.bos_token_id, model.config.eos_token_id
    with torch.no_grad():
        log_prob = torch.log_softmax(model(torch.tensor([[start, *ids]])).logits[0], -1)
    expected = -float(log_prob.gather(1, torch.tensor([*ids, end])[:, None]).sum())
    assert found.nats == pytest.approx(expected, abs=1e-3)
    assert (found.characters, found.bytes, found.tokens) == (len(TEXT), len(TEXT.encode()), len(ids) + 1)
    prompt = fast("the cat", add_special_tokens=False)["input_ids"]
    told = torch.tensor([[start, *prompt]])
    # without a mask it would take its first token, which has the id of padding, for padding
    out = model.generate(
        told, attention_mask=torch.ones_like(told), max_new_tokens=5, do_sample=False, eos_token_id=None
    )
    assert ur.generate(run, "the cat", tokens=5, temperature=0.0)[0].tokens[:5] == out[0, len(prompt) + 1 :].tolist()


def test_out_again(folder: Path, tmp_path: Path):
    import_run(folder, tmp_path / "run")
    again = ur.to_hugging_face(tmp_path / "run", tmp_path / "again")
    model, tokenizer = loaded(again), AutoTokenizer.from_pretrained(again)
    batch = tokenizer(TEXT, return_tensors="pt")
    assert batch["input_ids"][0, 1:].tolist() == AutoTokenizer.from_pretrained(folder)(TEXT)["input_ids"]
    first = loaded(folder)
    ids = torch.cat([torch.tensor([[first.config.bos_token_id]]), batch["input_ids"][:, 1:]], 1)
    with torch.no_grad():
        expected = torch.log_softmax(first(ids).logits, -1)
        torch.testing.assert_close(model(**batch).logits[..., :-2], expected, atol=1e-5, rtol=0)


def test_saved_and_loaded(tmp_path: Path):
    for name, make in ENGINES.items():
        engine = make()
        cls = TOKENIZERS["pretrained"]
        config = cls.Config.parse({"size": engine.get_vocab_size() + 3, "end": 0, "start": 1})
        own = cls.from_json(config, {"tokenizers": json.loads(engine.to_str())})
        save_tokenizer(own, tmp_path / f"{name}.json")
        again = load_tokenizer(tmp_path / f"{name}.json")
        assert (again.fingerprint(), again.start_id, again.end_id) == (own.fingerprint(), 1, 0)
        assert again.encode(TEXT, end=True) == [*engine.encode(TEXT).ids, 0]
        assert again.token(0) == SPECIAL
        units = again.units_of(again.encode_exact(TEXT))
        assert (units.characters, units.bytes) == (len(TEXT), len(TEXT.encode()))


def odd(engine: Tokenizer, **values: Any) -> dict[str, Any]:
    return {**json.loads(engine.to_str()), **values}


def test_what_cannot_be_read(tmp_path: Path):
    model = theirs("Mamba", {"state_size": 4})
    model.save_pretrained(tmp_path / "theirs")
    with pytest.raises(UnrolledError, match=r"has no tokenizer\.json; write one"):
        import_run(tmp_path / "theirs", tmp_path / "run")
    words = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex(" "), "removed")  # type: ignore[assignment]
    small = byte_level()  # more ids than the model
    for value, said in (
        (odd(words), "a spelling that is not known"), (odd(small), "an id that the model lacks"),
        ({"a": 1}, "no description of an engine"), ([], "cannot be read"),
    ):  # fmt: skip
        (tmp_path / "theirs" / "tokenizer.json").write_text(json.dumps(value))
        with pytest.raises(UnrolledError, match=said):
            import_run(tmp_path / "theirs", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match="comes with a model that is imported"):
        TOKENIZERS["pretrained"].train(TOKENIZERS.parse("pretrained"), [b"a"])
