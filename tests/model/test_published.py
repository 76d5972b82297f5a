"""Weights in the layouts of the published systems: outputs equal those of a restatement of the published model."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unrolled.core.errors import UsageError
from unrolled.model import LanguageModel, ModelConfig
from unrolled.model.published import load_published

V, E, H = 11, 5, 7
TOKENS = torch.randint(V, (3, 9), generator=torch.Generator().manual_seed(1))


def model(**values: Any) -> LanguageModel:
    config = ModelConfig.parse({"layers": 3, "widths": [H, H, E], "embedding": {"size": E, "tied": True}, **values})
    return LanguageModel(config, V).double()


def log_probs(lm: LanguageModel) -> Tensor:
    return lm.head.log_prob(lm(TOKENS).raw)[0]


class Published(nn.Module):
    """The AWD-LSTM model without dropout: names and arrangement as published."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Embedding(V, E)
        sizes = [E, H, H, E]
        self.rnns = nn.ModuleList(nn.LSTM(i, o) for i, o in itertools.pairwise(sizes))
        self.decoder = nn.Linear(E, V)
        self.decoder.weight = self.encoder.weight
        self.double()

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.encoder(tokens.t())
        for rnn in self.rnns:
            x, _ = rnn(x)
        return torch.log_softmax(self.decoder(x), -1).transpose(0, 1)


