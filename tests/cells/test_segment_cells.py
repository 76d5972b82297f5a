"""Cells with attention that carry something from segment to segment, beside loops over their equations."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import elu, softmax

from conformance.material import wave
from conformance.tolerance import assert_close
from unrolled.cells.attention.block_recurrent import BlockRecurrent, BlockRecurrentConfig
from unrolled.cells.attention.compressive import Compressive, CompressiveConfig
from unrolled.cells.attention.infini import Infini, InfiniConfig
from unrolled.cells.parts.places import sinusoid


def _drawn(cell: Any, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.normal_(0, 0.6)
    return cell.double()


def test_infini_is_its_equations() -> None:
    for delta in (True, False):
        config = InfiniConfig(heads=2, segment=4, positions="none", delta=delta)
        cell = _drawn(Infini(6, 8, config))
        x = wave(1, 11, 6)
        q, k, v = ((x[0] @ part.T).view(11, 2, 4) for part in cell.weight.chunk(3))
        gate = torch.sigmoid(cell.gate)
        matrix, total = torch.zeros(2, 4, 4).double(), torch.zeros(2, 4).double()
        rows = []
        for t in range(11):
            start, y = t // 4 * 4, []
            for h in range(2):
                scores = torch.stack([q[t, h] @ k[j, h] / math.sqrt(4) for j in range(start, t + 1)])
                local = softmax(scores, 0) @ v[start : t + 1, h]
                phi = elu(q[t, h]) + 1
                recalled = phi @ matrix[h] / (phi @ total[h]) if start else torch.zeros(4).double()
                y.append(gate[h] * recalled + (1 - gate[h]) * local)
            rows.append(torch.cat(y) @ cell.out.T)
            if t % 4 == 3:
                old, sums = matrix.clone(), total.clone()
                for j in range(start, t + 1):
                    for h in range(2):
                        phi = elu(k[j, h]) + 1
                        known = phi @ old[h] / (phi @ sums[h]) if start and delta else 0.0
                        matrix[h] = matrix[h] + torch.outer(phi, v[j, h] - known)
                        total[h] = total[h] + phi
        y, state = cell(x)
        assert_close(y[0], torch.stack(rows), "outputs")
        assert_close(state.matrix[0], matrix, "matrix")


def _without_states(cell: BlockRecurrent) -> None:
    with torch.no_grad():
        cell.out[:, cell.width :] = 0


def test_block_recurrent_without_its_states_is_a_window() -> None:
    """Zeros in the half of W_o that reads the states leave masked softmax over the window, strict or not."""
    for strict in (False, True):
        config = BlockRecurrentConfig(heads=1, window=3, states=2, factor=1.0, positions="none", strict=strict)
        cell = _drawn(BlockRecurrent(6, 6, config))
        _without_states(cell)
        x = wave(1, 10, 6)[0]

        def norm(x: Tensor, gain: Tensor) -> Tensor:
            return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * gain

        q, k, v, _ = (norm(x, cell.gains[0]) @ part.T for part in cell.weight.chunk(4))
        q, k = (part / (part.square().sum(-1, keepdim=True) + 1e-6).sqrt() for part in (q, k))
        scores = q @ k.T * cell.scales[0].abs()
        distance = torch.arange(10).unsqueeze(1) - torch.arange(10)
        seen = (distance >= 1) & (distance <= 3) if strict else (distance >= 0) & (distance < 3)
        weights = softmax(scores.masked_fill(~seen, -torch.inf), -1).nan_to_num()
        h = x + (weights @ v) @ cell.out[:, :6].T
        wanted = h + torch.relu(norm(h, cell.gains[1]) @ cell.up.T) @ cell.down.T
        assert_close(cell(x.unsqueeze(0))[0][0], wanted, f"strict {strict}")


def test_shut_gates_carry_the_states_bit_for_bit() -> None:
    x = wave(2, 13, 6)
    for gate in ("fixed", "lstm"):
        for layout in ("skip", "single", "dual"):
            config = BlockRecurrentConfig(
                heads=2, window=4, states=3, factor=1.0, gate=gate, layout=layout, positions="none"
            )
            cell = _drawn(BlockRecurrent(6, 6, config))
            with torch.no_grad():
                if cell.gate_bias is None:
                    for one in cell.gates:
                        one.fill_(40.0)
                else:
                    for one in cell.gates:
                        one.zero_()
                    cell.gate_bias[:, :6], cell.gate_bias[:, 6:] = 60.0, -800.0
            _, state = cell(x)
            assert torch.equal(state.states, cell.start.expand(2, -1, -1)), f"{gate} {layout}"


def test_states_reach_across_windows_when_no_key_is_kept() -> None:
    config = BlockRecurrentConfig(heads=2, window=4, states=3, factor=1.0)
    cell = _drawn(BlockRecurrent(8, 8, config))
    x = wave(1, 16, 8).requires_grad_()
    state = cell.initial_state(1, dtype=torch.float64)
    y = x
    for part in x.split(4, 1):
        y, state = cell(part, state)
        # the ring is cut, so that the states alone go on
        state = state._replace(
            keys=torch.zeros_like(state.keys), values=torch.zeros_like(state.values), fill=state.fill * 0
        )
    (grad,) = torch.autograd.grad(y.square().sum(), x)
    assert grad[:, 0].abs().sum() > 0


def test_packed_vectors_are_means_of_what_was_let_go() -> None:
    config = CompressiveConfig(heads=2, segment=4, recent=8, compressed=5, compression=2, compress="mean")
    cell = _drawn(Compressive(6, 8, config))
    x = wave(2, 40, 6)
    state = cell.initial_state(2, dtype=torch.float64)
    for n, part in enumerate(x.split(4, 1), 1):
        _, state = cell(part, state)
        held = max(0, min(5, (4 * n - 8) // 2))
        assert state.count.tolist() == [held, held]
        gone = max(0, 4 * n - 8)
        wanted = x[:, :gone].unflatten(1, (-1, 2)).mean(2)[:, max(0, gone // 2 - 5) :]
        if held:
            assert_close(state.packed[:, 5 - held :], wanted, f"after {n} segments")
        assert not state.packed[:, : 5 - held].any()


def test_rate_one_is_the_memory_of_transformer_xl() -> None:
    """Attention to the recent + compressed inputs before the segment and those in it, by a loop."""
    config = CompressiveConfig(heads=2, segment=3, recent=3, compressed=6, compression=1, compress="mean")
    cell = _drawn(Compressive(6, 8, config))
    x = wave(1, 20, 6)
    rows = []
    q = (x[0] @ cell.query.T).view(20, 2, 4)
    k, v = ((x[0] @ part.T).view(20, 2, 4) for part in cell.weight.chunk(2))
    far = (sinusoid(torch.arange(20).double(), 8) @ cell.distance.T).view(20, 2, 4)
    u, w = cell.content_bias.view(2, 4), cell.place_bias.view(2, 4)
    for t in range(20):
        start, y = max(0, t // 3 * 3 - 9), []
        for h in range(2):
            scores = [(q[t, h] + u[h]) @ k[j, h] + (q[t, h] + w[h]) @ far[t - j, h] for j in range(start, t + 1)]
            y.append(softmax(torch.stack(scores) / 2, 0) @ v[start : t + 1, h])
        rows.append(torch.cat(y) @ cell.out.T)
    assert_close(cell(x)[0][0], torch.stack(rows), "outputs")


def test_the_cost_of_compression_reaches_the_map_alone() -> None:
    config = CompressiveConfig(heads=2, segment=4, recent=4, compressed=4, compression=2)
    cell = _drawn(Compressive(6, 8, config))
    x, handed = wave(2, 12, 6).requires_grad_(), {}
    cell(x, handed=handed)
    assert handed["cost"].shape == (2, 12, 1)
    # two segments have ended behind a full memory; the first one had nothing to let go
    assert not handed["cost"][:, :4].any()
    assert (handed["cost"][:, 4:] > 0).all()
    named = {"x": x, **dict(cell.named_parameters())}
    grads = torch.autograd.grad(handed["cost"].sum(), list(named.values()), allow_unused=True)
    assert [name for name, grad in zip(named, grads, strict=True) if grad is not None] == ["map"]
    below = {"cost": torch.ones(2, 12, 1).double()}
    cell(x, handed=below)
    assert_close(below["cost"], handed["cost"] + 1, "added to that of the layers below")
