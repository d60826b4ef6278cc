"""Average precision against DOTA_devkit's rules, a hand-made example, and the other figures."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lightning_modules.detection.average_precision import (
    DUPLICATE,
    FALSE,
    NEITHER,
    TRUE,
    angle_errors,
    area,
    best_of,
    by_aspect,
    class_figures,
    curve,
    errors,
    judge,
    summary,
    verdicts,
)
from lightning_modules.detection.geometry.boxes import corners
from lightning_modules.detection.oracles import outer_answers, shrunk_answers
from tests.detection.voc import random_scenes, voc_eval


@pytest.mark.parametrize("upright", [True, False])
@pytest.mark.parametrize("threshold", [0.5, 0.75])
def test_equals_the_devkits(upright, threshold):
    detections, truths = random_scenes(12, 3, upright)
    found = class_figures(judge(detections, truths), threshold)
    assert sorted(found) == [0, 1, 2]
    for name, both in found.items():
        for value, eleven in zip(both, (False, True), strict=True):
            assert value == pytest.approx(voc_eval(detections, truths, name, threshold, eleven), abs=1e-12)
    assert 0.05 < found[0][0] < 0.95


def row(x, *rest):
    return [x, 10.0, 8.0, 4.0, 0.3, *rest]


def test_a_hand_made_example():
    """Three objects to find and a difficult one: found; found twice; missed; the difficult one found, and nothing."""
    truths = [np.array([row(10, 0, 0), row(40, 0, 0), row(70, 0, 0), row(100, 0, 1)])]
    detections = [np.array([row(10, 0.9, 0), row(40, 0.8, 0), row(40.5, 0.7, 0), row(100, 0.6, 0), row(200, 0.5, 0)])]
    judged = judge(detections, truths)
    assert verdicts(judged, 0.5).tolist() == [TRUE, TRUE, DUPLICATE, NEITHER, FALSE]
    points = curve(verdicts(judged, 0.5), 3)
    assert area(points) == pytest.approx(2 / 3) and points.precision[-1] == 0.5
    assert class_figures(judged, 0.5)[0][1] == pytest.approx(7 / 11)  # recalls 0 … 0.6
    assert errors(judged) == {
        "right": 2, "poor box": 0, "wrong class": 0, "duplicate": 1, "background": 1, "missed": 1,
    }  # fmt: skip
    assert errors(judge(best_of([detections[0][:, :]], [truths[0][:1]]), truths))["missed"] == 2


def test_a_detection_of_another_class_is_no_match():
    judged = judge([np.array([row(10, 0.9, 1)])], [np.array([row(10, 0, 0)])])
    assert verdicts(judged, 0.5).tolist() == [FALSE] and errors(judged)["wrong class"] == 1
    assert class_figures(judged, 0.5) == {0: (0.0, 0.0)}  # class 1 has no object


def test_angles_are_modulo_half_a_turn_and_of_squares_a_quarter():
    truth = np.array([[10, 10, 8, 4, -1.5, 0, 0], [40, 10, 8, 8, 0.1, 0, 0]])
    found = np.array([[10, 10, 8, 4, 1.5, 0.9, 0], [40, 10, 8, 8, 0.1 - math.pi / 2, 0.8, 0]])
    judged = judge([found], [truth])
    degrees, directed = angle_errors(judged, verdicts(judged, 0.5) == TRUE)
    assert directed.tolist() == [True, False]
    assert degrees == pytest.approx([math.degrees(math.pi - 3), 0], abs=1e-9)


def test_summary_of_the_truth_is_perfect():
    _, truths = random_scenes(10, 4, False)
    answers = [np.concatenate([own[:, :5], np.ones((len(own), 1)), own[:, 5:6]], 1) for own in truths]
    found = summary(judge(answers, truths), ("a", "b", "c"))
    for name in ("ap50", "ap75", "map", "ap50_11pt", "ap50_b", "recall_100", "iou_matched_mean"):
        assert found[name] == pytest.approx(1)
    assert found["angle_error_p95_deg"] < 1e-6
    assert summary(judge([np.zeros((0, 7))], [np.zeros((0, 7))]), ()) == {"recall_100": 0.0}


def test_polygons_are_what_is_compared():
    truth = np.array([row(10, 0, 0)])
    points = corners(__import__("torch").tensor(truth[:, :5])).numpy()
    found = [np.array([row(10.4, 0.9, 0)])]
    plain, drawn = judge(found, [truth]), judge(found, [truth], [points])
    assert drawn.iou == pytest.approx(plain.iou)


def test_objects_are_told_apart_by_shape():
    """A long object found beside a false alarm of a short box, and a short one found by a long box only at 0.5."""
    truth = np.array([[10, 10, 16, 2, 0.3, 0, 0], [60, 10, 8, 6, 0, 0, 0]])
    found = np.array([[10, 10, 16, 2, 0.3, 0.5, 0], [60, 10, 13, 6, 0, 0.4, 0], [90, 90, 8, 7, 0, 0.9, 0]])
    assert by_aspect(judge([found], [truth])) == {(1.0, 1.5): (1, 0.5, 0.0), (8.0, math.inf): (1, 1.0, 1.0)}


def test_upright_answers_know_the_truth():
    truth = np.array([[50, 50, 40, 10, math.pi / 4, 0, 0], [20, 20, 10, 6, 0.0, 1, 0]])
    outer, best = judge(outer_answers([truth]), [truth]), judge(shrunk_answers([truth]), [truth])
    side = (40 + 10) / 2**0.5
    assert sorted(outer.iou) == pytest.approx([400 / side**2, 1])
    assert (np.sort(best.iou) >= np.sort(outer.iou) - 1e-12).all() and best.iou.min() > outer.iou.min() + 0.05
