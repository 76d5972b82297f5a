"""Titans: a memory that learns at test time, alone and in three layouts with attention."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from unrolled.cells.base import ParameterRule
from unrolled.cells.learners.attend import turned_by, within
from unrolled.cells.learners.base import LearnerCell
from unrolled.cells.learners.titans_config import TitansConfig, TitansContextState, TitansState, TitansWindowState
from unrolled.cells.matrix.base import by_fan_in, fill, normal, unit
from unrolled.cells.mixer import Given
from unrolled.cells.parts.heads import HeadNorm, cut_heads
from unrolled.cells.parts.ring import places_of, turn, turn_segment
from unrolled.cells.parts.short_conv import ShortConv
from unrolled.cells.parts.steps import fill_step_bias
from unrolled.cells.parts.union import always, union
from unrolled.kernels.learner_scan import Learned, Network, Norm, read_with
from unrolled.kernels.rms_norm import rms_norm
from unrolled.kernels.silu_gate import silu_gate

__all__ = ["Titans"]


class Titans(LearnerCell):
    r"""Titans (Behrouz, Zhong and Mirrokni 2025, arXiv:2501.00663): a deep memory that learns from what surprises it.

    .. math::
        q, k, v &= \mathrm{SiLU}(\mathrm{conv}_4(W_q x_t, W_k x_t, W_v x_t)), \quad
        \hat{q} = q/|q|, \; \hat{k} = k/|k| \\
        S_t &= \eta_t S_{t-1} - \theta_t \nabla \lVert M'(\hat{k}_t) - v_t \rVert^2, \qquad
        M_t = (1 - \alpha_t) M_{t-1} + \alpha_t M_0 + S_t, \qquad m_t = M_t(\hat{q}_t)

    for each head, where M is an MLP of 1 to 4 layers without biases and M' what it was before the present chunk; a
    document begins with an M₀ that is trained. η = σ(w·x + b), α alike, θ = (rate / C)(1 - η) σ(w·x + b), of each token
    and head, with C tokens to a chunk: so a key that fills a chunk is moved by no more than 2 rate of its error.
    The layouts, with p pairs of keys and values that are always seen (the paper's persistent tokens), a ⊗ b =
    RMSNorm(a) ⊙ σ(RMSNorm(b)), and attention with rotary angles:

    - ``memory`` (LMM): y = W_o(RMSNorm(m) ⊙ SiLU(W_g x)), the norm of each head.
    - ``layer`` (MAL): attention over the last ``window`` of such y, W_a behind it.
    - ``gate`` (MAG): y = W_o(a ⊗ m) with a = attention over the last ``window`` of x.
    - ``context`` (MAC): segments are chunks. h = M'(SiLU(W_r x)), the argument of unit length, is recalled for each
      token; a = attention over p, the h and the x of its segment; the memory learns from a and reads with a:
      y = W_o(a ⊗ m).

    α M₀ is not in the paper (``forget`` = ``zero``): where all layers decay to zero their gradients do so too, and a
    memory of two layers or more does not come back from there; so texts that go on for thousands of tokens ended it.
    Where the paper's equations would see what is to come, this does not: a token sees the h of its segment up to its
    own, where (22) has all of them before the segment, and reads M_t, where (25) reads what the whole segment has made
    of M. Persistent tokens are kept as keys and values (Sukhbaatar et al. 2019); the memory does not read them, since
    what it would make of them is the same for every text, as M₀ is. Not said in the paper: the sizes of chunks,
    windows and hidden layers (factor 2 here), the function between layers (SiLU here), how θ is
    bounded, and the starts: α log-uniform on [0.001, 0.1], the other b zero, w and persistent ones normal with
    deviation .02, M₀ normal with in^-1/2, other maps as those of ``torch.nn.Linear``. ∇ of the square has a factor 2,
    so that depth 1 without momentum, decay and chunks is the delta rule with β = 2θ. ``norm`` makes M(x) = x +
    LN(MLP(x)), LN with a gain and a bias for each head. The blocks of ``weight`` are q, k, v, g, those of
    ``step`` θ, η, α.

    Parameters, E being I, or N in ``context``: 3NE (4NE where there is W_g), N², 3NK of the convolution, HE + H for
    each of θ, η, α, the memory's weights, N/H of the norm or 2N of the two; of attention 2pN and 3NI (3N² in
    ``layer``), N² of W_a, and NI + 2N² of what is recalled.
    """

    Config = TitansConfig
    State: type = TitansState
    EXAMPLES = (
        TitansConfig(heads=1, chunk=3),
        TitansConfig(heads=2, chunk=2, depth=1, momentum=False, kernel=2, rate=0.5),
        TitansConfig(heads=1, chunk=3, depth=3, factor=1, norm=True, forget="none", group=1, rate=0.3),
        TitansConfig(heads=2, chunk=3, layout="context", depth=1, persistent=1),
        TitansConfig(heads=2, chunk=2, layout="gate", window=3, persistent=2, kernel=3, forget="zero"),
        TitansConfig(heads=1, chunk=4, layout="layer", window=4, persistent=1, factor=1),
    )
    EQUATION = "S = η S - θ ∇|M'(k) - v|²; M = (1-α) M + S; y = M(q)"
    matrix_fields = ("before", "weights", "sums")

    def __init__(self, in_width: int, width: int, config: TitansConfig):
        super().__init__(in_width, width, config)
        heads, size, entry = config.heads, width // config.heads, width if config.layout == "context" else in_width
        gated, count = config.layout in ("memory", "layer"), self.gates(config)

        def empty(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape))

        self.weight, self.out = empty((3 + gated) * width, entry), empty(width, width)
        self.step, self.step_bias = empty(count * heads, entry), empty(count * heads)
        self.conv = ShortConv(3 * width, config.kernel, bias=False, activation="silu")
        self.start = empty(heads, self.network(config, width).numbers())
        self.gain, self.bias = (empty(heads, size) if config.norm else None for _ in range(2))
        self.norm = HeadNorm(heads, size) if gated else None
        self.norms = None if gated else empty(2, width)
        self.attend = self.persistent = self.attend_out = self.recall = self.recalled = None
        if config.layout != "memory":
            self.attend = empty(3 * width, width if config.layout == "layer" else in_width)
            self.persistent = empty(2, config.persistent, heads, size)
        if config.layout == "layer":
            self.attend_out = empty(width, width)
        if config.layout == "context":
            self.recall, self.recalled = empty(width, in_width), empty(2 * width, width)
        fixed = ("start", "gain", "bias", "norms", "persistent", "step_bias")
        own = [name for name in fixed if getattr(self, name) is not None]
        self.parameter_rules = {name: ParameterRule(decay=name == "start", drawn=False) for name in own}
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        fill(by_fan_in, [self.weight, self.out, self.attend, self.attend_out, self.recall, self.recalled])
        fill(normal(0.02), [self.step, self.persistent])
        fill(nn.init.zeros_, [self.bias])
        fill(nn.init.ones_, [self.gain, self.norms])
        if not self.step_bias.is_meta:
            self.step_bias.zero_()
            if self.config.forget != "none":
                # softplus(b) = -log(1 - σ(b)), so that 1 - α has the logarithm of such a step
                fill_step_bias(self.step_bias[-self.config.heads :])
        self.fill_start(None)

    @classmethod
    def network(cls, config: Any, width: int) -> Network:
        """An MLP without biases."""
        size = width // config.heads
        return Network((size, *[config.factor * size] * (config.depth - 1), size), activation="silu")

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """The heads; twice as many where attention turns pairs of channels, four times where there is a norm of a
        head's last layer, which of two numbers leaves nothing but signs."""
        return config.heads * (4 if config.norm else 1 if config.layout == "memory" else 2)

    @classmethod
    def gates(cls, config: Any) -> int:
        """Of θ, η and α those that there are."""
        return 1 + config.momentum + (config.forget != "none")

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> Any:
        """The memory as it begins, and nothing read."""
        config = self.config
        weights, sums, place = self.begin(batch, device, dtype)
        memory = (weights, weights.clone(), sums, place, self.conv.initial(batch, device, dtype))
        if config.layout == "memory":
            return TitansState(*memory)
        length = (config.chunk if config.layout == "context" else config.window) - 1
        shape = (batch, length, config.heads, self.width // config.heads)
        count = 4 if config.layout == "context" else 2
        rings = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(count)]
        if config.layout == "context":
            return TitansContextState(*memory, *rings)
        return TitansWindowState(*memory, rings[0], rings[1], torch.zeros_like(place))

    def mix(self, x: Tensor, state: Any, given: Given) -> tuple[Tensor, Any]:
        """One window of the class's equations."""
        layout = self.config.layout
        if layout == "context":
            return self._context(x, state, given)
        m, gate, memory = self._memory(x, state, given.reset, given.show)
        if layout == "gate":
            a, ring = self._window(x, state, given)
            return self.linear("out", self._gating(a, m)), TitansWindowState(*memory, *ring)
        assert self.norm is not None
        m = self.norm(m, self.wish_for("rms_norm")).flatten(2)
        y = self.linear("out", silu_gate(m, gate, None, None, self.wish_for("silu_gate"), self.name))
        if layout == "memory":
            return y, TitansState(*memory)
        a, ring = self._window(y, state, given)
        return self.linear("attend_out", a), TitansWindowState(*memory, *ring)

    def _memory(self, x: Tensor, state: Any, reset: Tensor | None, show: Any) -> tuple[Tensor, Tensor, list[Tensor]]:
        """What the memory gives for a window, (batch, time, heads, size), W_g x, and its state after it."""
        config, heads = self.config, self.config.heads
        qkv, gate = self.linear("weight", x).split([3 * self.width, len(self.weight) - 3 * self.width], -1)
        qkv, conv = self.conv(qkv, state.conv, reset, self.wish_for("causal_conv"), self.name)
        q, k, v = (cut_heads(part, heads) for part in qkv.chunk(3, -1))
        pre = list(self.linear("step", x, "step_bias").split(heads, -1))
        found = {"delta": torch.sigmoid(pre[0]) * (config.rate / config.chunk)}
        if config.momentum:
            found["momentum"] = torch.sigmoid(pre[1])
            found["delta"] = found["delta"] * torch.sigmoid(-pre[1])
        if config.forget != "none":
            found["a"] = torch.sigmoid(-pre[-1])
        if show is not None:
            for name, value in found.items():
                show(name, value)
        learned = Learned(state.before, state.weights, state.sums, state.place)
        norm = None if self.gain is None or self.bias is None else Norm(self.gain, self.bias)
        options = {"norm": norm, "reset": reset, "momentum": found.get("momentum"), "keep": found.get("a")}
        options["home"] = config.forget == "start"
        m, after = self.learn(unit(q), unit(k), v, 2 * found["delta"], learned, **options)
        return m, gate, [after.base, after.now, after.sums, after.place, conv]

    def _gating(self, a: Tensor, m: Tensor) -> Tensor:
        """RMSNorm(a) * σ(RMSNorm(m)), each over the whole width."""
        assert self.norms is not None
        wish = self.wish_for("rms_norm")
        a, m = (rms_norm(part.flatten(2), gain, 1e-5, wish) for part, gain in zip((a, m), self.norms, strict=True))
        return a * torch.sigmoid(m)

    def _always(self, q: Tensor) -> tuple[Tensor, Tensor]:
        assert self.persistent is not None
        return always(q, self.persistent[0], self.persistent[1])

    def _options(self) -> dict[str, Any]:
        return {"backend": self.wish_for("bias_attention"), "subject": self.name}

    def _window(self, x: Tensor, state: Any, given: Given) -> tuple[Tensor, list[Tensor]]:
        """Attention over the last tokens, (batch, time, N), and its ring after the window."""
        q, k, v = (cut_heads(part, self.config.heads) for part in self.linear("attend", x).chunk(3, -1))
        turned = turn([state.keys, state.values], [k, v], state.fill, given.reset)
        keys, values = turned.joined
        # scores depend on distances, so that places may count from the ring's begin
        places = torch.arange(keys.shape[1], device=x.device)
        (at,), (keys,) = turned_by(places[-x.shape[1] :], q), turned_by(places, keys)
        y = union([within(at, keys, values, turned, **self._options()), self._always(q)])
        return y.flatten(2), [*turned.kept, turned.fill]

    def _context(self, x: Tensor, state: Any, given: Given) -> tuple[Tensor, TitansContextState]:
        """The layout context: piece by piece, of which none crosses the border of a segment in any row."""
        heads, time, network = self.config.heads, x.shape[1], self.network(self.config, self.width)
        q, k, v = (cut_heads(part, heads) for part in self.linear("attend", x).chunk(3, -1))
        asked = unit(silu(cut_heads(self.linear("recall", x), heads)))
        inside = places_of(state.place, given.reset, time) % self.config.chunk
        at, keys = turned_by(inside, q, k)
        begins = [0]
        if time > 1:
            begins += [t for t, border in enumerate((inside == 0).any(0).tolist()) if border and t]
        shown: dict[str, list[Tensor]] = {}
        outputs, norm = [], None if self.gain is None or self.bias is None else Norm(self.gain, self.bias)
        for begin, end in zip(begins, [*begins[1:], time], strict=True):
            part = slice(begin, end)
            reset = None if given.reset is None else given.reset[:, part]
            before = torch.where((state.place == 0).view(-1, 1, 1), state.weights, state.before)
            if reset is not None:
                before = torch.where(reset[:, :1].unsqueeze(-1), self.start, before)
            h = read_with(before, asked[:, part], network, norm)
            more = [cut_heads(one, heads) for one in self.linear("recalled", h.flatten(2)).chunk(2, -1)]
            (more[0],) = turned_by(inside[:, part], more[0])
            turned = turn_segment(state[5:], [keys[:, part], v[:, part], *more], state.place, reset)
            own, own_values, old, old_values = turned.joined
            pair = [
                within(at[:, part], *one, turned, **self._options()) for one in ((own, own_values), (old, old_values))
            ]
            a = union([*pair, self._always(q[:, part])]).flatten(2)
            show = None if given.show is None else (lambda name, value: shown.setdefault(name, []).append(value))
            m, _, memory = self._memory(a, state, reset, show)
            outputs.append(self._gating(a, m))
            state = TitansContextState(*memory, *turned.kept)
        if given.show is not None:
            for name, values in shown.items():
                given.show(name, torch.cat(values, 1))
        return self.linear("out", torch.cat(outputs, 1)), state

    @classmethod
    def _maps(cls, config: Any, in_width: int, width: int) -> int:
        """Numbers of the matrices that each token meets."""
        entry = width if config.layout == "context" else in_width
        rows = (4 if config.layout in ("memory", "layer") else 3) * width + cls.gates(config) * config.heads
        attention = {
            "memory": 0,
            "gate": 3 * width * in_width,
            "layer": 4 * width**2,
            "context": 4 * width * in_width + 2 * width**2,
        }
        return rows * entry + width**2 + attention[config.layout]

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """The docstring's sum."""
        heads, gated = config.heads, config.layout in ("memory", "layer")
        learner = heads * cls.network(config, width).numbers() + (2 * width if config.norm else 0)
        norms = width // heads if gated else 2 * width
        persistent = 0 if config.layout == "memory" else 2 * config.persistent * width
        conv = 3 * width * config.kernel
        return cls._maps(config, in_width, width) + cls.gates(config) * heads + conv + learner + norms + persistent

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """Two for each number of the maps, the memory's, and 4N for each key of a full window or segment."""
        context = config.layout == "context"
        keys = {"memory": 0, "context": 2 * config.chunk}.get(config.layout, config.window)
        keys += 0 if config.layout == "memory" else config.persistent
        memory = cls.learner_flops(config, width, 2 if context else 1)
        return 2 * cls._maps(config, in_width, width) + memory + 4 * width * keys
