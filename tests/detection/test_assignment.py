"""Anchors, and which of them learn what; the networks' parts and counts; losses of every kind of image."""

from __future__ import annotations

import pytest
import torch

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec, SceneSpec
from lightning_modules.detection.detector import Detector
from lightning_modules.detection.networks.anchors import (
    IGNORED,
    NEGATIVE,
    anchors_of,
    match_anchors,
    match_proposals,
    sample,
)
from lightning_modules.detection.networks.head import cover
from lightning_modules.detection.networks.rpn import Objects, RPNSettings, decode, propose

DIGITS = SceneSpec(3, 128, 128, 256, 10, tuple("0123456789"), boxes=6)
SMALL = SceneSpec(3, 48, 40, 256, 2, ("a", "b"), boxes=3)
SIZES = {"widths": [4, 5, 6], "channels": 8, "hidden": 8}
NOTHING = torch.zeros(0, 4)


def count(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameters_are_the_counted_ones():
    network = Detector(DIGITS)
    assert count(network) == 1_981_029 and count(network.head.hidden) == 868_864
    with torch.device("meta"):
        paper = Detector(DIGITS, backbone="resnet50", channels=256, levels=5, hidden=1024)
    assert count(paper.backbone) == 23_508_032  # torchvision's ResNet-50 without its classifier
    assert paper.pyramid.strides == [4, 8, 16, 32, 64]
    sizes = [(128 // stride, 128 // stride) for stride in paper.pyramid.strides]
    assert len(anchors_of(sizes, paper.pyramid.strides, 8, [0.5, 1, 2])) == 3 * (1024 + 256 + 64 + 16 + 4)


def test_anchors():
    found = anchors_of([(2, 3), (1, 1)], [4, 8], 6, [0.5, 1.0, 2.0])
    assert found.shape == (21, 4) and found[1].tolist() == [2 - 12, 2 - 12, 2 + 12, 2 + 12]
    sides = found[:, 2:] - found[:, :2]
    assert sides.prod(1).tolist() == pytest.approx([24.0**2] * 18 + [48.0**2] * 3)
    assert (sides[0, 0] / sides[0, 1]).item() == pytest.approx(2) and (found[3, :2] - found[0, :2]).tolist() == [4, 0]
    assert ((found[18:, :2] + found[18:, 2:]) / 2).unique().item() == pytest.approx(4)
    assert len(anchors_of([(32, 32), (16, 16), (8, 8)], [4, 8, 16], 6, [0.5, 1, 2])) == 4032


def test_each_rule_of_the_anchors():
    truth = torch.tensor([[0.0, 0, 10, 10], [100, 100, 110, 110], [200, 200, 210, 210]])
    anchors = torch.tensor([
        [0.0, 0, 10, 8],       # 0.8 with the first: positive
        [0, 0, 10, 5],         # 0.5: neither
        [0, 0, 10, 2],         # 0.2: negative
        [100, 100, 110, 104],  # 0.4, the second's best: positive
        [100, 106, 110, 110],  # 0.4 too, a tie: positive
        [200, 200, 210, 202],  # 0.2, the third's best, but below 0.3: negative
        [50, 50, 60, 60],      # background
    ])  # fmt: skip
    found = match_anchors(anchors, truth, NOTHING)
    assert found.tolist() == [0, IGNORED, NEGATIVE, 1, 1, NEGATIVE, NEGATIVE]
    assert (match_anchors(anchors, NOTHING, NOTHING) == NEGATIVE).all()


def test_inside_a_difficult_object_nothing_is_learnt():
    anchors = torch.tensor([[0.0, 0, 10, 10], [2, 2, 8, 8], [7, 0, 17, 10], [30, 30, 40, 40]])
    difficult = torch.tensor([[0.0, 0, 10, 10]])
    assert match_anchors(anchors, NOTHING, difficult).tolist() == [IGNORED, IGNORED, NEGATIVE, NEGATIVE]
    assert match_anchors(anchors, anchors[1:2], difficult)[1] == 0  # what is positive stays so


def test_proposals():
    iou, covered = torch.tensor([[0.6, 0.2], [0.1, 0.4], [0.5, 0.9]]), torch.tensor([[0.9], [0.6], [0.0]])
    assert match_proposals(iou, covered).tolist() == [0, IGNORED, 1]
    assert match_proposals(torch.zeros(2, 0), torch.zeros(2, 0)).tolist() == [NEGATIVE] * 2
    boxes = torch.tensor([[5.0, 5, 10, 10, 0], [5, 5, 4, 4, 0]])
    assert cover(boxes, boxes[:1]).flatten().tolist() == pytest.approx([1, 1])
    assert cover(boxes, boxes[1:]).flatten().tolist() == pytest.approx([0.16, 1])


def test_samples():
    matches = torch.tensor([0] * 20 + [NEGATIVE] * 20 + [IGNORED] * 5)
    positive, negative = sample(matches, 16, 0.25)
    assert len(positive) == 4 and len(negative) == 12 and (matches[positive] == 0).all()
    assert (matches[negative] == NEGATIVE).all() and len(negative.unique()) == 12
    positive, negative = sample(matches[18:], 16, 0.5)
    assert len(positive) == 2 and len(negative) == 14  # negatives fill what positives leave


def test_proposals_are_thinned_level_by_level():
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10.5], [50, 50, 60, 60], [0, 0, 10, 10], [0, 0, 9, 9]])
    offsets = torch.zeros(1, 5, 4)
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.6, float("nan")]])
    found = propose(scores, offsets, anchors, [3, 2], RPNSettings())[0]
    assert found[:, 0].tolist() == [
        5,
        55,
        5,
    ]  # the second is covered, the fourth is another level's, the last no number
    assert decode(offsets[0], anchors)[0][1].tolist() == [5, 5.25, 10, 10.5, 0]
    assert propose(scores, torch.full((1, 5, 4), torch.nan), anchors, [3, 2], RPNSettings())[0].shape == (0, 5)


