"""Severities, the loss weighted by them, the network's heads, and what cannot be."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec, spec_from_dict, spec_to_dict
from lightning_modules.multitask import Multitask, MultitaskCNN
from lightning_modules.multitask.severity import severity_matrices, weighted_cross_entropy

SUPERS, GROUPS = (0, 1, 0, 2, 1), (0, 0, 0, 1, 0)
SPEC = ImageSpec(1, 8, 9, 17, classes=5, supers=SUPERS, groups=GROUPS)


def test_matrices_are_the_hierarchys_distances():
    fine, supers, groups = severity_matrices(SUPERS, GROUPS)
    expected = [[0, 2, 1, 3, 2], [2, 0, 2, 3, 1], [1, 2, 0, 3, 2], [3, 3, 3, 0, 3], [2, 1, 2, 3, 0]]
    assert fine.tolist() == expected
    assert supers.tolist() == [[0, 2, 3], [2, 0, 3], [3, 3, 0]]
    assert groups.tolist() == [[0, 3], [3, 0]]


def test_the_loss_counts_each_image_by_its_mistake():
    fine = severity_matrices(SUPERS, GROUPS)[0]
    labels, taken = torch.tensor([0, 0, 0, 0]), torch.tensor([0, 2, 1, 3])  # right, superclass, group, across
    logits = torch.randn(4, 5, dtype=torch.float64)
    logits[torch.arange(4), taken] += 10
    losses = F.cross_entropy(logits, labels, reduction="none")
    weights = torch.tensor([1.0, 2.0, 5.0, 9.0], dtype=torch.float64)
    found = weighted_cross_entropy(logits, labels, fine, weights)
    assert found.item() == pytest.approx((losses[0] + 2 * losses[1] + 5 * losses[2] + 9 * losses[3]).item() / 17)
    plain = weighted_cross_entropy(logits, labels, fine, None)
    assert plain.item() == pytest.approx(losses.mean().item())
    assert weighted_cross_entropy(logits, labels, fine, torch.ones(4)).item() == pytest.approx(plain.item())


def test_heads_share_a_backbone():
    network = MultitaskCNN(SPEC, widths=[4, 6], hidden=5)
    outputs = network.eval()(torch.randint(0, 17, (3, 1, 8, 9), dtype=torch.uint8))
    assert [tuple(output.shape) for output in outputs] == [(3, 5), (3, 3), (3, 2)]
    sum(output.sum() for output in outputs).backward()
    assert network.backbone[0][0][0].weight.grad.abs().sum() > 0
    published = ImageSpec(3, 32, 32, 256, classes=100, supers=(19,) * 100, groups=(8,) * 100)
    assert sum(parameter.numel() for parameter in MultitaskCNN(published).parameters()) == 3_550_913


def test_a_spec_with_labels_goes_through_a_checkpoint():
    assert spec_from_dict({**spec_to_dict(SPEC), "supers": list(SUPERS)}) == SPEC and hash(SPEC)


@pytest.mark.parametrize("severity", [(1.0, 2.0), (3.0, 2.0, 1.0), (0.5, 1.0, 2.0)])
def test_severities_must_grow(severity):
    with pytest.raises(UsageError, match="three growing numbers"):
        Multitask(MultitaskCNN(SPEC, widths=[4]), None, None, severity=severity)


def test_what_cannot_be_is_said():
    with pytest.raises(UsageError, match=r"no superclasses and groups.*data=digit_shapes"):
        MultitaskCNN(ImageSpec(1, 8, 8, 17, 10))
    with pytest.raises(UsageError, match="halves images 4 times, which 8×9 does not allow"):
        MultitaskCNN(SPEC, widths=[4, 4, 4, 4])
    with pytest.raises(UsageError, match="must be 1 or more"):
        MultitaskCNN(SPEC, widths=[4, 0])
