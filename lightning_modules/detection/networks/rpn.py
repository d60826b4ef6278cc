"""The region proposal network: which anchors show an object, and the box it lies in, rotated or upright."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import nms

from lightning_modules.detection.geometry.boxes import outer_boxes, valid
from lightning_modules.detection.geometry.coding import decode_midpoints, encode_midpoints
from lightning_modules.detection.networks.anchors import match_anchors, sample

BETA = 1 / 9  # of the smooth L1 loss


class Objects(NamedTuple):
    """One image's objects: canonical boxes (M, 5), their classes (M,), and whether each is difficult (M,)."""

    boxes: Tensor
    classes: Tensor
    difficult: Tensor


class RPNSettings(NamedTuple):
    """How proposals are made and learnt.

    positive, negative: IoU of an anchor with an outer box, see `match_anchors`.
    samples: anchors an image that learn, at most half of them positive.
    border: pixels that an anchor may lie beyond the image and still learn; None: any.
    before, nms, proposals: of each level the best so many, less those that a better one covers (upright IoU), and of
        all levels together the best so many.
    """

    positive: float = 0.7
    negative: float = 0.3
    samples: int = 128
    border: float | None = None
    before: int = 150
    nms: float = 0.8
    proposals: int = 100


class RPNHead(nn.Module):
    """Maps (B, C, H, W) → objectness (B, N) and offsets (B, N, 6 or 4), of N anchors in the order of `anchors_of`."""

    def __init__(self, width: int, anchors: int, offsets: int):
        super().__init__()
        self.offsets = offsets
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.score, self.box = nn.Conv2d(width, anchors, 1), nn.Conv2d(width, anchors * offsets, 1)
        for layer in (self.conv, self.score, self.box):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        hidden = [F.relu(self.conv(level)) for level in maps]
        scores = [self.score(level).permute(0, 2, 3, 1).flatten(1) for level in hidden]
        boxes = [self.box(level).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, self.offsets)) for level in hidden]
        return torch.cat(scores, 1).float(), torch.cat(boxes, 1).float()


def encode(boxes: Tensor, anchors: Tensor, offsets: int) -> Tensor:
    """Midpoint offsets, or of their outer boxes' four alone."""
    return encode_midpoints(boxes, anchors)[..., :offsets]


def decode(offsets: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Proposals (…, 5) and their outer boxes (…, 4). Four offsets name an upright box, which keeps its own reading:
    w across, h down, θ = 0."""
    if offsets.shape[-1] == 6:
        return decode_midpoints(offsets, anchors)
    _, outer = decode_midpoints(F.pad(offsets, (0, 2)), anchors)
    first, last = outer[..., :2], outer[..., 2:]
    return torch.cat([(first + last) / 2, last - first, torch.zeros_like(first[..., :1])], -1), outer


def rpn_losses(
    scores: Tensor,
    offsets: Tensor,
    anchors: Tensor,
    objects: Sequence[Objects],
    shape: tuple[int, int],
    settings: RPNSettings,
) -> tuple[Tensor, Tensor]:
    """Of each image (B,) the cross-entropy and the smooth L1 loss of positives, both over the anchors sampled.

    Args:
        shape: the images' height and width.
    """
    usable = torch.arange(len(anchors), device=anchors.device)
    if settings.border is not None:
        last = anchors.new_tensor([shape[1], shape[0]]) + settings.border
        usable = torch.where((anchors[:, :2] >= -settings.border).all(1) & (anchors[:, 2:] <= last).all(1))[0]
    classing, placing = [], []
    for own_scores, own_offsets, found in zip(scores, offsets, objects, strict=True):
        outer = outer_boxes(found.boxes)
        learnt = ~found.difficult
        matches = match_anchors(
            anchors[usable], outer[learnt], outer[found.difficult], settings.positive, settings.negative
        )
        positive, negative = sample(matches, settings.samples, 0.5)
        truths = found.boxes[learnt][matches[positive]]
        positive, negative = usable[positive], usable[negative]
        count = max(1, len(positive) + len(negative))
        chosen = torch.cat([own_scores[positive], own_scores[negative]])
        target = torch.zeros_like(chosen)
        target[: len(positive)] = 1
        classing.append(F.binary_cross_entropy_with_logits(chosen, target, reduction="sum") / count)
        wanted = encode(truths, anchors[positive], offsets.shape[-1])
        placing.append(F.smooth_l1_loss(own_offsets[positive], wanted, reduction="sum", beta=BETA) / count)
    return torch.stack(classing), torch.stack(placing)


@torch.no_grad()
def propose(
    scores: Tensor, offsets: Tensor, anchors: Tensor, by_level: Sequence[int], settings: RPNSettings
) -> list[Tensor]:
    """Of each image its proposals (P, 5), the best first; those without area or with numbers not finite are left out.

    Args:
        by_level: how many of the anchors each level has.
    """
    picked, levels, start = [], [], 0
    for level, count in enumerate(by_level):
        best = scores[:, start : start + count].topk(min(settings.before, count)).indices + start
        picked.append(best)
        levels.append(torch.full_like(best, level))
        start += count
    picked, levels = torch.cat(picked, 1), torch.cat(levels, 1)
    boxes, outer = decode(offsets.gather(1, picked[..., None].expand(-1, -1, offsets.shape[-1])), anchors[picked])
    found = []
    for own, around, score, level in zip(boxes, outer, scores.gather(1, picked), levels, strict=True):
        good = valid(own) & score.isfinite()
        own, around, score, level = own[good], around[good], score[good], level[good]
        found.append(own[thinned(around, score, level, settings.nms)[: settings.proposals]])
    return found


def thinned(boxes: Tensor, scores: Tensor, levels: Tensor, threshold: float) -> Tensor:
    """Indices of the upright boxes (P, 4) that no better one of their level covers, the best first."""
    # Level by level: torchvision's `batched_nms` compares pairs of different levels too, which takes twice as long.
    own = [torch.where(levels == level)[0] for level in levels.unique()]
    kept = torch.cat([levels[:0], *(places[nms(boxes[places], scores[places], threshold)] for places in own)])
    return kept[scores[kept].argsort(descending=True, stable=True)]
