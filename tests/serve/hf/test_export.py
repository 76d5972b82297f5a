"""A run as a folder of transformers, and back."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, pipeline

import unrolled as ur
from serve.hf.models import cache_of, loaded
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.runs import Run
from unrolled.serve.hf.importing import import_run

TEXT = "the cat runs over the hill\n"


def test_the_files(exported: Path, remote: Path):
    names = {file.name for file in exported.iterdir()}
    assert names == {
        "README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json", "unrolled.json", "unrolled_tokenizer.json",
    }  # fmt: skip
    assert {file.name for file in remote.iterdir()} - names == {"modeling_unrolled.py"}
    assert len({file.stat().st_mode for file in exported.iterdir()}) == 1
    config = json.loads((exported / "config.json").read_text())
    assert (config["model_type"], config["tie_word_embeddings"]) == ("unrolled", False)
    assert json.loads((exported / "tokenizer_config.json").read_text())["padding_side"] == "left"


def test_the_card_says_what_was_measured_and_how(exported: Path, hf_run: Path):
    card, record = (exported / "README.md").read_text(), Run(hf_run).record
    figures = (record["valid_exact"] or record["valid"])["figures"]
    assert f"| bits per character | {figures['bits_per_character']:,.4f} |" in card
    assert f"protocol: {(record['valid_exact'] or record['valid'])['protocol']['name']}." in card
    assert "| licence of the text | not known |" in card
    assert f"{record['parameters']:,}" in card


def test_the_card_names_the_licence_of_a_known_text(hf_run: Path, tmp_path: Path):
    from unrolled.data.table import CORPORA
    from unrolled.serve.hf.card import card

    run = Run(hf_run)
    run.config = run.config.model_copy(update={"corpus": run.config.corpus.model_copy(update={"name": "ptb"})})
    assert CORPORA["ptb"].licence in card(run, False)


@torch.no_grad()
def test_loaded_by_name(exported: Path, hf_run: Path):
    model, tokenizer = loaded(exported), AutoTokenizer.from_pretrained(exported)
    own = Run(hf_run)
    batch = tokenizer(TEXT, return_tensors="pt")
    ids = [own.tokenizer.start_id, *own.tokenizer.encode(TEXT)]
    expected = own.model.head.log_prob(own.model(torch.tensor([ids])).raw)[0]
    size = own.tokenizer.vocab_size
    found = model(**batch).logits
    assert torch.equal(found[..., :size], expected)
    assert bool((found[..., size:] == -torch.inf).all())
    loss = model(**batch, labels=batch["input_ids"]).loss
    torch.testing.assert_close(loss, -expected[0, :-1].gather(1, torch.tensor(ids[1:])[:, None]).mean())


@torch.no_grad()
def test_labels_are_of_the_tokenizer(exported: Path, hf_run: Path):
    """In texts that were joined, the start is the symbol that it stands for; padding counts nothing."""
    model, own = loaded(exported), Run(hf_run).tokenizer
    start, padding, real = model.config.bos_token_id, model.config.pad_token_id, own.start_id
    ids = torch.tensor([[start, *own.encode("the cat"), start, *own.encode("a"), padding]])
    told = torch.tensor([[-100, *own.encode("the cat"), real, *own.encode("a"), -100]])
    assert torch.equal(model(ids, labels=ids).loss, model(ids, labels=told).loss)
    assert float(model(ids, labels=ids).loss) < 20


def test_generation_and_pipeline_write_what_generate_writes(exported: Path, hf_run: Path):
    expected = ur.generate(hf_run, "the cat ", tokens=30, top_k=1)[0].text
    model, tokenizer = loaded(exported), AutoTokenizer.from_pretrained(exported)
    batch = tokenizer(["the cat ", "a"], return_tensors="pt", padding=True)
    out = tokenizer.batch_decode(model.generate(**batch, max_new_tokens=30), skip_special_tokens=True)
    assert out[0].endswith(expected.removeprefix("the cat "))
    told = pipeline("text-generation", model=str(exported))("the cat ", max_new_tokens=30)
    assert told[0]["generated_text"] == out[0]
    # ids of padding lie above the vocabulary, and a penalty looks them up
    assert model.generate(**batch, max_new_tokens=3, repetition_penalty=1.2).shape == (
        2,
        batch["input_ids"].shape[1] + 3,
    )


def test_finished_rows_are_fed_padding_and_stand_still(exported: Path):
    """A row that has ended gets padding that no mask shows; the others go on as alone."""
    model, tokenizer = loaded(exported), AutoTokenizer.from_pretrained(exported)
    batch = tokenizer(["the cat ", "a dog"], return_tensors="pt", padding=True)
    free = model.generate(**batch, max_new_tokens=12)
    width = batch["input_ids"].shape[1]
    end = int(free[1, width + 1])
    both = model.generate(**batch, max_new_tokens=12, eos_token_id=end)
    for row in range(2):
        alone = model.generate(
            batch["input_ids"][row : row + 1], attention_mask=batch["attention_mask"][row : row + 1],
            max_new_tokens=12, eos_token_id=end,
        )[0, width:]  # fmt: skip
        assert torch.equal(both[row, width : width + len(alone)], alone)
        assert bool((both[row, width + len(alone) :] == model.config.pad_token_id).all())


@pytest.mark.slow
@pytest.mark.parametrize("by", ["import", "remote code"])
def test_loaded_in_a_fresh_process(by: str, exported: Path, remote: Path, python: str, tmp_path: Path):
    folder, options = (exported, "") if by == "import" else (remote, ", trust_remote_code=True")
    code = f"""
{"import unrolled.hf" if by == "import" else ""}
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained({str(folder)!r}{options})
tokenizer = AutoTokenizer.from_pretrained({str(folder)!r}{options})
torch.save(model(**tokenizer({TEXT!r}, return_tensors="pt")).logits.detach(), "logits.pt")
"""
    subprocess.run([python, "-c", code], check=True, cwd=tmp_path, capture_output=True)
    model, tokenizer = loaded(exported), AutoTokenizer.from_pretrained(exported)
    expected = model(**tokenizer(TEXT, return_tensors="pt")).logits
    # another process may take another backend
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), expected.detach(), atol=1e-5, rtol=0)


@torch.no_grad()
def test_in_bf16(exported: Path):
    model, tokenizer = loaded(exported), AutoTokenizer.from_pretrained(exported)
    low = loaded(exported, dtype=torch.bfloat16)
    batch = tokenizer(TEXT, return_tensors="pt")
    assert {parameter.dtype for parameter in low.parameters()} == {torch.bfloat16}
    assert cache_of(low(**batch)).carried.hidden.dtype == torch.bfloat16
    size = model.lm.vocab_size
    difference = (low(**batch).logits - model(**batch).logits)[..., :size].abs().max()
    assert 0 < float(difference) < 0.1
    assert low.generate(**batch, max_new_tokens=4).shape[1] == batch["input_ids"].shape[1] + 4


def test_imported_again_it_is_the_same_run(exported: Path, hf_run: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    done = import_run(exported, tmp_path / "again")
    assert (done["model_type"], done["tokenizer"]) == ("unrolled", "char")
    text = tmp_path / "new.txt"
    text.write_text(TEXT * 9)
    nats = [ur.evaluate(run, corpus=str(text), split="whole").nats for run in (hf_run, tmp_path / "again")]
    assert nats[0] == nats[1]
    assert ur.generate(tmp_path / "again", "the ", tokens=9) == ur.generate(hf_run, "the ", tokens=9)
    with pytest.raises(UsageError, match="the-text-of-training-is-not-here"):
        ur.evaluate(tmp_path / "again")


@torch.no_grad()
def test_the_model_alone(exported: Path, hf_run: Path):
    tokens = torch.arange(9).view(1, 9)
    assert torch.equal(ur.from_hugging_face(exported)(tokens).raw, ur.load(hf_run, "cpu")(tokens).raw)


def test_shards(exported: Path, tmp_path: Path):
    loaded(exported).save_pretrained(tmp_path / "parts", max_shard_size="1KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    tokens = torch.arange(9).view(1, 9)
    assert torch.equal(ur.from_hugging_face(tmp_path / "parts")(tokens).raw, ur.from_hugging_face(exported)(tokens).raw)
    index = tmp_path / "parts" / "model.safetensors.index.json"
    value = json.loads(index.read_text())
    value["weight_map"]["lm.head.bias"] = "../x.safetensors"
    index.write_text(json.dumps(value))
    with pytest.raises(UnrolledError, match="no safetensors file beside it"):
        ur.from_hugging_face(tmp_path / "parts")


def changed(folder: Path, into: Path, **values: object) -> Path:
    """A copy whose config has other values; None leaves a key out."""
    shutil.copytree(folder, into)
    config = {**json.loads((folder / "config.json").read_text()), **values}
    (into / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return into


def test_weights_that_do_not_fit_are_refused(exported: Path, tmp_path: Path):
    tensors = load_file(exported / "model.safetensors")
    lacking = {name: value for name, value in tensors.items() if name != "lm.head.bias"}
    for name, other in {
        "missing": lacking,
        "unexpected": {**tensors, "lm.more": torch.zeros(2)},
        "mismatched": {**tensors, "lm.head.bias": torch.zeros(2)},
    }.items():
        folder = changed(exported, tmp_path / name)
        save_file(other, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(UnrolledError, match="the weights"):
            loaded(folder)
        with pytest.raises(UnrolledError, match="do not fit its config"):
            ur.from_hugging_face(folder)


def test_configs_that_are_damaged_are_refused(exported: Path, tmp_path: Path):
    tied = changed(exported, tmp_path / "tied", tie_word_embeddings=True)
    with pytest.raises(UnrolledError, match=r"tie_word_embeddings is True, and embedding\.tied of the model is False"):
        loaded(tied)
    for name, values, said in (
        ("a", {"unrolled": {"cell": "lstn"}}, "lstn"),
        ("b", {"model_type": "mambo"}, "did you mean 'mamba'"),
        ("c", {"model_type": None}, "has no model_type"),
        ("d", {"symbols": "many"}, "sizes are missing or no numbers"),
        ("e", {"unrolled": {"width": 20000, "cell": "lstm"}}, "do not belong together"),
    ):
        with pytest.raises(UnrolledError, match=said):
            ur.from_hugging_face(changed(exported, tmp_path / name, **values))


def test_what_cannot_be_exported_or_read(exported: Path, hf_run: Path, tmp_path: Path, monkeypatch):
    with pytest.raises(UsageError, match="exists already"):
        ur.to_hugging_face(hf_run, exported)
    with pytest.raises(UsageError, match="exists already"):
        import_run(exported, exported)
    with pytest.raises(UsageError, match="there is no folder"):
        ur.from_hugging_face(tmp_path / "none")
    folder = changed(exported, tmp_path / "pickle")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UnrolledError, match="a pickle, which can run code and is not read; convert it"):
        ur.from_hugging_face(folder)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnrolledError, match=r"this needs transformers; install it with: pip install .unrolled\[hf\]"):
        ur.to_hugging_face(hf_run, tmp_path / "x")
    assert not (tmp_path / "x").exists()
