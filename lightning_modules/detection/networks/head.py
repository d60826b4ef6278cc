"""The second stage: each proposal's class, and its box made exact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.detection.geometry.boxes import outer_boxes, upright_as_rotated, valid
from lightning_modules.detection.geometry.coding import decode_head, encode_head
from lightning_modules.detection.geometry.iou import rotated_iou
from lightning_modules.detection.geometry.nms import rotated_nms
from lightning_modules.detection.networks.anchors import match_proposals, sample
from lightning_modules.detection.networks.rpn import Objects

CANDIDATES = 1000  # an image's best answers, which go on to be thinned


class RoISettings(NamedTuple):
    """How proposals are read and learnt.

    size, sampling: bins, and samples in a bin, each way.
    finest: √(w·h) in px from whose double on a proposal reads the second map, from its fourfold the third …
    extend: what a proposal's w and h are multiplied by before it is read.
    positive: IoU from which on a proposal learns an object.
    samples, share: proposals an image that learn, and at most which share of them positive.
    """

    size: int = 7
    sampling: int = 2
    finest: float = 16
    extend: tuple[float, float] = (1.0, 1.0)
    positive: float = 0.5
    samples: int = 32
    share: float = 0.5


class BoxHead(nn.Module):
    """Features (K, C, S, S) → logits (K, classes + 1), background last, and offsets (K, 5 or 4)."""

    def __init__(self, inputs: int, hidden: int, classes: int, offsets: int):
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.score, self.box = nn.Linear(hidden, classes + 1), nn.Linear(hidden, offsets)
        nn.init.normal_(self.score.weight, std=0.01)
        nn.init.normal_(self.box.weight, std=0.001)
        nn.init.zeros_(self.score.bias)
        nn.init.zeros_(self.box.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.hidden(features.flatten(1))
        with torch.autocast(hidden.device.type, enabled=False):  # a class and a place are told in full precision
            return self.score(hidden.float()), self.box(hidden.float())


class Learnt(NamedTuple):
    """Proposals that learn: boxes (K, 5), image (K,), target class (K,), target box (K, 5), objects' where positive."""

    boxes: Tensor
    images: Tensor
    classes: Tensor
    targets: Tensor


@torch.no_grad()
def choose(
    proposals: Sequence[Tensor], objects: Sequence[Objects], background: int, upright: bool, settings: RoISettings
) -> Learnt:
    """Which of each image's proposals learn what; the objects' own boxes are added to the proposals.

    Args:
        background: the class of no object.
        upright: proposals are upright: they are matched with outer boxes.
    """
    parts = []
    for image, (own, found) in enumerate(zip(proposals, objects, strict=True)):
        learnt = ~found.difficult
        compared = upright_as_rotated(outer_boxes(found.boxes)) if upright else found.boxes
        own = torch.cat([own, compared[learnt]])
        matches = match_proposals(
            rotated_iou(own, compared[learnt]), cover(own, compared[found.difficult]), settings.positive
        )
        positive, negative = sample(matches, settings.samples, settings.share)
        chosen = torch.cat([positive, negative])
        classes = torch.full((len(chosen),), background, device=own.device)
        classes[: len(positive)] = found.classes[learnt][matches[positive]]
        targets = own[chosen].clone()
        targets[: len(positive)] = found.boxes[learnt][matches[positive]]
        parts.append((own[chosen], torch.full_like(classes, image), classes, targets))
    return Learnt(*(torch.cat(part) for part in zip(*parts, strict=True)))


def cover(boxes: Tensor, others: Tensor) -> Tensor:
    """The share of each box (N, 5) that lies in each of the others (M, 5): (N, M)."""
    iou = rotated_iou(boxes, others)
    areas = (boxes[:, 2] * boxes[:, 3])[:, None], others[:, 2] * others[:, 3]
    return iou * (areas[0] + areas[1]) / (1 + iou) / areas[0].clamp(min=1e-9)


def head_losses(logits: Tensor, offsets: Tensor, learnt: Learnt, images: int) -> tuple[Tensor, Tensor]:
    """Of each image (B,) the cross-entropy and the smooth L1 loss of positives, both over its proposals sampled."""
    positive = learnt.classes < logits.shape[1] - 1
    classing = F.cross_entropy(logits, learnt.classes, reduction="none")
    wanted = encode_head(learnt.targets[positive], learnt.boxes[positive])[:, : offsets.shape[1]]
    placing = torch.zeros_like(classing)
    placing[positive] = F.smooth_l1_loss(offsets[positive], wanted, reduction="none").sum(1)
    counts = torch.bincount(learnt.images, minlength=images).clamp(min=1)
    zeros = classing.new_zeros(images)
    return zeros.index_add(0, learnt.images, classing) / counts, zeros.index_add(0, learnt.images, placing) / counts


@torch.no_grad()
def answers(logits: Tensor, offsets: Tensor, proposals: Tensor, score_min: float, nms: float, most: int) -> Tensor:
    """One image's detections (D, 7), the best first: cx, cy, w, h, θ, score, class.

    Args:
        score_min: answers below it are left out.
        nms: IoU above which a better answer of the same class drops one.
        most: detections kept.
    """
    boxes = decode_head(F.pad(offsets, (0, 5 - offsets.shape[1])), proposals)
    scores = logits.softmax(1)[:, :-1]
    place, classes = torch.where((scores > score_min) & valid(boxes)[:, None])
    scores = scores[place, classes]
    best = scores.argsort(descending=True, stable=True)[:CANDIDATES]
    boxes, scores, classes = boxes[place[best]], scores[best], classes[best]
    kept = rotated_nms(boxes, scores, nms, classes)[:most]
    return torch.cat([boxes[kept], scores[kept, None], classes[kept, None].to(boxes.dtype)], 1)
