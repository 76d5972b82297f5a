"""The gates of dynamic evaluation, learned by looking at what updates did to the segments after them."""

import torch
from torch import Tensor, nn

from unrolled.core import tree
from unrolled.core.errors import UsageError
from unrolled.core.parameters import matching_parameters
from unrolled.data import TokenSplit
from unrolled.data.walk import Columns, Progress, windows
from unrolled.model import LanguageModel
from unrolled.optim.dynamic import DynamicConfig
from unrolled.optim.gates import Gates, fisher
from unrolled.predict.adapter import Source
from unrolled.predict.static import NeuralPredictor

__all__ = ["GATES", "gates_of", "learn_gates"]

GATES = ("hidden", "through", "updates", "gate_lr")
"""Settings of the gates alone."""


def learn_gates(
    model: LanguageModel,
    start_id: int,
    split: TokenSplit,
    config: DynamicConfig,
    statistics: dict[str, Tensor],
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    r"""Learn when a model that adapts to a text should step, and when go back.

    The text is read as in dynamic evaluation, with the gates as they are. After every ``config.through`` segments the
    sum of their losses is differentiated by what the gates said, through the updates between. Where the gradients g of
    the segments are taken for constants (first order), that is the derivative of
    :math:`\sum_j \langle g_j, \theta_j \rangle`. Adam moves the gates, ``config.updates`` times; at the text's end the
    model begins anew with its trained parameters, which it has again afterwards.

    Args:
        split: text that the model was not trained on. statistics: see :func:`gradient_statistics`.
    Returns:
        the gates' parameters.
    Raises:
        UsageError: too little text for one update.
    """
    model.eval()
    parameters = matching_parameters(model, config.parameters)
    gates = Gates(tuple(parameters), config.hidden)
    optimiser = torch.optim.Adam(gates.parameters(), lr=config.gate_lr)
    trained = {name: p.detach().clone() for name, p in parameters.items()}
    weights = fisher({name: statistics[name].to(p) for name, p in parameters.items()})
    if len(split) < config.through * config.segment:
        raise UsageError(
            f"{len(split)} tokens are too few to learn gates from {config.through} segments of {config.segment}; lower "
            "dynamic.through."
        )
    done, nats = 0, 0.0
    try:
        while done < config.updates:
            state, last = None, torch.full((1, 1), start_id, device=model.device)
            now: dict[str, Tensor] = dict(trained)
            _put(parameters, now)
            total, count = torch.zeros((), dtype=torch.float64), 0
            for _, array, flags in windows(split, Columns.cut(split, 1), config.segment):
                ids = torch.from_numpy(array).to(model.device)
                inputs, reset = torch.cat([last, ids[:, :-1]], 1), None
                if flags is not None:
                    reset = torch.from_numpy(flags).to(model.device)
                    inputs = inputs.masked_fill(reset, start_id)
                loss, _, state = model.loss(inputs, ids, state, reset)
                scaled = loss / (ids.numel() if config.loss == "mean" else 1)
                found = torch.autograd.grad(scaled, list(parameters.values()), allow_unused=True)
                gradients = {
                    name: torch.zeros_like(p) if g is None else g
                    for (name, p), g in zip(parameters.items(), found, strict=True)
                }
                for name, value in now.items():
                    if value.requires_grad:
                        total = total + (gradients[name] * value).sum().double()
                state, last, mean = tree.detach(state), ids[:, -1:], float(loss.detach()) / ids.numel()
                nats, count = nats + mean, count + 1
                now = _moved(gates, config, mean, now, trained, gradients, weights)
                if count % config.through == 0 and total.requires_grad:
                    optimiser.zero_grad()
                    total.backward()
                    nn.utils.clip_grad_norm_(gates.parameters(), 1.0)
                    optimiser.step()
                    total, now, done = torch.zeros_like(total.detach()), tree.detach(now), done + 1
                    if progress is not None:
                        progress(done, config.updates, nats / count)
                    nats, count = 0.0, 0
                    if done == config.updates:
                        break
                _put(parameters, now)
    finally:
        _put(parameters, trained)
    return {name: value.detach().clone() for name, value in gates.named_parameters()}


def _moved(
    gates: Gates,
    config: DynamicConfig,
    loss: float,
    now: dict[str, Tensor],
    trained: dict[str, Tensor],
    gradients: dict[str, Tensor],
    weights: dict[str, Tensor],
) -> dict[str, Tensor]:
    """The parameters after an update, with the graph that leads to the gates."""
    moved = {name: value.detach() - trained[name] for name, value in now.items()}
    steps, pulls = gates(loss, gradients, moved)
    after = {}
    for name, step, pull in zip(gates.names, steps, pulls, strict=True):
        towards = (config.decay * pull.to(weights[name]) * weights[name]).clamp(max=1.0)
        after[name] = (
            now[name] + towards * (trained[name] - now[name]) - config.lr * step.to(weights[name]) * gradients[name]
        )
    return after


@torch.no_grad()
def _put(parameters: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
    for name, p in parameters.items():
        p.copy_(values[name])


def gates_of(
    plain: NeuralPredictor, config: DynamicConfig, statistics: dict[str, Tensor], source: Source
) -> tuple[Gates, str]:
    """Gates learned on the validation text, kept with the run, and the checksum of that text."""
    gates = Gates(tuple(matching_parameters(plain.model, config.parameters)), config.hidden)
    shapes = {name: p.shape for name, p in gates.named_parameters()}
    used = ("segment", "lr", "decay", "loss", "statistic", "columns", "batches", "parameters", *GATES)
    made = source.stored(
        "gates",
        {name: value for name, value in config.model_dump(mode="json").items() if name in used},
        lambda split: learn_gates(plain.model, plain.start_id, split, config, statistics, source.progress),
        lambda found: {name: value.shape for name, value in found.items()} == shapes,
        split="valid",
    )
    gates.load_state_dict({name: value.cpu() for name, value in made.items()})
    return gates, source.identity()["valid"]
