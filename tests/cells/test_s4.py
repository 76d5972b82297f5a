"""S4 and LSSL against dense linear algebra: kernels, half the modes, steps, windows, discretisation."""

import pytest
import torch
from torch import Tensor

from unrolled.cells.ssm.dense import Dense, Ladder
from unrolled.cells.ssm.dplr import Dplr
from unrolled.cells.ssm.inits import legs, normal_modes
from unrolled.cells.ssm.lssl import LSSL, Legs, LSSLConfig, bilinear
from unrolled.cells.ssm.s4 import S4, S4Config

MODES, STEPS = 64, (1e-3, 0.02, 0.1)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def s4_system(modes: int = MODES, dtype: torch.dtype = torch.complex128) -> Dplr:
    """LegS with a channel for each step size."""
    lam, p, b = (part.to(dtype) for part in normal_modes(modes))
    c = draw(len(STEPS), modes // 2, dtype=torch.complex128).to(dtype)
    return Dplr(lam, p, b, c, torch.tensor(STEPS, dtype=c.real.dtype))


def full(system: Dplr) -> tuple[Tensor, Tensor, Tensor]:
    """The whole system in float64, half modes and their conjugates: Ā, B̄ by dense inverses, and C; (channels, ...)."""
    modes, p, b, c = (torch.cat([part, part.conj()], -1).to(torch.complex128) for part in system[:4])
    a, eye = torch.diag(modes) - torch.outer(p, p.conj()), torch.eye(len(modes), dtype=torch.complex128)
    double = (2 / system.dt.double()).view(-1, 1, 1)
    inverse = torch.linalg.inv(double * eye - a)
    return inverse @ (double * eye + a), 2 * inverse @ b, c


def series(a: Tensor, b: Tensor, c: Tensor, length: int) -> Tensor:
    """c a^l b for l < length, one power after another."""
    found = []
    for _ in range(length):
        found.append((c * b).sum(-1))
        b = (a @ b.unsqueeze(-1)).squeeze(-1)
    return torch.stack(found, -1)


def truncated(system: Dplr, length: int) -> Tensor:
    """C (I - Ā^L) on the kept modes, densely."""
    a, _, c = full(system)
    rest = c - (c.unsqueeze(1) @ torch.linalg.matrix_power(a, length)).squeeze(1)
    return rest[:, : len(system.modes)].to(system.c.dtype)


@pytest.mark.parametrize("length", [255, 256])
def test_the_kernel_is_the_power_series(length: int) -> None:
    """At odd and even lengths, so with and without the root -1, and at steps from 1e-3 to 0.1."""
    exact = series(*full(s4_system()), length)
    assert float(exact.imag.abs().max()) < 1e-10, "half the modes and their conjugates make real numbers"
    for dtype, limit in ((torch.complex128, 1e-12), (torch.complex64, 1e-5)):
        system = s4_system(dtype=dtype)
        found = system.kernel(truncated(s4_system(), length).to(dtype), length).double()
        assert float((found - exact.real).abs().max() / exact.real.abs().max()) < limit


def test_shorter_windows_have_the_same_kernel() -> None:
    exact = series(*full(s4_system()), 300).real
    for time in (5, 63, 64, 255, 256, 300):
        impulse = torch.zeros(1, time, len(STEPS)).double()
        impulse[:, 0] = 1
        start = torch.zeros(1, len(STEPS), MODES // 2, 2).double()
        y = s4_system().outputs(impulse, start, "auto", "")[0].t()
        torch.testing.assert_close(y, exact[:, :time], rtol=0, atol=1e-11)


def test_steps_are_those_of_the_dense_system_and_windows_carry_their_state() -> None:
    system, time = s4_system(), 150
    a, b, c = full(system)
    u, start = draw(2, time, len(STEPS), seed=1), draw(2, len(STEPS), MODES // 2, 2, seed=2)
    s = torch.view_as_complex(start)
    s, outputs = torch.cat([s, s.conj()], -1), []
    for t in range(time):
        s = (a @ s.unsqueeze(-1)).squeeze(-1) + b * u[:, t].unsqueeze(-1)
        outputs.append((c * s).sum(-1).real)
    expected, final = torch.stack(outputs, 1), torch.view_as_real(s[..., : MODES // 2])
    scale = float(expected.abs().max())
    y, last, _ = system.steps(u, start, None, "auto", "")
    assert float((y - expected).abs().max()) / scale < 1e-12
    torch.testing.assert_close(last, final, rtol=1e-10, atol=1e-10)
    first, second = u[:, :70], u[:, 70:]
    middle = system.final(first, start)
    pieces = [system.outputs(first, start, "auto", ""), system.outputs(second, middle, "auto", "")]
    assert float((torch.cat(pieces, 1) - expected).abs().max()) / scale < 1e-10
    torch.testing.assert_close(system.final(second, middle), final, rtol=1e-10, atol=1e-10)


def test_channels_may_have_systems_of_their_own() -> None:
    """Equal ones make what a shared one makes; of different ones each channel is as if it were alone."""
    shared = s4_system(8)
    own = shared._replace(**{name: getattr(shared, name).expand(len(STEPS), -1) for name in ("modes", "p", "b")})
    u, start = draw(2, 300, len(STEPS), seed=3), draw(2, len(STEPS), 4, 2, seed=4)
    for one, other in zip(own.window(u, start, "auto", ""), shared.window(u, start, "auto", ""), strict=True):
        torch.testing.assert_close(one, other)
    scale = torch.tensor([1.0, 0.5, 2.0], dtype=torch.complex128).unsqueeze(1)
    mixed = own._replace(modes=own.modes * scale, p=own.p * scale, b=own.b / scale)
    y, last = mixed.window(u, start, "auto", "")
    for k in range(len(STEPS)):
        alone = Dplr(mixed.modes[k], mixed.p[k], mixed.b[k], mixed.c[k : k + 1], mixed.dt[k : k + 1])
        one, end = alone.window(u[..., k : k + 1], start[:, k : k + 1], "auto", "")
        torch.testing.assert_close(y[..., k : k + 1], one)
        torch.testing.assert_close(last[:, k : k + 1], end)
    assert S4.num_params(S4Config(modes=8, shared=False), 6, 6) == S4.num_params(S4Config(modes=8), 6, 6) + 3 * 8 * 5


def test_the_cell_starts_as_legs() -> None:
    torch.manual_seed(0)
    cell = S4(3, 2, S4Config(modes=16)).double()
    system = cell.system()
    a, b = legs(16)
    modes, p, q = (torch.cat([part.detach(), part.detach().conj()]) for part in (system.modes, system.p, system.b))
    dplr = torch.diag(modes) - torch.outer(p, p.conj())
    for k in range(4):
        own = (q.conj() @ torch.linalg.matrix_power(dplr, k) @ q).real
        assert float(own) == pytest.approx(float(b @ torch.linalg.matrix_power(a, k) @ b), rel=1e-6)
    assert cell.parameter_rules["p"].rate == 0.25
    assert not cell.parameter_rules["p"].decay


def test_lssl_is_the_bilinear_rule() -> None:
    """(I - dt/2 A)^-1 (I + dt/2 A)."""
    a, b = legs(32)
    for dt in STEPS:
        bar, input_of = bilinear(torch.tensor([dt], dtype=torch.float64).log(), 32)
        eye = torch.eye(32).double()
        left = torch.linalg.inv(eye - dt / 2 * a)
        torch.testing.assert_close(bar[0], left @ (eye + dt / 2 * a), rtol=0, atol=1e-12)
        torch.testing.assert_close(input_of[0], left @ (dt * b), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-11), (torch.float32, 1e-5)])
def test_lssl_windows_are_the_recurrence(dtype: torch.dtype, limit: float) -> None:
    """N 32, T 200, and 100 + 100 with the carried state."""
    wide = torch.tensor(STEPS, dtype=torch.float64).log()
    exact_a, exact_b = bilinear(wide, 32)
    c, u, start = draw(3, 1, 32), draw(2, 200, 3, seed=1), draw(2, 3, 32, seed=2)
    expected, final, _ = Dense(exact_a.transpose(1, 2), exact_b, c).steps(u, start, None, "", "")
    a, b = bilinear(wide.to(dtype), 32)
    system, u, start = Dense(a.transpose(1, 2), b, c.to(dtype)), u.to(dtype), start.to(dtype)
    middle = system.final(u[:, :100], start)
    pieces = [system.outputs(u[:, :100], start, "auto", ""), system.outputs(u[:, 100:], middle, "auto", "")]
    for found in (system.outputs(u, start, "auto", ""), torch.cat(pieces, 1)):
        assert float((found - expected).abs().max() / expected.abs().max()) < limit
    for found in (system.final(u, start), system.final(u[:, 100:], middle)):
        assert float((found - final).abs().max() / final.abs().max()) < limit


def test_a_step_of_legs_in_order_n_is_that_of_its_matrices() -> None:
    system = Legs(torch.tensor(STEPS, dtype=torch.float64).log(), draw(3, 1, 32))
    u, start = draw(2, 40, 3, seed=1), draw(2, 3, 32, seed=2)
    reset = torch.zeros(2, 40, dtype=torch.bool)
    reset[1, 9] = True
    for found, expected in zip(
        system.steps(u, start, reset, "auto", ""), system.steps(u, start, reset, "reference", ""), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_ladder() -> None:
    a, rows = 0.3 * draw(2, 4, 4), draw(2, 3, 4, seed=1)
    ladder = Ladder(a)
    for steps in (1, 2, 7, 11):
        power = torch.linalg.matrix_power(a, steps)
        torch.testing.assert_close(ladder.after(rows, steps), rows @ power)
        torch.testing.assert_close(ladder.before(rows, steps), (power @ rows.transpose(1, 2)).transpose(1, 2))
        powers = [torch.linalg.matrix_power(a, k) for k in range(steps)]
        torch.testing.assert_close(ladder.rows(rows, steps), torch.stack([rows @ p for p in powers], 1))
        columns = torch.stack([(p @ rows.transpose(1, 2)).transpose(1, 2) for p in powers], 1)
        torch.testing.assert_close(ladder.columns(rows, steps), columns)


def test_fixed_steps_are_spread_and_not_trained() -> None:
    cell = LSSL(3, 2, LSSLConfig(modes=4, learn_steps=False, dt_min=0.01, dt_max=1.0)).double()
    assert "log_dt" not in dict(cell.named_parameters())
    a, _ = bilinear(torch.tensor([0.01, 0.1, 1.0], dtype=torch.float64).log(), 4)
    torch.testing.assert_close(cell.system().dense().a, a.transpose(1, 2), rtol=0, atol=1e-12)
    assert "log_dt" in dict(LSSL(3, 2, LSSLConfig(modes=4)).named_parameters())


def test_a_gated_update_is_a_backward_euler_step() -> None:
    """h + sigma(z) (u - h) solves h' = h + dt (u - h') for dt = e^z: gates of recurrent cells are step sizes."""
    z, h, u = draw(5), draw(5, seed=1), draw(5, seed=2)
    gated = (1 - torch.sigmoid(z)) * h + torch.sigmoid(z) * u
    torch.testing.assert_close(gated, h + torch.exp(z) * (u - gated), rtol=0, atol=1e-12)
