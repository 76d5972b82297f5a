"""Long convolutions: the paper's equations as they are written, and texts without an end in any pieces."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu

from unrolled.cells.conv.long_conv import LongConv, LongConvConfig
from unrolled.cells.parts.streamed import WAYS, cut
from unrolled.core.errors import UsageError
from unrolled.core.tree import leaves, map_tree, select_rows
from unrolled.model import LanguageModel, ModelConfig
from unrolled.predict import NeuralPredictor, PackedPredictor
from unrolled.serve.onnx.step import plain_model

D, ONLINE = 3, list(WAYS)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(in_width: int = D, **config: Any) -> LongConv:
    """With filters that do not decay."""
    torch.manual_seed(0)
    cell = LongConv(in_width, D, LongConvConfig(**config)).double()
    with torch.no_grad():
        cell.taps.copy_(draw(*cell.taps.shape, seed=7) * cell.taps.shape[1] ** -0.5)
    return cell


def summed(taps: Tensor, u: Tensor) -> Tensor:
    y = torch.zeros_like(u)
    for t, lag in itertools.product(range(u.shape[1]), range(taps.shape[1])):
        if lag <= t:
            y[:, t] += taps[:, lag] * u[:, t - lag]
    return y


def pieces(cell: LongConv, x: Tensor, cuts: list[int], reset: Tensor | None = None) -> tuple[Tensor, Any]:
    state, outputs, at = None, [], 0
    for length in cuts:
        part = slice(at, at + length)
        y, state = cell(x[:, part], state, None if reset is None else reset[:, part])
        outputs.append(y)
        at += length
    assert at == x.shape[1]
    return torch.cat(outputs, 1), state


def close(one: Any, other: Any) -> None:
    for a, b in zip(leaves(one), leaves(other), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize("gates", [False, True])
def test_the_equations(gates: bool) -> None:
    cell, x = make(4, length=7, gates=gates, squash=0.1, smooth=1), draw(2, 17, 4)
    rows = torch.zeros(len(cell.taps), 9, dtype=torch.float64)
    rows[:, 1:-1] = cell.taps.detach()
    mean = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 3
    taps = torch.where(mean.abs() > 0.1, mean - 0.1 * mean.sign(), torch.zeros_like(mean))
    assert 0 < int((taps == 0).sum()) < taps.numel()
    with torch.no_grad():
        if gates:
            assert cell.conv.bias is not None
            q, k, v = (summed(w.flip(1), x @ m.T) + b for w, m, b in zip(
                cell.conv.weight.chunk(3), cell.entry.weight.chunk(3), cell.conv.bias.chunk(3), strict=True
            ))  # fmt: skip
            expected = (q * (summed(taps, k * v) + cell.skip * k * v)) @ cell.out.weight.T + cell.out.bias
        else:
            both = gelu(summed(taps, x) + cell.skip * x) @ cell.out.weight.T + cell.out.bias
            value, gate = both.chunk(2, -1)
            expected = value * torch.sigmoid(gate)
        torch.testing.assert_close(cell(x)[0], expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("online", ONLINE)
@pytest.mark.parametrize("length", [5, 16, 33])
def test_any_pieces_of_a_text_many_times_as_long_are_the_whole(length: int, online: str) -> None:
    cell, time = make(length=length, online=online, gates=False), 5 * length + 3
    x = draw(2, time, D)
    with torch.no_grad():
        whole = cell(x)
        generator = torch.Generator().manual_seed(1)
        for longest in (1, 2, 7, 40):
            cuts: list[int] = []
            while (left := time - sum(cuts)) > 0:
                cuts.append(min(left, int(torch.randint(1, longest + 1, (1,), generator=generator))))
            close(pieces(cell, x, cuts), whole)
        both = gelu(summed(cell.taps, x) + cell.skip * x) @ cell.out.weight.T + cell.out.bias
        torch.testing.assert_close(whole[0], both.chunk(2, -1)[0] * both.chunk(2, -1)[1].sigmoid(), rtol=0, atol=1e-11)


@pytest.mark.parametrize("online", ONLINE)
def test_documents_of_any_length_in_rows_of_any_phase(online: str) -> None:
    """Each as if it ran alone, whole or in pieces, from states that differ in how far they are."""
    cell, time = make(length=12, online=online), 90
    x = draw(3, time, D)
    reset = torch.zeros(3, time, dtype=torch.bool)
    for row, begins in enumerate(((), (0, 3, 35, 36), (17, 50, 88))):
        reset[row, list(begins)] = True
    with torch.no_grad():
        whole = cell(x, reset=reset)
        for cuts in ([1] * time, [30, 30, 30], [40, 1, 1, 1, 6, 41], [4, 86]):
            close(pieces(cell, x, cuts, reset), whole)
        for row in range(3):
            last, begins = None, [0, *(t for t in reset[row].nonzero().flatten().tolist() if t), time]
            for begin, end in itertools.pairwise(begins):
                alone, last = cell(x[row : row + 1, begin:end])
                torch.testing.assert_close(whole[0][row : row + 1, begin:end], alone, rtol=0, atol=1e-11)
            close(map_tree(lambda part, row=row: part[row : row + 1], whole[1]), last)


@pytest.mark.parametrize("online", ["epoched", "quasilinear"])
def test_rows_that_are_chosen_within_a_block_go_on_as_fresh_runs(online: str) -> None:
    cell, x = make(length=20, online=online), draw(2, 60, D)
    with torch.no_grad():
        _, early = cell(x[:1, :23])
        _, late = cell(x[1:, :41])
        both = map_tree(lambda a, b: torch.cat([b, a, b]), early, late)
        chosen = select_rows(both, torch.tensor([1, 0]))
        y, _ = pieces_from(cell, torch.cat([x[:1, 23:42], x[1:, 41:]]), chosen)
        torch.testing.assert_close(y[:1], cell(x[:1, :42])[0][:, 23:], rtol=0, atol=1e-11)
        torch.testing.assert_close(y[1:], cell(x[1:])[0][:, 41:], rtol=0, atol=1e-11)


def pieces_from(cell: LongConv, x: Tensor, state: Any) -> tuple[Tensor, Any]:
    outputs = []
    for one in x.split(1, 1):
        y, state = cell(one, state)
        outputs.append(y)
    return torch.cat(outputs, 1), state


def test_a_step_inside_a_block_copies_nothing_long_and_keeps_shapes() -> None:
    cell = make(length=300, online="quasilinear")
    state = cell.initial_state(1, dtype=torch.float64)
    sizes = [part.shape for part in leaves(state)]
    block, changes = cell.way.block, 0
    assert block == 32
    with torch.no_grad():
        for t in range(3 * block):
            _, after = cell(draw(1, 1, D, seed=t), state)
            changes += after.inputs.data_ptr() != state.inputs.data_ptr()
            state = after
    assert changes == 3
    assert [part.shape for part in leaves(state)] == sizes
    assert sum(one.numel() for one in sizes) == cell.state_size()


@pytest.mark.parametrize(("length", "expected"), [(1023, "direct"), (1024, "quasilinear")])
def test_long_filters_are_added_ahead_unless_it_is_said(length: int, expected: str) -> None:
    assert LongConvConfig(length=length).way() == expected
    assert LongConvConfig(length=length, online="epoched").way() == "epoched"
    assert (make(length=length).no_graph is None) == (expected == "direct")


def test_starts() -> None:
    torch.manual_seed(0)
    taps = LongConv(64, 64, LongConvConfig(length=512)).taps.detach()
    first, last = taps[:, :32].std(1), taps[:, -32:].std(1)
    assert 0.015 < float(first[0]) < 0.025
    assert float(last[0]) > 0.3 * 0.02 * 0.7
    assert float(last[-1]) < 1e-9 < float(first[-1])
    assert float(LongConv(64, 64, LongConvConfig(length=512, init="random")).taps.detach().std()) == pytest.approx(
        0.002, rel=0.1
    )
    rules = LongConv(4, 4, LongConvConfig(rate=0.25)).parameter_rules["taps"]
    assert (rules.decay, rules.rate) == (False, 0.25)


def model(online: str) -> LanguageModel:
    torch.manual_seed(1)
    cell = {"name": "long_conv", "length": 24, "online": online}
    return LanguageModel(ModelConfig.parse({"width": 8, "layers": 2, "cell": cell}), 11).double().eval()


@pytest.mark.parametrize("online", ONLINE)
def test_a_model_decodes_what_it_scores(online: str) -> None:
    """Plain and prepared, over a text of several periods."""
    own, ids = model(online), torch.randint(11, (100,), generator=torch.Generator().manual_seed(0))
    own.load_state_dict(model("direct").state_dict())
    for predictor in (NeuralPredictor(own, 0), PackedPredictor(own.float(), 0)):
        state, found = predictor.begin(1), []
        for token in ids:
            found.append(predictor.predict(state).log_prob)
            state = predictor.observe(state, token.view(1))
        plain = NeuralPredictor(model("direct"), 0)
        whole, _ = plain.distributions(plain.begin(1), ids.view(1, -1))
        torch.testing.assert_close(torch.cat(found).double(), whole[0], rtol=0, atol=1e-4)


def test_export_takes_the_direct_sum_alone() -> None:
    plain_model(model("direct"))
    with pytest.raises(UsageError, match="with online = direct, which makes the same outputs of the same weights"):
        plain_model(model("quasilinear"))


def test_cut() -> None:
    x = draw(2, 5, 1)
    for starts in ([-2, -2], [3, 3], [9, 9], [-9, -9], [0, 0], [-1, 3]):
        found = cut(x, starts, 4)
        for row, start in enumerate(starts):
            for place in range(4):
                inside = 0 <= start + place < 5
                assert float(found[row, place, 0]) == (float(x[row, start + place, 0]) if inside else 0.0)