def objects(*boxes, difficult=()):
    rows = torch.tensor(boxes).view(-1, 5)
    hard = torch.tensor([place in difficult for place in range(len(rows))], dtype=torch.bool)
    return Objects(rows, torch.zeros(len(rows), dtype=torch.int64), hard)


@pytest.mark.parametrize("kind", ["oriented", "upright_proposals", "upright"])
def test_every_image_trains(kind):
    """With objects, with none, with a difficult one alone."""
    network = Detector(SMALL, kind=kind, **SIZES)
    images = torch.randint(0, 256, (3, 3, 48, 40), dtype=torch.uint8)
    box = [20.0, 20, 24, 12, 0.5]
    parts = network.losses(images, [objects(box), objects(), objects(box, difficult=[0])])
    assert all(part.shape == (3,) and part.isfinite().all() for part in parts.values())
    assert (parts["rpn_box"][1:] == 0).all() and (parts["head_box"][1:] == 0).all()
    assert parts["rpn_box"][0] > 0 and parts["rpn_class"].min() > 0
    sum(parts.values()).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    network.eval()
    detections, proposals = network.detect(images)
    assert len(detections) == 3 and all(found.shape[1] == 7 for found in detections)
    upright = kind != "oriented"
    assert (proposals[0][:, 4] == 0).all() if upright else (proposals[0][:, 4] != 0).any()


def test_no_proposals_at_all():
    network = Detector(SMALL, **SIZES).eval()
    network.rpn.score.bias.data.fill_(torch.nan)
    detections, proposals = network.detect(torch.zeros(2, 3, 48, 40))
    assert [found.shape for found in detections] == [(0, 7)] * 2 and len(proposals[0]) == 0
    network.train()
    parts = network.losses(torch.zeros(2, 3, 48, 40), [objects(), objects()])
    assert (parts["head_class"] == 0).all()


@pytest.mark.parametrize("shape", [(33, 47), (64, 31)])
def test_any_side_passes(shape):
    network = Detector(SMALL, **SIZES).eval()
    scores, offsets = network(torch.zeros(1, 3, *shape, dtype=torch.uint8))
    assert len(network.anchors(network.maps(torch.zeros(1, 3, *shape)))[0]) == scores.shape[1] == offsets.shape[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "turned"}, "must be one of oriented, upright_proposals, upright"),
        ({"backbone": "vgg"}, "must be small or resnet50"),
        ({"widths": []}, "list of widths"),
        ({"levels": 0}, "whole number of maps"),
        ({"ratios": [1, -1]}, "ratios above 0"),
        ({"nms": 1.5}, "from 0 to 1"),
        ({"hidden": 0}, "whole number from 1"),
        ({"rpn": {"samples": None}}, r"model\.rpn\.samples is None"),
        ({"rpn": {"negative": 0.8}}, "must not be above"),
        ({"roi": {"extend": [1]}}, "two factors above 0"),
    ],
)
def test_what_cannot_be_is_said(settings, message):
    with pytest.raises(UsageError, match=message):
        Detector(SMALL, **settings)


def test_data_without_boxes_is_refused():
    with pytest.raises(UsageError, match=r"data=digit_scenes"):
        Detector(ImageSpec(1, 8, 8, 17, 10))
    with pytest.raises(UsageError, match="masks only"):
        Detector(SceneSpec(3, 48, 40, 256, 2, ("a", "b"), background=True))
