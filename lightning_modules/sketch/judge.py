"""The judge: a classifier of drawings, trained on real ones, which says what the network's own look like."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.loader import Augment
from datamodules.strokes.batches import PadDrawings
from datamodules.strokes.forms import END

log = logging.getLogger(__name__)

BATCH, HIDDEN, LEARNING_RATE = 100, 64, 3e-3


class Judge(nn.Module):
    """A GRU in each direction over a drawing's points (B, T, 5); features (B, 128) are their last states."""

    def __init__(self, classes: int):
        super().__init__()
        self.onward, self.backward = (nn.GRU(5, HIDDEN, batch_first=True) for _ in range(2))
        self.output = nn.Linear(2 * HIDDEN, classes)

    def features(self, strokes: Tensor) -> Tensor:
        lengths = (strokes[..., 2 + END] == 0).sum(1)
        steps = torch.arange(strokes.shape[1])
        turned = (lengths[:, None] - 1 - steps).clamp(min=0)[..., None].expand_as(strokes)
        last = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, HIDDEN)
        both = self.onward(strokes)[0].gather(1, last), self.backward(strokes.gather(1, turned))[0].gather(1, last)
        return torch.cat(both, -1)[:, 0]

    def forward(self, strokes: Tensor) -> Tensor:
        return self.output(self.features(strokes))


class Judges(nn.Module):
    """Several judges as one: the mean of their logarithms of probabilities; features of all of them."""

    def __init__(self, judges: Sequence[Judge]):
        super().__init__()
        self.each = nn.ModuleList(judges)

    def features(self, strokes: Tensor) -> Tensor:
        return torch.cat([judge.features(strokes) for judge in self.each], 1)

    def forward(self, strokes: Tensor) -> Tensor:
        return torch.stack([judge(strokes).log_softmax(1) for judge in self.each]).mean(0)


def folds_of(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The fold (N,) of each drawing, drawn at random, each class spread evenly over all."""
    folds, rng = np.empty(len(labels), int), np.random.default_rng(seed)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        folds[rng.permutation(rows)] = np.arange(len(rows)) % count
    return folds


def train_judge(
    drawings: np.ndarray, labels: np.ndarray, scale: float, classes: int, steps: int, jitter: Augment, seed: int
) -> Judge:
    """A judge of real drawings in stroke-3 (N,) with labels (N,), by so many steps; a function of the seed alone, which
    leaves torch's random state as it was."""
    with torch.random.fork_rng(devices=[]), torch.autocast("cpu", enabled=False):
        torch.manual_seed(seed)
        judge, rng, collate = Judge(classes), np.random.default_rng(seed), PadDrawings(scale)
        optimizer = torch.optim.Adam(judge.parameters(), LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=max(steps, 2))
        for _ in range(steps):
            rows = rng.choice(len(drawings), min(BATCH, len(drawings)), replace=False)
            batch = collate(jitter((drawings[rows], labels[rows]), rng, rows, 0), rows, 0)
            loss = F.cross_entropy(judge(batch.strokes), batch.labels)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(judge.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return judge.eval()


@torch.no_grad()
def judged(judge: nn.Module, strokes: Tensor, size: int = 500) -> Tensor:
    """The class (B,) that the judge sees in each drawing."""
    return torch.cat([judge(part).argmax(1) for part in strokes.split(size)])


@torch.no_grad()
def features_of(judge: Judge | Judges, strokes: Tensor, size: int = 500) -> Tensor:
    return torch.cat([judge.features(part) for part in strokes.split(size)])
