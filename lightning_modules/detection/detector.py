"""Oriented R-CNN (arXiv 2108.05699), and two detectors of the same parts that see upright boxes only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from datamodules.spec import Spec, require_boxes
from lightning_modules.detection.geometry.boxes import outer_boxes, upright_as_rotated
from lightning_modules.detection.geometry.roi_align import pyramid_align
from lightning_modules.detection.networks.anchors import anchors_of
from lightning_modules.detection.networks.checks import (
    ABOVE,
    COUNTS,
    KINDS,
    LEVELS,
    SHARES,
    WIDTHS,
    check_choices,
    check_numbers,
    check_parts,
)
from lightning_modules.detection.networks.head import BoxHead, RoISettings, answers, choose, head_losses
from lightning_modules.detection.networks.pyramid import Pyramid, ResNet50, SmallBackbone, scaled
from lightning_modules.detection.networks.rpn import Objects, RPNHead, RPNSettings, propose, rpn_losses


class Detector(nn.Module):
    """Images (B, C, H, W) → objectness of the anchors (B, N) and their offsets (B, N, 6 or 4); `detect` gives boxes.

    A pyramid on a backbone; a region proposal network that names boxes by midpoint offsets; rotated RoIAlign; two
    hidden layers, then a class and a finer box for each proposal. At the default sizes and ten classes 1,981,029
    parameters. `kind`:

    - oriented: Oriented R-CNN.
    - upright_proposals: the RPN gives upright boxes, the head turns them ("rotated Faster R-CNN").
    - upright: Faster R-CNN; objects are taught as their outer boxes, and outer boxes are the answer.

    Deviations from the paper: difficult objects are not learnt; a small backbone whose batch normalisation trains.

    Args:
        spec: images with boxes.
        backbone: small (`stem`, `widths`) or resnet50.
        channels: of the pyramid, and of the RPN.
        levels: maps of the pyramid.
        anchor_scale, ratios: see `anchors_of`.
        hidden: width of the head.
        rpn, roi: see `RPNSettings`, `RoISettings`.
        score_min, nms, most: see `head.answers`.
        train_difficult: objects marked difficult are learnt like others.

    Raises:
        UsageError: the data has no boxes, or a setting is impossible.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        kind: str = "oriented",
        backbone: str = "small",
        stem: int = 32,
        widths: Sequence[int] = (48, 96, 128),
        channels: int = 64,
        levels: int = 3,
        anchor_scale: float = 6,
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        hidden: int = 256,
        rpn: Mapping[str, Any] | None = None,
        roi: Mapping[str, Any] | None = None,
        score_min: float = 0.05,
        nms: float = 0.1,
        most: int = 100,
        train_difficult: bool = False,
    ):
        super().__init__()
        self.spec = require_boxes(spec, "The detector")
        check_choices(kind, backbone, widths, ratios)
        check_numbers("model", {"nms": nms, "score_min": score_min}, SHARES)
        check_numbers("model", {"stem": stem, "channels": channels, "hidden": hidden}, WIDTHS)
        check_numbers("model", {"most": most}, COUNTS)
        check_numbers("model", {"levels": levels}, LEVELS)
        check_numbers("model", {"anchor_scale": anchor_scale}, ABOVE)
        rpn, roi = RPNSettings(**(rpn or {})), RoISettings(**(roi or {}))
        check_parts(rpn, roi)
        self.kind, self.train_difficult = kind, train_difficult
        self.anchor_scale, self.ratios = anchor_scale, list(ratios)
        self.score_min, self.nms, self.most = score_min, nms, most
        self.rpn_settings, self.roi_settings = rpn, roi
        offsets = KINDS[kind]
        self.backbone = SmallBackbone(spec.channels, stem, widths) if backbone == "small" else ResNet50(spec.channels)
        self.pyramid = Pyramid(self.backbone, channels, levels)
        self.rpn = RPNHead(channels, len(self.ratios), offsets[0])
        self.head = BoxHead(channels * self.roi_settings.size**2, hidden, spec.classes, offsets[1])
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.rpn(self.maps(images))

    def maps(self, images: Tensor) -> list[Tensor]:
        return self.pyramid(self.backbone(scaled(images, self.spec.levels)))

    def losses(self, images: Tensor, objects: Sequence[Objects]) -> dict[str, Tensor]:
        """Of each image (B,): `rpn_class`, `rpn_box`, `head_class` and `head_box`, which training adds up."""
        objects = [self.taught(found) for found in objects]
        maps = self.maps(images)
        scores, offsets = self.rpn(maps)
        anchors, by_level = self.anchors(maps)
        rpn = rpn_losses(scores, offsets, anchors, objects, images.shape[2:], self.rpn_settings)
        proposals = propose(scores, offsets, anchors, by_level, self.rpn_settings)
        learnt = choose(proposals, objects, self.spec.classes, self.kind != "oriented", self.roi_settings)
        head = head_losses(*self.read(maps, learnt.boxes, learnt.images), learnt, len(images))
        return dict(zip(("rpn_class", "rpn_box", "head_class", "head_box"), (*rpn, *head), strict=True))

    @torch.no_grad()
    def detect(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Of each image its detections (D, 7), best first: cx, cy, w, h, θ, score, class; and its proposals (P, 5)."""
        maps = self.maps(images)
        proposals = propose(*self.rpn(maps), *self.anchors(maps), self.rpn_settings)
        counts = [len(own) for own in proposals]
        places = torch.arange(len(images), device=images.device)
        owner = places.repeat_interleave(torch.tensor(counts, device=images.device))
        logits, offsets = self.read(maps, torch.cat(proposals), owner)
        parts = zip(logits.split(counts), offsets.split(counts), proposals, strict=True)
        return [answers(*part, self.score_min, self.nms, self.most) for part in parts], proposals

    def taught(self, found: Objects) -> Objects:
        """An image's objects as this kind of detector learns them."""
        if self.train_difficult:
            found = found._replace(difficult=torch.zeros_like(found.difficult))
        return found if self.kind != "upright" else found._replace(boxes=upright_as_rotated(outer_boxes(found.boxes)))

    def anchors(self, maps: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
        """The anchors (N, 4) of these maps, and how many each map has."""
        sizes = [tuple(level.shape[2:]) for level in maps]
        found = anchors_of(sizes, self.pyramid.strides, self.anchor_scale, self.ratios)
        return found.to(maps[0].device), [height * width * len(self.ratios) for height, width in sizes]

    def read(self, maps: Sequence[Tensor], boxes: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """The head's logits and offsets of proposals (K, 5), each on the map of its size."""
        settings = self.roi_settings
        size = (boxes[:, 2] * boxes[:, 3]).sqrt()
        levels = (size / settings.finest).clamp(min=1).log2().floor().long().clamp(max=len(maps) - 1)
        wider = boxes * boxes.new_tensor([1, 1, *settings.extend, 1])
        with torch.autocast(boxes.device.type, enabled=False):
            floats = [level.float() for level in maps]
            features = pyramid_align(
                floats, wider, images, levels, self.pyramid.strides, settings.size, settings.sampling
            )
        return self.head(features)
