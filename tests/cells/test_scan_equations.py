"""The scan cells against the equations of their papers, written out token by token."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, pad, rms_norm, silu, softplus

from cells.scans import cell, draw
from unrolled.kernels.matrix_scan import matrix_scan

X = draw(2, 9, 6, seed=99)


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-12)


def convolved(conv: Any, u: Tensor) -> Tensor:
    """The short convolution, tap by tap, without its activation."""
    weight, kernel = conv.weight, conv.weight.shape[1]
    past = pad(u, (0, 0, kernel - 1, 0))
    return torch.stack([past[:, i : i + u.shape[1]] * weight[:, i] for i in range(kernel)]).sum(0) + conv.bias


def test_mingru_is_its_gate() -> None:
    made = cell("mingru")
    z, n = (X @ made.weight.T + made.bias).chunk(2, -1)
    c = torch.zeros(2, 4, dtype=torch.float64)
    for t in range(9):
        c = (1 - z[:, t].sigmoid()) * c + z[:, t].sigmoid() * n[:, t]
        close(made(X[:, : t + 1])[0][:, t], c)


def test_log_forms_are_sums_of_logarithms_and_plain_scans_of_a_positive_candidate() -> None:
    for name in ("mingru", "minlstm"):
        made = cell(name, form="log", expansion=1.5)
        *gates, n = (X @ made.weight.T + made.bias).chunk(2 if name == "mingru" else 3, -1)
        positive = torch.where(n >= 0, n + 0.5, n.sigmoid())
        if name == "mingru":
            log_kept, log_new = -softplus(gates[0]), -softplus(-gates[0])
        else:
            f, i = (gate.sigmoid() for gate in gates)
            log_kept, log_new = (f / (f + i)).log(), (i / (f + i)).log()
        decay = log_kept.cumsum(1)
        c = (decay + (log_new + positive.log() - decay).logcumsumexp(1)).exp()
        close(made(X)[0], c @ made.out.T)
        plain = cell(name, form="plain", expansion=1.5)
        assert not torch.allclose(plain(X)[0], made(X)[0]), "two models"


def test_sru_of_both_versions() -> None:
    for version in (1, 2):
        for width in (4, 6):
            made = cell("sru", 6, width, version=version, highway_bias=-1.0)
            u, f, r, *skip = (X @ made.weight.T).chunk(3 if width == 6 else 4, -1)
            b_f, b_r = made.bias.chunk(2)
            w_f, w_r = (made.state.weight, made.weight_r) if version == 2 else (torch.zeros(()), torch.zeros(()))
            alpha, c = math.sqrt(1 + 2 * math.exp(-1)), torch.zeros(2, width, dtype=torch.float64)
            y, state = made(X)
            for t in range(9):
                forget, read = (f[:, t] + w_f * c + b_f).sigmoid(), (r[:, t] + w_r * c + b_r).sigmoid()
                c = forget * c + (1 - forget) * u[:, t]
                close(y[:, t], read * c + (1 - read) * (skip[0][:, t] if skip else alpha * X[:, t]))
            close(state.c, c)


def test_lru_with_complex_numbers() -> None:
    made = cell("lru", states=1.5)
    n = len(made.nu)
    factor = torch.exp(torch.complex(-made.nu.exp(), made.theta.exp()))
    b, c = torch.complex(made.b[:n], made.b[n:]), torch.complex(made.c[:, :n], made.c[:, n:])
    s, y = torch.zeros(2, n, dtype=torch.complex128), made(X)[0]
    for t in range(9):
        s = factor * s + made.log_gamma.exp() * (X[:, t].to(b.dtype) @ b.T)
        g = gelu((s @ c.T).real + made.d * X[:, t])
        value, gate = (g @ made.weight.T + made.bias).chunk(2, -1)
        close(y[:, t], value * gate.sigmoid())


def test_hgrn_of_both_forms() -> None:
    for form in ("complex", "real"):
        made = cell("hgrn", form=form)
        parts = 2 if form == "complex" else 1
        pre = X @ made.weight.T + (0 if made.bias is None else made.bias)
        f, c, g = pre.split((4, 4 * parts, 4 * parts), -1)
        factor = f.sigmoid() * (torch.exp(1j * made.theta) if form == "complex" else 1)
        s = torch.zeros(2, 4, dtype=factor.dtype)
        value = torch.complex(*silu(c).chunk(2, -1)) if form == "complex" else silu(c)
        for t in range(9):
            s = factor[:, t] * s + (1 - f[:, t].sigmoid()) * value[:, t]
            if form == "complex":
                both = silu(g[:, t]) * torch.cat([s.real, s.imag], -1)
                h = layer_norm(both, (8,), made.norm_weight, made.norm_bias, 1e-5) @ made.out.T + made.out_bias
            else:
                h = (rms_norm(s, (4,), made.norm_weight, 1e-5) * silu(g[:, t])) @ made.out.T
            close(made(X[:, : t + 1])[0][:, t], h)


def test_rg_lru() -> None:
    made = cell("rg_lru", heads=2)
    y, u = (X @ made.weight.T + made.bias).chunk(2, -1)
    u = convolved(made.conv, u)
    r, i = (
        (torch.block_diag(*weight) @ u.unsqueeze(-1)).squeeze(-1) + bias
        for weight, bias in ((made.weight_a, made.bias_a), (made.weight_i, made.bias_i))
    )
    a = torch.exp(-8 * softplus(made.decay) * r.sigmoid())
    c, h = torch.zeros(2, 4, dtype=torch.float64), made(X)[0]
    for t in range(9):
        scale = (1 - a[:, t] ** 2).sqrt() if t else torch.ones(())
        c = a[:, t] * c + scale * i[:, t].sigmoid() * u[:, t]
        close(h[:, t], (gelu(y[:, t], approximate="tanh") * c) @ made.out.T + made.out_bias)


def test_rwkv4_is_its_sums() -> None:
    made = cell("rwkv4")
    before = pad(X, (0, 0, 1, 0))[:, :-1]
    k, v, r = (
        (mix * X + (1 - mix) * before) @ weight.T
        for mix, weight in ((made.mix_k, made.weight_k), (made.mix_v, made.weight_v), (made.mix_r, made.weight_r))
    )
    h = made(X)[0]
    for t in range(9):
        logits = [-(t - 1 - i) * made.decay.exp() + k[:, i] for i in range(t)] + [made.bonus + k[:, t]]
        weights = torch.softmax(torch.stack(logits, 1), 1)
        close(h[:, t], (r[:, t].sigmoid() * (weights * v[:, : t + 1]).sum(1)) @ made.out.T)


def test_rwkv4_channel() -> None:
    made = cell("rwkv4_channel", factor=2.0)
    before = pad(X, (0, 0, 1, 0))[:, :-1]
    k, r = (
        (mix * X + (1 - mix) * before) @ weight.T
        for mix, weight in ((made.mix_k, made.weight_k), (made.mix_r, made.weight_r))
    )
    close(made(X)[0], r.sigmoid() * (k.relu().square() @ made.weight_v.T))


def test_aaren_is_softmax_attention_over_each_prefix() -> None:
    made = cell("aaren", heads=2)
    k, v = (part.unflatten(-1, (2, 2)) for part in (X @ made.weight.T + made.bias).chunk(2, -1))
    query, h = made.query.view(2, 2), made(X)[0]
    for t in range(9):
        weights = torch.softmax(torch.einsum("hd,bshd->bsh", query, k[:, : t + 1]) / math.sqrt(2), 1)
        y = torch.einsum("bsh,bshd->bhd", weights, v[:, : t + 1]).flatten(1)
        close(h[:, t], y @ made.out.T + made.out_bias)


def test_mamba_is_its_loop() -> None:
    made = cell("mamba", states=3)
    u, z = (X @ made.weight.T).chunk(2, -1)
    u = silu(convolved(made.conv, u))
    low, b, c = (u @ made.weight_x.T).split((1, 3, 3), -1)
    delta = softplus(low @ made.weight_delta.T + made.bias_delta)
    s, h = torch.zeros(2, 8, 3, dtype=torch.float64), made(X)[0]
    for t in range(9):
        s = torch.exp(delta[:, t, :, None] * -made.log_a.exp()) * s
        s = s + delta[:, t, :, None] * u[:, t, :, None] * b[:, t, None]
        close(h[:, t], (((s * c[:, t, None]).sum(-1) + made.d * u[:, t]) * silu(z[:, t])) @ made.out.T)


def test_longhorn_of_both_forms() -> None:
    for form in ("diagonal", "exact"):
        made = cell("longhorn", form=form, heads=2, states=3)
        u, z = (X @ made.weight.T).chunk(2, -1)
        u = silu(convolved(made.conv, u))
        low, k, q = (u @ made.weight_x.T).split((1, 3, 3), -1)
        beta = (low @ made.weight_beta.T + made.bias_beta).sigmoid()
        if form == "exact":  # one for each head of four channels
            beta = beta.repeat_interleave(4, -1)
        delta = beta / (1 + beta * k.square().sum(-1, keepdim=True))
        s, h = torch.zeros(2, 8, 3, dtype=torch.float64), made(X)[0]
        for t in range(9):
            last, (d, key) = s, (delta[:, t, :, None], k[:, t, None])
            if form == "diagonal":
                s = (1 - d * key**2) * last + d * u[:, t, :, None] * key
            else:
                s = last - d * (last * key).sum(-1, keepdim=True) * key + d * u[:, t, :, None] * key
                # the solution of the regression: its objective has no slope there
                slope = (
                    2 * (s - last)
                    + 2 * beta[:, t, :, None] * ((s * key).sum(-1, keepdim=True) - u[:, t, :, None]) * key
                )
                close(slope, torch.zeros_like(slope))
            close(h[:, t], (((s * q[:, t, None]).sum(-1) + made.d * u[:, t]) * silu(z[:, t])) @ made.out.T)


def test_longhorns_forms_agree_on_one_state() -> None:
    one, other = (cell("longhorn", form=form, heads=8, states=1) for form in ("diagonal", "exact"))
    other.load_state_dict(one.state_dict())
    close(one(X)[0], other(X)[0])


def test_gateloop_with_complex_numbers() -> None:
    for gate in ("channel", "head"):
        made = cell("gateloop", heads=2, gate=gate)
        q, k, v, g = (X @ made.weight.T).chunk(4, -1)
        alpha, phase = (X @ made.weight_a.T + made.bias_a).chunk(2, -1)
        a = torch.polar(alpha.sigmoid(), phase)
        a = a.unflatten(-1, (2, 2)) if gate == "channel" else a.unsqueeze(-1).expand(-1, -1, -1, 2)
        q, k, v = (part.unflatten(-1, (2, 2)) for part in (q, k, v))
        s, h = torch.zeros(2, 2, 2, 2, dtype=torch.complex128), made(X)[0]
        for t in range(9):
            s = a[:, t].unsqueeze(-1) * s + k[:, t].unsqueeze(-1) * v[:, t].unsqueeze(-2)
            o = torch.einsum("bhk,bhkv->bhv", q[:, t], s.real).flatten(1) / math.sqrt(2)
            close(h[:, t], (o * silu(g[:, t])) @ made.out.T)


def test_gateloop_without_turns_is_linear_attention_with_decay() -> None:
    made = cell("gateloop", heads=2)
    with torch.no_grad():
        made.weight_a[4:] = 0
        made.bias_a[4:] = 0
    q, k, v, g = (X @ made.weight.T).chunk(4, -1)
    decay = torch.nn.functional.logsigmoid((X @ made.weight_a.T + made.bias_a)[..., :4])
    q, k, v, decay = (part.unflatten(-1, (2, 2)) for part in (q, k, v, decay))
    o, _ = matrix_scan(q, k, v, decay, scale=2**-0.5)
    close(made(X)[0], (o.flatten(2) * silu(g)) @ made.out.T)
