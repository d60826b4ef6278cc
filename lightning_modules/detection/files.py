"""The task's stages on files: detections of a user's pictures, and two folders in DOTA's form compared."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot as plt
from torch import Tensor

from datamodules.errors import UsageError
from datamodules.files import whole_file
from datamodules.images.folder import find_pictures
from datamodules.scenes.dota import offsets, read_image
from datamodules.scenes.dota_text import read_detections, read_labels, write_detections
from datamodules.scenes.quadrilaterals import is_convex, smallest_rectangle
from datamodules.scenes.rectangles import corners as corners_of
from datamodules.spec import SceneSpec
from lightning_modules.detection.average_precision import Judged, judge, summary
from lightning_modules.detection.detector import Detector
from lightning_modules.detection.figures import FOUND, draw_boxes
from lightning_modules.detection.geometry.nms import rotated_nms
from reporting.figures import save

log = logging.getLogger(__name__)
OVERLAP = 0.2  # of tiles, a share of their side
TESTED = 20  # test images drawn where no folder is named
DRAWN = 0.3  # score from which on a detection is drawn


def folder_named(run: Any, option: str, example: str) -> Path:
    """The folder that an option of the command names.

    Raises:
        UsageError: none is named, or there is none.
    """
    given = run.config.get(option)
    if given is None:
        raise UsageError(f"{option} is missing: name a folder, {example}.")
    if not (folder := Path(str(given)).expanduser().absolute()).is_dir():
        raise UsageError(f"{option}={given} is no folder: name {example}.")
    return folder


def detect_folder(network: Detector, device: torch.device, run: Any) -> Path:
    """Finds objects in every picture of `images=FOLDER`, or in the first test images; leaves `detect/` in the run's
    folder: `detections.json`, DOTA's `Task1_<class>.txt`, and a drawing of each picture."""
    found, network = {}, network.eval()
    folder = run.folder / "detect"
    for name, pixels in pictures(run):
        found[name] = whole_image(network, torch.from_numpy(pixels.copy()).to(device)).cpu().numpy()
        draw(folder / f"{name}.png", pixels, found[name], network.spec)
    write_detections(folder, found, network.spec.names)
    with whole_file(folder / "detections.json") as unfinished:
        unfinished.write_text(json.dumps(as_records(found, network.spec.names), indent=1), encoding="utf-8")
    counts = sum(len(rows) for rows in found.values())
    log.info("%d detections in %d pictures: %s", counts, len(found), folder / "detections.json")
    return folder


def pictures(run: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Name and pixels (C, H, W) of each picture of `images=FOLDER`; without it of the first `TESTED` test images."""
    if run.config.images is None:
        images = run.datamodule.splits["test"].images[:TESTED]
        yield from ((f"test_{number}", pixels) for number, pixels in enumerate(images))
    else:
        for file in find_pictures(folder_named(run, "images", "images=my_pictures")):
            yield file.stem, read_image(file)


def whole_image(network: Detector, pixels: Tensor) -> Tensor:
    """Detections (D, 7) in an image (3, H, W) of any size: larger ones than the network was trained on are cut into
    overlapping tiles, and what tiles find twice is dropped by rotated NMS, class by class."""
    spec, found = network.spec, []
    if spec.channels == 1 < len(pixels):
        pixels = pixels.float().mean(0, keepdim=True)
    side = max(spec.height, spec.width)
    for left, top in offsets(pixels.shape, side, int(OVERLAP * side)):
        rows = network.detect(pixels[None, :, top : top + side, left : left + side])[0][0]
        found.append(rows + rows.new_tensor([left, top, 0, 0, 0, 0, 0]))
    rows = torch.cat(found)
    return rows[rotated_nms(rows[:, :5], rows[:, 5], network.nms, rows[:, 6])]


def as_records(found: dict[str, np.ndarray], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """What `detections.json` holds: image, class, score, box (cx, cy, w, h in px, θ in radians) and its corners."""
    return [
        {
            "image": image,
            "class": names[int(row[6])],
            "score": round(float(row[5]), 5),
            "box": [round(float(value), 4) for value in row[:5]],
            "corners": np.round(corners_of(row[:5].astype(np.float64)), 3).tolist(),
        }
        for image, rows in found.items()
        for row in rows
    ]


def draw(path: Path, pixels: np.ndarray, rows: np.ndarray, spec: SceneSpec) -> None:
    rows = rows[rows[:, 5] >= DRAWN]
    figure, axis = plt.subplots(figsize=(6, 6 * pixels.shape[1] / pixels.shape[2]))
    axis.imshow(np.broadcast_to(pixels.transpose(1, 2, 0) / (spec.levels - 1), (*pixels.shape[1:], 3)))
    axis.set(xlim=(-0.5, pixels.shape[2] - 0.5), ylim=(pixels.shape[1] - 0.5, -0.5), xticks=[], yticks=[])
    draw_boxes(axis, rows[:, :5], FOUND, 1, [f"{spec.names[int(row[6])]} {row[5]:.2f}" for row in rows])
    save(figure, path)


def evaluate_folders(run: Any) -> dict[str, float]:
    """Detections of `found=FOLDER` (`Task1_<class>.txt`) against the objects of `truths=FOLDER` (`labelTxt`), both in
    DOTA's form: what `average_precision.summary` gives. The objects are taken as the quadrilaterals they are."""
    names, judged = judged_folders(
        folder_named(run, "truths", "truths=labelTxt"), folder_named(run, "found", "found=detections")
    )
    figures = summary(judged, names)
    lines = [f"  {name:<28}{value:.4f}" for name, value in figures.items()]
    log.info("%d objects, %d detections:\n%s", len(judged.true_classes), len(judged.scores), "\n".join(lines))
    return figures


def judged_folders(truths: Path, found: Path) -> tuple[list[str], Judged]:
    """The classes' names, and `judge` of two folders. A quadrilateral that is not convex is compared by its smallest
    rectangle, with a warning.

    Raises:
        UsageError: a folder has no file of its form, or a detection names an image without labels.
    """
    files = sorted(truths.glob("*.txt"))
    if not files:
        raise UsageError(f"'{truths}' has no .txt file: name a folder of labels in DOTA's form.")
    labels = {file.stem: read_labels(file) for file in files}
    detections = read_detections(found)
    names = sorted({name for own in labels.values() for name in own.names} | set(detections))
    rows: dict[str, list[np.ndarray]] = {image: [] for image in labels}
    for place, name in enumerate(names):
        for image, score, four in detections.get(name, []):
            if image not in rows:
                raise UsageError(
                    f"'{found}' has a detection in the image '{image}', which has no labels in '{truths}'."
                )
            rows[image].append(np.array([*smallest_rectangle(four), score, place]))
    objects, polygons = [], []
    for image, own in labels.items():
        classes = np.array([names.index(name) for name in own.names], float)
        objects.append(np.concatenate([own.boxes, classes[:, None], own.difficult[:, None]], 1))
        polygons.append(convex(own.points, own.boxes, image))
    return names, judge([np.array(own).reshape(-1, 7) for own in rows.values()], objects, polygons)


def convex(points: np.ndarray, boxes: np.ndarray, image: str) -> np.ndarray:
    """Quadrilaterals (T, 4, 2), in place of those not convex their boxes' corners."""
    good = np.array([is_convex(four) for four in points], bool)
    if not good.all():
        log.warning("'%s': %d object(s) are not convex; their smallest rectangles are compared.", image, (~good).sum())
    return np.where(good[:, None, None], points, corners_of(boxes)) if len(points) else points
