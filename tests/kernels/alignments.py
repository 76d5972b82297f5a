"""All alignments of a label string to frames, one by one."""

import itertools

import torch
from torch import Tensor


def transducer_nats(log_prob: Tensor, labels: list[int], blank: int) -> Tensor:
    """-log of the sum over all paths of blanks and labels. log_prob: (T, U+1, V) of one row."""
    frames, said = log_prob.shape[0], len(labels)
    paths = []
    # the last step is a blank; the labels are at any of the others
    for places in itertools.combinations(range(frames + said - 1), said):
        t, u, total = 0, 0, log_prob.new_zeros(())
        for n in range(frames + said):
            if n in places:
                total, u = total + log_prob[t, u, labels[u]], u + 1
            else:
                total, t = total + log_prob[t, u, blank], t + 1
        paths.append(total)
    return -torch.stack(paths).logsumexp(0)


def ctc_nats(log_prob: Tensor, labels: list[int]) -> Tensor:
    """-log of the sum over all paths that say the labels once repetitions and then blanks (0) are taken out. log_prob:
    (T, V)."""
    frames, size = log_prob.shape
    said = [
        path
        for path in itertools.product(range(size), repeat=frames)
        if [k for k, _ in itertools.groupby(path) if k] == labels
    ]
    paths = [torch.stack([log_prob[t, k] for t, k in enumerate(path)]).sum() for path in said]
    return -torch.stack(paths).logsumexp(0)
