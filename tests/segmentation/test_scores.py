"""Mean IoU from one confusion matrix, void nowhere, boundaries, and weights of classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix
from torchmetrics.classification import MulticlassJaccardIndex

from lightning_modules.segmentation.scores import (
    boundary_counts,
    boundary_f1,
    class_weights,
    confusions,
    ious,
    mean_iou,
    scores,
    tolerance,
)

VOID = 11


def drawn(items: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(0, 12, (items, 20, 30), generator=generator)
    masks[masks == 4] = VOID  # class 4 is in no mask, 9 neither in a mask nor predicted
    masks[masks == 9] = 2
    predicted = torch.randint(0, 9, (items, 20, 30), generator=generator)
    return predicted, torch.where(torch.rand(masks.shape, generator=generator) < 0.5, predicted, masks)


def test_confusions_are_scikit_learns_however_they_are_batched():
    predicted, masks = drawn()
    found = confusions(predicted, masks, 11, VOID)
    assert found.dtype == torch.int64
    valid = masks != VOID
    expected = confusion_matrix(masks[valid], predicted[valid], labels=range(11))
    np.testing.assert_array_equal(found.sum(0), expected)
    parts = [confusions(predicted[rows], masks[rows], 11, VOID) for rows in (slice(0, 1), slice(1, 4), slice(4, 6))]
    np.testing.assert_array_equal(torch.cat(parts), found)


def test_ious_are_torchmetrics():
    predicted, masks = drawn()
    found = ious(confusions(predicted, masks, 11, VOID).sum(0).numpy())
    each = MulticlassJaccardIndex(11, average=None, ignore_index=VOID)(predicted, masks).numpy()
    there = np.isfinite(found)
    assert not there[9] and there.sum() < 11
    np.testing.assert_allclose(found[there], each[there], rtol=1e-6)
    macro = MulticlassJaccardIndex(11, average="macro", ignore_index=VOID)(predicted, masks).item()
    assert mean_iou(confusions(predicted, masks, 11, VOID).sum(0).numpy()) == pytest.approx(macro, rel=1e-6)


def test_a_hand_made_example():
    """A perfect image, one whose two classes are swapped, one without a label; a third class is nowhere."""
    masks = torch.tensor([[[0, 0, 1, 1]], [[0, 0, 0, 1]], [[3, 3, 3, 3]]])
    predicted = torch.tensor([[[0, 0, 1, 1]], [[1, 1, 1, 0]], [[0, 1, 0, 1]]])
    each = confusions(predicted, masks, 3, 3).numpy()
    assert each[2].sum() == 0
    found = scores(each.sum(0), ["a", "b", "c"])
    assert found == {"classes_counted": 2, "miou": pytest.approx((2 / 6 + 2 / 6) / 2), "pixel_accuracy": 0.5,
                     "class_accuracy": pytest.approx((2 / 5 + 2 / 3) / 2), "fw_iou": pytest.approx(1 / 3),
                     "iou_a": pytest.approx(1 / 3), "iou_b": pytest.approx(1 / 3)}  # fmt: skip
    assert np.isnan(mean_iou(each[2])) and scores(each[2], ["a", "b", "c"]) == {"classes_counted": 0}
    wrong = np.nanmean([mean_iou(own) for own in each])
    assert wrong == pytest.approx(0.5) != found["miou"], "the mean of images' own is another figure"


def test_what_is_predicted_where_nothing_is_labelled_changes_nothing():
    predicted, masks = drawn()
    other = torch.where(masks == VOID, 10 - predicted, predicted)
    assert not torch.equal(predicted, other)
    for figure in (confusions, lambda *given: boundary_counts(*given, 2)):
        torch.testing.assert_close(figure(predicted, masks, 11, VOID), figure(other, masks, 11, VOID))


def brute(predicted: np.ndarray, mask: np.ndarray, number: int, ignore: int, reach: int) -> list[int]:
    def boundary(labels: np.ndarray) -> set[tuple[int, int]]:
        found = set()
        for y, x in np.argwhere((labels == number) & (mask != ignore)):
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                inside = 0 <= v < len(mask) and 0 <= u < mask.shape[1]
                if inside and mask[v, u] != ignore and labels[v, u] != number:
                    found.add((y, x))
        return found

    def near(some: set, others: set) -> int:
        return sum(any(abs(y - v) <= reach and abs(x - u) <= reach for v, u in others) for y, x in some)

    own, true = boundary(predicted), boundary(mask)
    return [len(own), near(own, true), len(true), near(true, own)]


def test_boundaries_are_counted_as_by_hand():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 4, (2, 4, 5))
    masks = np.kron(coarse, np.ones((1, 4, 4), np.int64))
    predicted = np.roll(np.where(masks == 3, 0, masks), 1, 2)
    found = boundary_counts(torch.from_numpy(predicted), torch.from_numpy(masks), 3, 3, 2).numpy()
    for row in range(2):
        for number in range(3):
            assert found[row, number].tolist() == brute(predicted[row], masks[row], number, 3, 2)
    same = boundary_counts(torch.from_numpy(masks), torch.from_numpy(masks), 3, 3, 1).numpy().sum(0)
    assert (boundary_f1(same) == 1).all() and np.isnan(boundary_f1(np.zeros((1, 4)))).all()
    assert (tolerance(360, 480), tolerance(128, 128), tolerance(32, 32)) == (3, 1, 1)


def test_weights_of_classes():
    pixels = np.array([[50, 30, 0, 0], [60, 0, 20, 0]])
    sizes = np.array([100, 100])
    frequency = np.array([110 / 200, 30 / 100, 20 / 100])
    median = np.append(0.3 / frequency, 0)
    np.testing.assert_allclose(class_weights(pixels, sizes, "median"), median)
    np.testing.assert_allclose(class_weights(pixels, sizes, "sqrt_median"), np.sqrt(median))
    shares = np.array([110, 30, 20]) / 160
    np.testing.assert_allclose(class_weights(pixels, sizes, "enet"), np.append(1 / np.log(1.02 + shares), 0))
    assert class_weights(pixels, sizes, "none").tolist() == [1] * 4
