"""Where state spaces start: LegS in closed form and as normal plus rank one, the spectra of S4D and DSS."""

import math

import pytest
import torch

from unrolled.cells.ssm.inits import legs, log_steps, normal_modes, s4d_modes, skew_modes


def test_legs_in_closed_form() -> None:
    a, b = legs(8)
    for n in range(8):
        assert float(b[n]) == pytest.approx(math.sqrt(2 * n + 1), abs=1e-12)
        for k in range(8):
            wanted = -math.sqrt((2 * n + 1) * (2 * k + 1)) if n > k else -(n + 1) if n == k else 0.0
            assert float(a[n, k]) == pytest.approx(wanted, abs=1e-12)


def test_normal_plus_rank_one_is_legs() -> None:
    """Half the modes and their conjugates are a system similar to LegS: equal products C A^k B for C = B."""
    a, b = legs(8)
    modes, p, q = (torch.cat([part, part.conj()]) for part in normal_modes(8))
    dplr = torch.diag(modes) - torch.outer(p, p.conj())
    assert set(torch.linalg.eigvals(a).real.round().tolist()) == set(map(float, range(-8, 0)))
    for k in range(5):
        own = (q.conj() @ torch.linalg.matrix_power(dplr, k) @ q).real
        assert float(own) == pytest.approx(float(b @ torch.linalg.matrix_power(a, k) @ b), rel=1e-10)


@pytest.mark.parametrize(
    ("kind", "n", "wanted"),
    [
        ("lin", 3, complex(-0.5, 3 * math.pi)),
        ("inv", 0, complex(-0.5, 8 / math.pi * 7)),
        ("inv", 3, complex(-0.5, 8 / math.pi * (8 / 7 - 1))),
        ("real", 2, complex(-3, 0)),
    ],
)
def test_spectra_of_s4d(kind: str, n: int, wanted: complex) -> None:
    modes = s4d_modes(kind, 8)
    assert modes.shape == (4,)
    assert complex(modes[n]) == pytest.approx(wanted, abs=1e-12)


def test_spectra_of_hippo() -> None:
    """LegS's normal part -1/2 + skew, by its own eigenvalues; that of DSS by those of HiPPO's skew part."""
    a, _ = legs(8)
    rank = (torch.arange(8).double() + 0.5).sqrt()
    found = torch.linalg.eigvals(a + torch.outer(rank, rank))
    kept = found[found.imag > 0]
    assert torch.allclose(kept.imag.sort().values, s4d_modes("legs", 8).imag.sort().values, atol=1e-10)
    assert torch.allclose(kept.real, torch.full((4,), -0.5).double(), atol=1e-10)
    own = skew_modes(3)
    lower = torch.sqrt(torch.outer(2 * torch.arange(6) + 1, 2 * torch.arange(6) + 1).double()).tril(-1)
    wanted = torch.linalg.eigvals((lower - lower.T) / 2).imag.sort(descending=True).values[:3]
    assert torch.allclose(own.imag, wanted, atol=1e-10)
    assert torch.equal(own.real, torch.full((3,), -0.5).double())


def test_steps_lie_between() -> None:
    torch.manual_seed(0)
    steps = torch.exp(log_steps(1000, 0.01, 0.5))
    assert 0.01 <= float(steps.min()) < 0.012
    assert 0.42 < float(steps.max()) <= 0.5
