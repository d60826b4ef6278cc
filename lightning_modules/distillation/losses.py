"""How far the student is from the teacher, on logits (B, classes)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.errors import UsageError

LOSSES = ("l1", "mse", "kl")


def discrepancy(teacher: Tensor, student: Tensor, loss: str = "l1", temperature: float = 1.0) -> Tensor:
    """The mean over a batch, in float32.

    - `l1`: (1/classes) Σ |t − s| before the softmax (1912.11006, equations 3 to 5);
    - `mse`: the same of squares;
    - `kl`: T² KL(softmax(t/T) ‖ softmax(s/T)) at temperature T, whose gradient vanishes as s nears t (section 3.3).
    """
    teacher, student = at_least_float(teacher), at_least_float(student)
    if loss == "l1":
        return F.l1_loss(student, teacher)
    if loss == "mse":
        return F.mse_loss(student, teacher)
    if loss == "kl":
        soft = (teacher / temperature).log_softmax(1), (student / temperature).log_softmax(1)
        return temperature**2 * F.kl_div(soft[1], soft[0], reduction="batchmean", log_target=True)
    raise UsageError(f"task.module.loss is {loss}, but it must be one of {', '.join(LOSSES)}.")


def hinton(teacher: Tensor, student: Tensor, labels: Tensor, temperature: float = 4.0, share: float = 0.9) -> Tensor:
    """`share` of the divergence from the teacher, the rest of the cross-entropy with the labels.

    Source: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531, section 2.
    """
    soft = discrepancy(teacher, student, "kl", temperature)
    return share * soft + (1 - share) * F.cross_entropy(at_least_float(student), labels)


def class_entropy(classes: Tensor, count: int) -> Tensor:
    """Entropy in nats of how often each class occurs among `classes` (N,): ln(count) in balance, 0 of one class."""
    shares = torch.bincount(classes, minlength=count).double() / len(classes)
    return -torch.special.xlogy(shares, shares).sum()


def at_least_float(x: Tensor) -> Tensor:
    """In half precision a difference of logits of 10 to 30 has few digits left."""
    return x if x.dtype == torch.float64 else x.float()
