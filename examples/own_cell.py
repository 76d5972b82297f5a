"""A cell of one's own: written, registered, compared with its reference and trained.

The update gate RNN (Collins, Sohl-Dickstein and Sussillo 2016): one gate z, and h = z*h + (1-z)*tanh(...). The class
says what one step computes; the loop over time, masks, resets, the fast backends and saving are inherited.

    python examples/own_cell.py [STEPS]       # absent: 200 steps
"""

import sys
from typing import Any, Literal

import torch
from torch import Tensor, nn

import unrolled as ur
from unrolled.cells import CELLS
from unrolled.cells.base import CellConfig, HiddenState, StepCell, Tap, Weights


class UGRNNConfig(CellConfig):
    name: Literal["ugrnn"] = "ugrnn"


class UGRNN(StepCell):
    Config, State, EXAMPLES, EQUATION = UGRNNConfig, HiddenState, (UGRNNConfig(),), "h = z*h + (1-z)*n"
    recurrent_weights = ("weight_hh",)

    def __init__(self, in_width: int, width: int, config: UGRNNConfig):
        super().__init__(in_width, width, config)
        self.weight_ih = nn.Parameter(torch.randn(2 * width, in_width) / in_width**0.5)
        self.weight_hh = nn.Parameter(torch.randn(2 * width, width) / width**0.5)
        self.bias = nn.Parameter(torch.zeros(2 * width))

    def project(self, x: Tensor, w: Weights) -> Tensor:
        return w.linear("weight_ih", x) + w["bias"]

    def step(self, pre: Tensor, state: HiddenState, w: Weights, tap: Tap) -> tuple[Tensor, HiddenState]:
        for_z, for_n = w.linear("weight_hh", state.h, pre).chunk(2, -1)
        z, n = torch.sigmoid(for_z), torch.tanh(for_n)
        h = z * state.h + (1 - z) * n
        return h, HiddenState(h)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        return 2 * width * (in_width + width + 1)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        return 4 * width * (in_width + width)


def furthest(cell: StepCell, backend: str) -> float:
    """The largest difference from the plain loop, over outputs and all gradients."""
    found = []
    for name in (backend, "reference"):
        cell.compute = cell.compute.model_copy(update={"backend": name})
        x = torch.linspace(-1, 1, 2 * 9 * cell.in_width, dtype=torch.float64).view(2, 9, -1).requires_grad_()
        y, state = cell(x)
        found.append([y, *torch.autograd.grad((y**2).sum() + state.h.sum(), [x, *cell.parameters()])])
    return max(float((a - b).detach().abs().max()) for a, b in zip(*found, strict=True))


def main(steps: int = 200) -> None:
    CELLS.add("ugrnn", UGRNN)
    cell = UGRNN(5, 8, UGRNNConfig()).double()
    for backend in cell.backends():
        print(f"{backend}: at most {furthest(cell, backend):.0e} from the reference")
    few = ["train.final_eval=false", "train.valid_tokens=5000", "model.width=128", f"train.steps={steps}"]
    run = ur.train(ur.experiment(settings=["model.cell={name='ugrnn'}", *few]))
    bits = ur.evaluate(run, split="test", limit=2_000).figures()["bits_per_character"]
    print(f"{run}: {bits:.3f} bits per character after {steps} steps")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
