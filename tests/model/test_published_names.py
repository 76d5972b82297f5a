"""What official scripts and their descendants save: wrappers, copies under weight drop, criterions, arrays; faults."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unrolled.core.errors import UsageError
from unrolled.model import LanguageModel, ModelConfig
from unrolled.model.published import load_published

V, E, H = 11, 5, 7
TOKENS = torch.randint(V, (3, 9), generator=torch.Generator().manual_seed(1))
LSTM_NAMES = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


def model(layers: int = 2, **values: Any) -> LanguageModel:
    widths = [H] * (layers - 1) + [E]
    config = {"layers": layers, "widths": widths, "embedding": {"size": E, "tied": True}, "cell": "lstm", **values}
    return LanguageModel(ModelConfig.parse(config), V).double()


def plain(layers: int = 2, vocabulary: int = V) -> dict[str, Tensor]:
    """An AWD-LSTM without weight drop."""
    generator = torch.Generator().manual_seed(2)
    weights = {"encoder.weight": torch.randn(vocabulary, E, generator=generator).double()}
    for i in range(layers):
        low, high = (E if i == 0 else H), (E if i == layers - 1 else H)
        for name, shape in zip(LSTM_NAMES, [(4 * high, low), (4 * high, high), (4 * high,), (4 * high,)], strict=True):
            weights[f"rnns.{i}.{name}"] = torch.randn(shape, generator=generator).double()
    bias = torch.randn(vocabulary, generator=generator).double()
    return {**weights, "decoder.weight": weights["encoder.weight"], "decoder.bias": bias}


def evaluated(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Under weight drop, after an evaluation: the matrix is there as it is trained and as it was last used."""
    found = {
        name.replace("rnns.0", "rnns.0.module").replace("rnns.1", "rnns.1.module"): w for name, w in weights.items()
    }
    for name in [name for name in found if name.endswith("weight_hh_l0")]:
        found[f"{name}_raw"] = found[name]
    return found


