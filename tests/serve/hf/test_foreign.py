"""Checkpoints of transformers' own recurrent models: tiny random ones, saved by it and read by us."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import unrolled as ur
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.serve.hf.foreign import FOREIGN

V = 29
MAMBA2 = {"state_size": 8, "num_heads": 4, "head_dim": 16, "chunk_size": 4}
GEMMA = {"num_attention_heads": 2, "attention_window_size": 6, "intermediate_size": 96, "num_hidden_layers": 3}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "mamba": ("Mamba", {"state_size": 4}),
    "mamba, untied": ("Mamba", {"state_size": 4, "tie_word_embeddings": False, "expand": 1, "conv_kernel": 3}),
    "mamba2": ("Mamba2", {**MAMBA2, "n_groups": 1}),
    "mamba2, groups": ("Mamba2", {**MAMBA2, "n_groups": 2, "tie_word_embeddings": True}),
    "falcon_mamba": ("FalconMamba", {"state_size": 4}),
    "rwkv": ("Rwkv", {}),
    "rwkv, other sizes": ("Rwkv", {"intermediate_size": 48, "tie_word_embeddings": True}),
    "xlstm": ("xLSTM", {"hidden_size": 128, "num_heads": 2}),
    "xlstm, wide keys": ("xLSTM", {"hidden_size": 128, "num_heads": 2, "qk_dim_factor": 1.0}),
    "recurrent_gemma": ("RecurrentGemma", {**GEMMA, "num_key_value_heads": 1}),
    "recurrent_gemma, other sizes": (
        "RecurrentGemma", {**GEMMA, "lru_width": 48, "block_types": ["attention", "recurrent"]},
    ),
}  # fmt: skip


def theirs(kind: str, options: dict[str, Any]) -> Any:
    """A model of transformers, two layers of width 32, whose weights are all drawn."""
    values = {"hidden_size": 32, "num_hidden_layers": 2, **options}
    ids = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    config = getattr(transformers, f"{kind}Config")(vocab_size=V, **ids, **values)
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    kept = ("A_log", "recurrent_param", "time_decay", "dt_bias", "time_first")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith(kept):
                parameter += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder of a model and its log-probabilities of 20 tokens, made when asked for."""
    made: dict[str, tuple[Path, Tensor]] = {}

    def make(name: str) -> tuple[Path, Tensor]:
        if name not in made:
            folder, model = tmp_path_factory.mktemp("theirs"), theirs(*MODELS[name])
            model.save_pretrained(folder)
            with torch.no_grad():
                made[name] = folder, torch.log_softmax(model(tokens(), use_cache=False).logits, -1)
        return made[name]

    return make


def tokens() -> Tensor:
    return torch.randint(V, (2, 20), generator=torch.Generator().manual_seed(1))


def test_every_kind_is_here():
    assert {name.partition(",")[0] for name in MODELS} == set(FOREIGN)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_whole_and_going_on(name: str, saved: Any):
    """Theirs for the whole text; and 12 tokens after 8, which several of theirs get wrong, are ours of the whole."""
    folder, expected = saved(name)
    own = ur.from_hugging_face(folder)
    whole = own.head.log_prob(own(tokens()).raw)[0]
    torch.testing.assert_close(whole, expected, atol=1e-5, rtol=0)
    first = own(tokens()[:, :8])
    later = own.head.log_prob(own(tokens()[:, 8:], first.state).raw)[0]
    torch.testing.assert_close(later, whole[:, 8:], atol=1e-5, rtol=0)
    assert float(whole.std()) > 0.5


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("mamba", {"use_bias": True}, "use_bias=True, and the cell here computes use_bias=False alone"),
        ("mamba", {"time_step_rank": 3}, "time_step_rank=3"),
        ("mamba", {"hidden_size": "wide"}, "hidden_size of this mamba is no number"),
        ("mamba2", {"time_step_limit": [0.0, 0.1]}, "time_step_limit"),
        ("falcon_mamba", {"mixer_rms_eps": 0.1}, "mixer_rms_eps=0.1"),
        ("rwkv", {"attention_hidden_size": 64}, "attention_hidden_size=64"),
        ("xlstm", {"hidden_size": 32}, "values of width 64, and the cell here has the model's, 32"),
        ("xlstm", {"weight_mode": "fused"}, "weight_mode='fused'"),
        ("recurrent_gemma", {"block_types": ["mamba"]}, "block_types of this recurrent_gemma"),
        ("recurrent_gemma", {"rope_parameters": {"rope_type": "yarn"}}, "scaled rotary positions"),
        ("mamba", {"state_size": 5}, "the weights have other shapes"),
    ],
)
def test_what_there_is_no_cell_for_is_refused(name: str, values: dict[str, Any], said: str, saved: Any, tmp_path: Path):
    folder, _ = saved(name)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **values}))
    with pytest.raises(UsageError, match=said):
        ur.from_hugging_face(tmp_path)


def test_shards_and_pickles(saved: Any, tmp_path: Path):
    folder, expected = saved("mamba")
    model = transformers.MambaForCausalLM.from_pretrained(folder)
    model.save_pretrained(tmp_path / "parts", max_shard_size="8KB")
    assert (tmp_path / "parts" / "model.safetensors.index.json").is_file()
    own = ur.from_hugging_face(tmp_path / "parts")
    with torch.no_grad():
        torch.testing.assert_close(own.head.log_prob(own(tokens()).raw)[0], expected, atol=1e-5, rtol=0)
    for file in (tmp_path / "parts").glob("model*"):
        file.unlink()
    torch.save({}, tmp_path / "parts" / "pytorch_model.bin")
    with pytest.raises(UnrolledError, match=r"pytorch_model\.bin, a pickle"):
        ur.from_hugging_face(tmp_path / "parts")
