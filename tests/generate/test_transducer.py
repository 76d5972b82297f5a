"""Decoders of a transducer against the probabilities of all label strings."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.generate.transducer import Transducer, greedy, prefix_beam, synchronous_beam
from unrolled.kernels.rnnt_loss import rnnt_loss
from unrolled.model import LanguageModel, ModelConfig

D, V, FRAMES, LONGEST = 6, 3, 4, 4


def transducer(seed: int, blank: int = 0) -> tuple[Transducer, Tensor]:
    torch.manual_seed(seed)
    reader = LanguageModel(ModelConfig.parse({"width": D, "compute": {"backend": "generic"}}), V).double()
    with torch.no_grad():
        for parameter in reader.parameters():
            parameter.normal_()
    matrix, bias = 2 * torch.randn(V, D).double(), torch.randn(V).double()
    return Transducer(reader, matrix, bias, 0, blank), torch.randn(FRAMES, D).double()


@torch.no_grad()
def all_strings(made: Transducer, encoded: Tensor, longest: int = LONGEST) -> dict[tuple[int, ...], float]:
    """log P of each label string, by the operation."""
    found, ids = {}, [one for one in range(V) if one != made.blank]
    for length in range(longest + 1):
        for labels in itertools.product(ids, repeat=length):
            row = torch.tensor([labels], dtype=torch.int64).view(1, length)
            given = (encoded.unsqueeze(0), made.predicted(row), made.matrix, made.bias, row)
            sizes = torch.tensor([len(encoded)]), torch.tensor([length])
            found[labels] = -float(rnnt_loss(*given, *sizes, made.blank))
    return found


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("blank", [0, 2])
def test_wide_searches_find_the_likeliest_string(seed: int, blank: int) -> None:
    made, encoded = transducer(seed, blank)
    wanted = all_strings(made, encoded)
    order = sorted(wanted, key=lambda one: -wanted[one])
    whole = prefix_beam(made, encoded, 10**6, LONGEST, 10**6)
    assert [one.labels for one in whole] == order
    for one in whole:
        assert one.log_prob == pytest.approx(wanted[one.labels], abs=1e-9)
    found = synchronous_beam(made, encoded, 10**6, LONGEST, LONGEST, 10**6)
    assert [one.labels for one in found] == order
    for one in found:
        assert one.log_prob == pytest.approx(wanted[one.labels], abs=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_narrow_searches_never_find_more_than_there_is(seed: int) -> None:
    made, encoded = transducer(seed)
    wanted = all_strings(made, encoded, 6)
    for width in (1, 2, 4):
        for found in (prefix_beam(made, encoded, width, 6, width), synchronous_beam(made, encoded, width, 2, 6, width)):
            assert len(found) <= width
            assert [one.log_prob for one in found] == sorted((one.log_prob for one in found), reverse=True)
            for one in found:
                if len(one.labels) <= 6:
                    assert one.log_prob <= wanted[one.labels] + 1e-9
    whole = synchronous_beam(made, encoded, 10**6, 1, 6)[0].log_prob
    assert whole <= synchronous_beam(made, encoded, 10**6, 2, 6)[0].log_prob + 1e-9, "more alignments"
    assert synchronous_beam(made, encoded, 1, 1, 6)[0].log_prob <= whole + 1e-9


@pytest.mark.parametrize("blank", [0, 1])
def test_greedy_by_hand(blank: int) -> None:
    """The likeliest id of whole windows, step by step, read anew from the beginning each time."""
    for seed in range(6):
        made, encoded = transducer(seed, blank)
        labels: list[int] = []
        total = 0.0
        for frame in encoded:
            for said in range(4):
                after = made.predicted(torch.tensor([labels], dtype=torch.int64).view(1, -1))[0, -1]
                row = torch.log_softmax(torch.tanh(frame + after) @ made.matrix.t() + made.bias, -1)
                best = int(row.argmax()) if said < 3 else blank
                total += float(row[best].detach())
                if best == blank:
                    break
                labels.append(best)
        found = greedy(made, encoded, 3)
        assert found.labels == tuple(labels)
        assert found.log_prob == pytest.approx(total, abs=1e-9)


def test_strings_meet_again() -> None:
    """A string that is reached by several alignments has their sum, also where only two are kept."""
    made, encoded = transducer(1)
    (found,) = [one for one in prefix_beam(made, encoded, 10**6, 1, 9) if one.labels == (1,)]
    single = []
    for frame in range(FRAMES):
        total = 0.0
        for t in range(FRAMES):
            for label in (1,) if t == frame else ():
                total += float(_row(made, encoded[t], [])[label])
            total += float(_row(made, encoded[t], [1] if t >= frame else [])[0])
        single.append(total)
    assert found.log_prob == pytest.approx(math.log(sum(map(math.exp, single))), abs=1e-9)


def _row(made: Transducer, frame: Tensor, labels: list[int]) -> Tensor:
    after = made.predicted(torch.tensor([labels], dtype=torch.int64).view(1, -1))[0, -1]
    return torch.log_softmax(torch.tanh(frame + after) @ made.matrix.t() + made.bias, -1).detach()


def test_refusals() -> None:
    made, encoded = transducer(0)
    with pytest.raises(UsageError, match="needs frames"):
        greedy(made, encoded[:0])
    for call in (lambda: prefix_beam(made, encoded, 0), lambda: synchronous_beam(made, encoded, 2, -1)):
        with pytest.raises(UsageError, match="too small; raise it"):
            call()
    with pytest.raises(UsageError, match="a reader of 3 ids and width 6 needs"):
        Transducer(made.reader, made.matrix[:, 1:], made.bias)
