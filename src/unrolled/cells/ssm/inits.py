"""Where state-space cells start: the matrices of HiPPO, spectra, step sizes."""

import math

import torch
from torch import Tensor

__all__ = ["legs", "log_steps", "normal_modes", "s4d_modes", "skew_modes"]

# computed once, also for a model that is only counted and has no memory
_HERE = torch.device("cpu")


def legs(size: int) -> tuple[Tensor, Tensor]:
    """HiPPO-LegS (Gu et al. 2020), A (N, N) and B (N,) in float64: A[n,k] = -sqrt((2n+1)(2k+1)) below the diagonal,
    -(n+1) on it; B[n] = sqrt(2n+1)."""
    n = torch.arange(size, dtype=torch.float64, device=_HERE)
    root = (2 * n + 1).sqrt()
    return -(torch.outer(root, root).tril(-1) + torch.diag(n + 1)), root


def normal_modes(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """LegS as normal plus rank one, A = V (diag(lambda) - p p*) V*, in the basis V where its normal part is diagonal.

    Of each conjugate pair the member with a positive imaginary part, for even N.

    Returns:
        lambda, p = V* P and b = V* B, (N/2,) complex128; P[n] = sqrt(n + 1/2).
    """
    a, b = legs(size)
    rank = (torch.arange(size, dtype=torch.float64, device=_HERE) + 0.5).sqrt()
    skew = a + torch.outer(rank, rank) + 0.5 * torch.eye(size, dtype=torch.float64, device=_HERE)
    # i times a skew-symmetric matrix is Hermitian: its eigenvectors are unitary
    omega, basis = torch.linalg.eigh(-1j * skew.to(torch.complex128))
    kept = omega > 0
    back = basis[:, kept].conj().T
    return torch.complex(torch.full_like(omega[kept], -0.5), omega[kept]), back @ rank.to(back), back @ b.to(back)


def skew_modes(size: int) -> Tensor:
    """Eigenvalues with a positive imaginary part of the skew-symmetric part of HiPPO of twice the size, less 1/2
    (Gupta et al. 2022), largest first: (N,) complex128."""
    root = (2 * torch.arange(2 * size, dtype=torch.float64, device=_HERE) + 1).sqrt()
    lower = torch.outer(root, root).tril(-1)
    omega = torch.linalg.eigvalsh(-0.5j * (lower - lower.T).to(torch.complex128)).flip(0)[:size]
    return torch.complex(torch.full_like(omega, -0.5), omega)


def s4d_modes(kind: str, size: int) -> Tensor:
    """The spectra of S4D (Gu et al. 2022), (N/2,) complex128: lin, inv, real or legs."""
    n = torch.arange(size // 2, dtype=torch.float64, device=_HERE)
    half = torch.full_like(n, -0.5)
    if kind == "lin":
        return torch.complex(half, math.pi * n)
    if kind == "inv":
        return torch.complex(half, size / math.pi * (size / (2 * n + 1) - 1))
    return torch.complex(-(n + 1), torch.zeros_like(n)) if kind == "real" else normal_modes(size)[0]


def log_steps(count: int, low: float, high: float) -> Tensor:
    """Logarithms of step sizes, drawn evenly between those of low and high."""
    return torch.rand(count) * (math.log(high) - math.log(low)) + math.log(low)