def dropped(names: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names that weight drop gives."""
    moved = {name.replace(".weight_ih", ".module.weight_ih"): v for name, v in names.items()}
    moved = {name.replace(".bias_", ".module.bias_") if "rnns" in name else name: v for name, v in moved.items()}
    return {name.replace("weight_hh_l0", "module.weight_hh_l0_raw"): v for name, v in moved.items()}


@pytest.mark.parametrize("bias", ["one", "two"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_awd_lstm(bias: str, wrapped: bool) -> None:
    published = Published()
    weights = dict(published.state_dict())
    lm = model(cell={"name": "lstm", "bias": bias})
    load_published(lm, dropped(weights) if wrapped else weights, "awd-lstm")
    torch.testing.assert_close(log_probs(lm), published(TOKENS), rtol=0, atol=1e-12)


def test_awd_qrnn() -> None:
    """Layers of one linear map each, with the published names; the first sees two inputs."""
    generator, sizes = torch.Generator().manual_seed(2), [E, H, H, E]
    weights = {"encoder.weight": torch.randn(V, E, generator=generator, dtype=torch.float64)}
    weights |= {
        "decoder.weight": weights["encoder.weight"],
        "decoder.bias": torch.randn(V, generator=generator).double(),
    }
    for i, (low, high) in enumerate(itertools.pairwise(sizes)):
        shape = (3 * high, (2 if i == 0 else 1) * low)
        weights[f"rnns.{i}.linear.module.weight_raw"] = torch.randn(shape, generator=generator, dtype=torch.float64)
        weights[f"rnns.{i}.linear.module.bias"] = torch.randn(3 * high, generator=generator, dtype=torch.float64)
    lm = model(cell=[{"name": "qrnn", "window": 2}, {"name": "qrnn"}, {"name": "qrnn"}])
    load_published(lm, weights, "awd-qrnn")

    x = weights["encoder.weight"][TOKENS]
    for i, size in enumerate(sizes[1:]):
        u = x if i else torch.cat([x, torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)], -1)
        gates = u @ weights[f"rnns.{i}.linear.module.weight_raw"].t() + weights[f"rnns.{i}.linear.module.bias"]
        z, f, o = gates.split(size, -1)
        c, outputs = torch.zeros(3, size, dtype=torch.float64), []
        for t in range(TOKENS.shape[1]):
            c = f[:, t].sigmoid() * z[:, t].tanh() + (1 - f[:, t].sigmoid()) * c
            outputs.append(o[:, t].sigmoid() * c)
        x = torch.stack(outputs, 1)
    wanted = torch.log_softmax(x @ weights["encoder.weight"].t() + weights["decoder.bias"], -1)
    torch.testing.assert_close(log_probs(lm), wanted, rtol=0, atol=1e-12)


def test_mos() -> None:
    torch.manual_seed(4)
    published, components, last = Published(), 3, E
    prior, latent = nn.Linear(last, components, bias=False).double(), nn.Linear(last, components * E).double()
    weights = dict(published.state_dict()) | {"prior.weight": prior.weight.detach()}
    weights |= {"latent.0.weight": latent.weight.detach(), "latent.0.bias": latent.bias.detach()}
    lm = model(cell={"name": "lstm", "bias": "two"}, head={"name": "mos", "components": components})
    load_published(lm, weights, "mos")

    g = published.encoder(TOKENS.t())
    for rnn in published.rnns:
        g, _ = rnn(g)
    each = torch.softmax(published.decoder(torch.tanh(latent(g)).unflatten(-1, (components, E))), -1)
    wanted = (torch.softmax(prior(g), -1).unsqueeze(-1) * each).sum(-2).log().transpose(0, 1)
    torch.testing.assert_close(log_probs(lm), wanted, rtol=0, atol=1e-12)


def test_sentiment_mlstm() -> None:
    generator = torch.Generator().manual_seed(3)
    shapes = [(V, E), (E, 4 * H), *[(H, H)] * 4, (E, H), (H, H), (4 * H,), (4 * H,), (4 * H,), (H,), (H,), (H, V), (V,)]
    arrays = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    lm = model(
        layers=1,
        widths=None,
        width=H,
        cell={"name": "mlstm", "weight_norm": True},
        embedding={"size": E, "tied": False},
    )
    load_published(lm, {str(i): array for i, array in enumerate(arrays)}, "sentiment-mlstm")

    emb, wx, *parts = arrays
    wh, (wmx, wmh, b, gx, gh, gmx, gmh, out, out_bias) = torch.cat(parts[:4], 1), parts[4:]
    wx, wh, wmx, wmh = (w / w.norm(dim=0) * g for w, g in ((wx, gx), (wh, gh), (wmx, gmx), (wmh, gmh)))
    h = c = torch.zeros(3, H, dtype=torch.float64)
    outputs = []
    for t in range(TOKENS.shape[1]):
        x = emb[TOKENS[:, t]]
        i, f, o, u = ((x @ wx) + ((x @ wmx) * (h @ wmh)) @ wh + b).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * u.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(torch.log_softmax(h @ out + out_bias, -1))
    torch.testing.assert_close(log_probs(lm), torch.stack(outputs, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"encoder.weight": None, "decoder.weight": None}, r"lack decoder\.weight"),
        ({"rnns.1.bias_hh_l0": None}, r"lack rnns\.1\.bias_hh_l0; get the whole file"),
        ({"rnns.3.weight_ih_l0": torch.zeros(1)}, r"have rnns\.3\.weight_ih_l0, which layout awd-lstm does not know"),
        ({"decoder.bias": torch.zeros(V + 1)}, r"only decoder\.bias \(12,\), for head\.bias \(11,\), does not fit"),
        ({"decoder.weight": torch.zeros(V, E)}, "untied"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(change: dict[str, Any], says: str) -> None:
    weights = {**Published().state_dict(), **change}
    lm = model(cell={"name": "lstm", "bias": "two"})
    before = {name: value.clone() for name, value in lm.named_parameters()}
    with pytest.raises(UsageError, match=says):
        load_published(lm, {name: value for name, value in weights.items() if value is not None}, "awd-lstm")
    assert all(torch.equal(before[name], value) for name, value in lm.named_parameters())


def test_another_cell_is_refused() -> None:
    with pytest.raises(UsageError, match=r"stack.layers.0.weight_ih, which this model lacks"):
        load_published(model(cell={"name": "mlstm"}), Published().state_dict(), "awd-lstm")
    with pytest.raises(UsageError, match="layout"):
        load_published(model(), {}, "awd")
