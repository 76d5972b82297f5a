"""Update of a fixed norm in the direction of RMSprop."""

from typing import Any

import torch

__all__ = ["NormedRMSprop"]


class NormedRMSprop(torch.optim.Optimizer):
    r"""The rule that trained the first multiplicative LSTMs (the MATLAB code of Krause et al. 2016).

    .. math:: s \leftarrow \rho s + (1 - \rho) g^2, \quad u = g / (\sqrt{s} + \epsilon), \quad
        \theta \leftarrow \theta - \mathrm{lr} \, u / \lVert u \rVert

    with the norm over all parameters, so that ``lr`` is the length of every step.
    """

    def __init__(self, params: Any, lr: float, rho: float = 0.9, eps: float = 1e-6, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update from the gradients."""
        updates = []
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                grad = p.grad.add(p, alpha=group["weight_decay"]) if group["weight_decay"] else p.grad
                state = self.state[p]
                if not state:
                    state["square"] = torch.zeros_like(p)
                state["square"].mul_(group["rho"]).addcmul_(grad, grad, value=1 - group["rho"])
                updates.append((p, grad / state["square"].sqrt().add_(group["eps"]), group["lr"]))
        norm = torch.nn.utils.get_total_norm([update for _, update, _ in updates]).clamp_(min=1e-30)
        for p, update, lr in updates:
            p.sub_(update.mul_(lr / norm))