def masked(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same after a training step of code that leaves the masked matrix at its place."""
    return {name: w.where(w > 0, 0) if name.endswith("weight_hh_l0") else w for name, w in evaluated(weights).items()}


def fastai(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of its first and second version."""
    found = {}
    for name, value in masked(weights).items():
        raw = name.replace(".module", "") if name.endswith("_raw") else name
        found[("1." if name.startswith("decoder") else "0.") + raw] = value
    return {**found, "0.encoder_dp.emb.weight": weights["encoder.weight"].clone()}


def old_fastai(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {("1." if name.startswith("decoder") else "0.") + name: w for name, w in evaluated(weights).items()}
    found = {name: w for name, w in found.items() if not name.endswith("weight_hh_l0")}
    return {**found, "0.encoder_with_dropout.embed.weight": weights["encoder.weight"].clone()}


def nested(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {name.replace(".module", ".rnn.module"): value for name, value in evaluated(weights).items()}
    part = {name: "decoder" if name.startswith("decoder") else "encoder" for name in found}
    return {f"module.{part[name]}.{name}": value for name, value in found.items()}


def log_probs(lm: LanguageModel) -> Tensor:
    return lm.head.log_prob(lm(TOKENS).raw)[0]


@pytest.mark.parametrize("form", [evaluated, masked, fastai, old_fastai, nested], ids=lambda form: form.__name__)
def test_wrappers_and_copies_do_not_matter(form: Any) -> None:
    wanted, lm = model(), model()
    load_published(wanted, plain(), "awd-lstm")
    load_published(lm, form(plain()), "awd-lstm")
    assert torch.equal(log_probs(lm), log_probs(wanted))
    assert not torch.equal(log_probs(model()), log_probs(wanted))


def qrnn(form: str) -> dict[str, Tensor]:
    generator, weights = torch.Generator().manual_seed(3), {}
    weights["encoder.weight"] = torch.randn(V, E, generator=generator).double()
    weights["decoder.bias"] = torch.randn(V, generator=generator).double()
    for i, shape in enumerate([(3 * H, 2 * E), (3 * E, H)]):
        value = torch.randn(shape, generator=generator).double()
        weights[form.format(i, "weight_raw")] = value
        weights[form.format(i, "module.weight")] = value.where(value > 0, 0)
        weights[form.format(i, "module.bias")] = torch.randn(shape[0], generator=generator).double()
    return weights


def test_the_names_of_qrnns() -> None:
    cells = [{"name": "qrnn", "window": 2}, {"name": "qrnn"}]
    found = []
    for form in ("rnns.{}.linear.{}", "0.rnns.{}.layers.0.linear.{}", "module.rnns.{}.linear.{}"):
        lm = model(cell=cells)
        load_published(lm, qrnn(form), "awd-qrnn")
        found.append(log_probs(lm))
    own = dict(lm.named_parameters())
    assert torch.equal(own["stack.layers.0.weight"], qrnn("rnns.{}.linear.{}")["rnns.0.linear.weight_raw"])
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


class Saved(nn.Module):
    """A module with parameters of given names."""

    def __init__(self, weights: Mapping[str, Tensor]):
        super().__init__()
        for name, value in weights.items():
            *path, last = name.split(".")
            place: nn.Module = self
            for piece in path:
                if not hasattr(place, piece):
                    place.add_module(piece, nn.Module())
                place = getattr(place, piece)
            place.register_parameter(last, nn.Parameter(value.clone()))


def test_what_the_script_saves() -> None:
    """torch.save([model, criterion, optimizer]); the vectors of the split softmax are in the criterion."""
    generator = torch.Generator().manual_seed(4)
    criterion = {
        "tail_vectors": torch.randn(2, E, generator=generator).double(),
        "tail_bias": torch.randn(2, generator=generator).double(),
    }
    whole, optimizer = Saved(evaluated(plain())), torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1.0)
    head = {"name": "split", "cuts": [3, 6]}
    lm = model(head=head)
    load_published(lm, [whole, Saved(criterion), optimizer], "awd-lstm")

    # the head: ids below 3, then the tombstones, whose last belongs to the first tail
    h, w, b = lm(TOKENS).raw, plain()["encoder.weight"], plain()["decoder.bias"]
    first = torch.log_softmax(
        h @ torch.cat([w[:3], criterion["tail_vectors"]]).t() + torch.cat([b[:3], criterion["tail_bias"]]), -1
    )
    tails = [torch.log_softmax(h @ w[low:high].t() + b[low:high], -1) for low, high in ((3, 6), (6, V))]
    wanted = torch.cat([first[..., :3], first[..., -1:] + tails[0], first[..., -2:-1] + tails[1]], -1)
    torch.testing.assert_close(log_probs(lm), wanted, rtol=0, atol=1e-12)

    again = model(head=head)
    load_published(again, {**whole.state_dict(), **criterion}, "awd-lstm")
    assert torch.equal(log_probs(again), log_probs(lm))
    simple = model()
    load_published(simple, whole, "awd-lstm")
    simply = torch.log_softmax(simple(TOKENS).raw @ w.t() + b, -1)
    torch.testing.assert_close(log_probs(simple), simply, rtol=0, atol=1e-12)
    with pytest.raises(UsageError, match=r"lack tail_vectors; the official script keeps it in its criterion"):
        load_published(again, whole, "awd-lstm")
    with pytest.raises(UsageError, match=r"have tail_vectors, .*; set model\.head\.name=split, and its cuts\."):
        load_published(simple, {**whole.state_dict(), **criterion}, "awd-lstm")


def sentiment() -> list[np.ndarray]:
    generator = np.random.default_rng(5)
    shapes = [(V, E), (E, 4 * H), *[(H, H)] * 4, (E, H), (H, H), (4 * H,), (4 * H,), (4 * H,), (H,), (H,), (H, V), (V,)]
    return [generator.standard_normal(shape).astype(np.float32) for shape in shapes]


def mlstm() -> LanguageModel:
    cell = {"name": "mlstm", "weight_norm": True}
    return model(layers=1, widths=None, width=H, cell=cell, embedding={"size": E, "tied": False})


def test_arrays_of_every_kind(tmp_path: Path) -> None:
    arrays = sentiment()
    for i, array in enumerate(arrays):
        np.save(tmp_path / f"{i}.npy", array)
    mapped = {f"model/{i}.npy": np.load(tmp_path / f"{i}.npy", mmap_mode="r") for i in range(15)}
    swapped = {i: array.astype(">f4") for i, array in enumerate(arrays)}
    tensors = {str(i): torch.from_numpy(array) for i, array in enumerate(arrays)}
    found = []
    for given in (
        tensors,
        mapped,
        swapped,
        arrays,
        {str(i): array.astype(np.float64) for i, array in enumerate(arrays)},
    ):
        lm = mlstm()
        load_published(lm, given, "sentiment-mlstm")
        found.append(log_probs(lm))
    assert all(torch.equal(one, found[0]) for one in found)
    # column blocks: the third of 4N is the output gate, which is our last
    own = dict(lm.named_parameters())
    assert np.array_equal(own["stack.layers.0.weight_m"][3 * H :].float().detach().numpy(), arrays[4].T)
    assert np.array_equal(
        own["stack.layers.0.weight_x"][3 * H :].float().detach().numpy(), arrays[1][:, 2 * H : 3 * H].T
    )
    # what is given stays as it is, and is not what the model holds
    with torch.no_grad():
        own["embedding.weight"].zero_()
    assert arrays[0].any()


def test_tied_and_untied() -> None:
    once = {name: value for name, value in plain().items() if name != "encoder.weight"}
    lm = model()
    load_published(lm, once, "awd-lstm")
    assert torch.equal(lm.embedding.weight, plain()["decoder.weight"])
    apart = {**plain(), "decoder.weight": torch.ones(V, E).double()}
    own = model(embedding={"size": E, "tied": False})
    load_published(own, apart, "awd-lstm")
    with pytest.raises(UsageError, match=r"lack decoder\.weight; where the system ties it .*tied=true"):
        load_published(own, {k: v for k, v in apart.items() if k != "decoder.weight"}, "awd-lstm")
    none = {name: value for name, value in plain().items() if name != "decoder.bias"}
    load_published(model(head={"name": "softmax", "bias": False}), none, "awd-lstm")
    with pytest.raises(UsageError, match=r"lack decoder\.bias; where the system has none, set model\.head\.bias=false"):
        load_published(model(), none, "awd-lstm")


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in fastai(plain()).items() if key != name}


FAULTS: list[tuple[Any, str]] = [
    # a missing name is spelled as the file spells the others
    (without("0.rnns.1.module.bias_hh_l0"), "lack 0.rnns.1.module.bias_hh_l0; get the whole file"),
    (without("0.rnns.0.module.weight_ih_l0"), "lack 0.rnns.0.module.weight_ih_l0;"),
    (
        {**without("0.rnns.1.module.bias_hh_l0"), "0.rnns.1.module.bias_hhh_l0": torch.ones(4 * E)},
        "lack 0.rnns.1.module.bias_hh_l0 and have 0.rnns.1.module.bias_hhh_l0, which is no name of layout awd-lstm;",
    ),
    ({**fastai(plain()), "0.extra.weight": torch.ones(1)}, "have 0.extra.weight, which layout awd-lstm does not know;"),
    (
        {**fastai(plain()), "1.prior.weight": torch.ones(1)},
        "1.prior.weight, which layout awd-lstm does not know; weights",
    ),
    (
        {**fastai(plain()), "0.encoder_dp.emb.weight": torch.ones(V, E)},
        "have 0.encoder.weight and 0.encoder_dp.emb.weight, which in layout awd-lstm are one parameter and differ;",
    ),
    (
        plain(layers=3),
        "the weights have 3 recurrent layers and this model has 2; set model.layers=3.",
    ),
    (
        plain(layers=1),
        "the weights have 1 recurrent layer and this model has 2; set model.layers=1.",
    ),
    (plain(vocabulary=V + 1), "other shapes: encoder.weight (12, 5), for embedding.weight (11, 5); set the sizes"),
    (
        {**plain(), "rnns.0.bias_hh_l0": torch.ones(1)},
        "only rnns.0.bias_ih_l0 (28,) and rnns.0.bias_hh_l0 (1,), for stack.layers.0.bias (28,), does not fit;",
    ),
    (
        {**plain(), "rnns.0.weight_hh_l0": plain()["rnns.0.weight_hh_l0"].t()},
        "only rnns.0.weight_hh_l0 (7, 28), for stack.layers.0.weight_hh (28, 7), does not fit; get the file again",
    ),
    (
        {**plain(), "rnns.0.bias_hh_l0": torch.full((4 * H,), torch.nan)},
        "rnns.0.bias_hh_l0 of the weights holds numbers",
    ),
    ({**fastai(plain()), "1.decoder.bias": np.full(V, np.inf)}, "1.decoder.bias of the weights holds numbers that are"),
    ({"model": plain(), "opt": {}}, "model of the weights is no array of real numbers but a dict; give the state dict"),
    ({**plain(), "decoder.bias": "x"}, "decoder.bias of the weights is no array of real numbers but a str;"),
    ({**plain(), "decoder.bias": torch.ones(V) * 1j}, "decoder.bias of the weights is no array of real numbers"),
    ({"a.b": torch.ones(2)}, "no tensor of the weights has a name of layout awd-lstm, such as rnns.0.module"),
    ({}, "no tensor of the weights has a name of layout awd-lstm"),
    (3, "weights are names with tensors or arrays, not a int; give a state dict."),
]


@pytest.mark.parametrize(("given", "says"), FAULTS, ids=[says[:40] for _, says in FAULTS])
def test_the_sentence_names_the_fault_of_the_file(given: Any, says: str) -> None:
    lm = model()
    before = {name: value.clone() for name, value in lm.named_parameters()}
    with pytest.raises(UsageError) as caught:
        load_published(lm, given, "awd-lstm")
    assert says in str(caught.value)
    assert str(caught.value).count(". ") == 0, "one sentence"
    assert all(torch.equal(before[name], value) for name, value in lm.named_parameters())


def test_numbers_too_large_for_the_model() -> None:
    large = {**plain(), "decoder.bias": torch.full((V,), 1e300, dtype=torch.float64)}
    load_published(model(), large, "awd-lstm")
    with pytest.raises(UsageError, match=r"decoder\.bias of the weights holds numbers too large for float32"):
        load_published(model().float(), large, "awd-lstm")


BLOCKS = [(4, (H + 1, H), "2 (7, 7) and"), (8, (4 * H + 1,), "8 (29,), for"), (7, (), "7 (), for")]


@pytest.mark.parametrize(("number", "shape", "says"), BLOCKS)
def test_arrays_that_do_not_go_together(number: int, shape: tuple[int, ...], says: str) -> None:
    arrays = sentiment()
    arrays[number] = np.ones(shape, np.float32)
    with pytest.raises(UsageError) as caught:
        load_published(mlstm(), arrays, "sentiment-mlstm")
    assert f"of all weights only {says}" in str(caught.value)
