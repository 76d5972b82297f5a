"""The transducer's loss against all alignments one by one; and torch's CTC loss against all of its paths."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.alignments import ctc_nats, transducer_nats
from unrolled.core.errors import UsageError
from unrolled.kernels.rnnt_loss import rnnt_loss
from unrolled.kernels.rnnt_loss.blocks import lattice

D, V = 5, 3
BACKENDS = ("blocks", "reference")


def parts(batch: int, frames: int, said: int, size: int = V, blank: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(frames * 10 + said)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    labels = torch.randint(size - 1, (batch, said), generator=generator)
    given = {"encoded": draw(batch, frames, D), "predicted": draw(batch, said + 1, D), "matrix": draw(size, D)}
    return {**given, "bias": draw(size), "labels": labels + (labels >= blank).long()}


def loss(given: dict[str, Tensor], frames: list[int], lengths: list[int], **options: Any) -> Tensor:
    return rnnt_loss(**given, frames=torch.tensor(frames), lengths=torch.tensor(lengths), **options)


def enumerated(given: dict[str, Tensor], frames: list[int], lengths: list[int], blank: int = 0) -> Tensor:
    joint = torch.tanh(given["encoded"].unsqueeze(2) + given["predicted"].unsqueeze(1)) @ given["matrix"].t()
    log_prob = torch.log_softmax(joint + given["bias"], -1)
    rows = enumerate(zip(frames, lengths, strict=True))
    nats = [transducer_nats(log_prob[b, :t, : u + 1], given["labels"][b, :u].tolist(), blank) for b, (t, u) in rows]
    return torch.stack(nats)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("frames", "said"), list(itertools.product(range(1, 5), range(4))))
def test_all_alignments(frames: int, said: int, backend: str) -> None:
    """16 sizes, among them no label at all and more labels than frames; values and all gradients."""
    given = {
        name: value.requires_grad_() if name != "labels" else value for name, value in parts(2, frames, said).items()
    }
    wanted_by = [value for name, value in given.items() if name != "labels"]
    weight = torch.tensor([1.0, 2.5], dtype=torch.float64)
    found, wanted = loss(given, [frames] * 2, [said] * 2, backend=backend), enumerated(given, [frames] * 2, [said] * 2)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-8)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    grads = (torch.autograd.grad((one * weight).sum(), wanted_by) for one in (found, wanted))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("blank", [0, 1, 2])
@pytest.mark.parametrize("block", [1, 30, 10**6])
def test_a_padded_batch_is_its_rows_alone(backend: str, blank: int, block: int) -> None:
    """Whatever stands in the padding, with the blank first, amid or last, and in blocks of any size."""
    frames, lengths = [4, 1, 3, 2], [2, 3, 0, 3]
    given = parts(4, 4, 3, blank=blank)
    whole = loss(given, frames, lengths, blank=blank, backend=backend, block=block)
    torch.testing.assert_close(whole, enumerated(given, frames, lengths, blank), rtol=1e-12, atol=1e-12)
    other = {name: value.clone() for name, value in given.items()}
    for b, (t, u) in enumerate(zip(frames, lengths, strict=True)):
        other["encoded"][b, t:], other["predicted"][b, u + 1 :], other["labels"][b, u:] = 9.0, -9.0, blank
        row = {name: part if name in ("matrix", "bias") else part[b : b + 1] for name, part in given.items()}
        cut = {
            "encoded": row["encoded"][:, :t],
            "predicted": row["predicted"][:, : u + 1],
            "labels": row["labels"][:, :u],
        }
        alone = loss({**row, **cut}, [t], [u], blank=blank, backend=backend)
        torch.testing.assert_close(alone[0], whole[b], rtol=1e-12, atol=1e-12)
    leaves = [other[name].requires_grad_() for name in ("encoded", "predicted")]
    found = loss(other, frames, lengths, blank=blank, backend=backend, block=block)
    assert torch.equal(found, whole)
    of_encoded, of_predicted = torch.autograd.grad(found.sum(), leaves)
    for b, (t, u) in enumerate(zip(frames, lengths, strict=True)):
        assert float(of_encoded[b, t:].abs().sum()) == float(of_predicted[b, u + 1 :].abs().sum()) == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradcheck(backend: str) -> None:
    given = parts(2, 3, 2)
    names = ("encoded", "predicted", "matrix", "bias")

    def of(*values: Tensor) -> Tensor:
        return loss(
            {**dict(zip(names, values, strict=True)), "labels": given["labels"]}, [3, 2], [2, 1], backend=backend
        )

    assert torch.autograd.gradcheck(of, [given[name].requires_grad_() for name in names])


def test_the_ways_out_of_a_node_are_chances() -> None:
    """What goes into a frame goes out of it: the blanks of each frame are taken once."""
    generator = torch.Generator().manual_seed(4)
    blank, label = (torch.rand(2, 4, u, generator=generator, dtype=torch.float64).log() for u in (4, 3))
    frames, lengths = torch.tensor([4, 3]), torch.tensor([3, 2])
    _, by_blank, by_label = lattice(blank, label, frames, lengths)
    torch.testing.assert_close(-by_blank.sum(2)[0], torch.ones(4).double())
    torch.testing.assert_close(-by_blank.sum(2)[1], torch.tensor([1, 1, 1, 0]).double())
    torch.testing.assert_close(-by_label.sum(1)[1], torch.tensor([1, 1, 0]).double())


def test_small_numbers_in_float32() -> None:
    """A long string, whose probability is far below the least number; bf16 is computed in float32."""
    given = {name: part.float() if part.is_floating_point() else part for name, part in parts(1, 60, 50).items()}
    nats = loss(given, [60], [50])
    assert nats.dtype == torch.float32
    wanted = loss(
        {name: part.double() if part.is_floating_point() else part for name, part in given.items()}, [60], [50]
    )
    assert float(wanted) > 50
    torch.testing.assert_close(nats.double(), wanted, rtol=1e-5, atol=0)
    low = {name: part.bfloat16() if part.is_floating_point() else part for name, part in given.items()}
    assert loss(low, [60], [50]).dtype == torch.bfloat16


def test_refusals() -> None:
    given = parts(2, 3, 2)
    with pytest.raises(UsageError, match="predicted has one step more than labels"):
        loss({**given, "predicted": given["predicted"][:, 1:]}, [3, 3], [2, 2])
    for frames, lengths in (([3, 0], [2, 2]), ([4, 3], [2, 2]), ([3, 3], [3, 2])):
        with pytest.raises(UsageError, match="correct its lengths"):
            loss(given, frames, lengths)
    for wrong in (0, V, -1):
        with pytest.raises(UsageError, match=r"a label is the blank \(0\) or none of the 3 ids"):
            loss({**given, "labels": torch.full((2, 2), wrong)}, [3, 3], [2, 2])


@pytest.mark.parametrize(
    ("frames", "labels"), [(1, [1]), (2, [1]), (3, [1, 1]), (4, [1, 2]), (5, [2, 1]), (5, []), (5, [2, 2])]
)
def test_ctc_of_torch_is_the_sum_over_all_paths(frames: int, labels: list[int]) -> None:
    """torch.nn.functional.ctc_loss, blank 0, is what CTC needs; values and gradients."""
    logits = torch.randn(
        frames, V, generator=torch.Generator().manual_seed(frames), dtype=torch.float64
    ).requires_grad_()
    log_prob = torch.log_softmax(logits, -1)
    sizes = torch.tensor([frames]), torch.tensor([len(labels)])
    target = torch.tensor([labels or [1]])
    found = torch.nn.functional.ctc_loss(log_prob.unsqueeze(1), target, *sizes, reduction="sum", zero_infinity=True)
    wanted = ctc_nats(log_prob, labels)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    grads = (torch.autograd.grad(one, logits, retain_graph=True)[0] for one in (found, wanted))
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-12)


def test_ctc_without_room_is_left_out() -> None:
    """Two equal labels need three frames; with ``zero_infinity`` such a row counts nothing."""
    log_prob = torch.log_softmax(torch.randn(2, 1, V, dtype=torch.float64), -1)
    sizes = torch.tensor([2]), torch.tensor([2])
    assert float(torch.nn.functional.ctc_loss(log_prob, torch.tensor([[1, 1]]), *sizes, zero_infinity=True)) == 0
