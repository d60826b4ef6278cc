"""A second judge, of pictures: trained on Quick, Draw!'s own bitmaps of four classes, of other drawings than ours."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn
from torch.nn import functional as F

from datamodules.strokes.forms import Polylines, to_polylines
from datamodules.strokes.quickdraw import FILE as DRAWINGS
from datamodules.strokes.sketches import SketchDataModule
from lightning_modules.sketch.judge import judged

log = logging.getLogger(__name__)

FILE = "quickdraw/quickdraw_bitmap_4x1000.npz"
NAMES = ("cat", "fish", "apple", "bicycle")  # of its labels
HELD_OUT = 25  # the first of each class are the drawings of data=quickdraw, of its own file
LEAST = 0.85  # accuracy on our own rendering of these
SIDE, FINER, PEN, PADDING = 28, 8, 16, 16  # pixels; pen and padding as published, in 256ths of the drawing


def rendered(lines: Polylines) -> np.ndarray:
    """A drawing of 256 units as a bitmap uint8 (28, 28), white on black, in the middle: as the published ones look."""
    page = Image.new("L", (SIDE * FINER, SIDE * FINER), 0)
    if lines:
        points = np.concatenate(lines)
        factor = SIDE * FINER / (256 + 2 * PADDING)
        middle = (points.min(0) + points.max(0)) / 2
        pen = ImageDraw.Draw(page)
        for line in lines:
            placed = [tuple(point) for point in (line - middle) * factor + SIDE * FINER / 2]
            pen.line(placed if len(placed) > 1 else placed * 2, 255, width=max(1, round(PEN * factor)), joint="curve")
    return np.asarray(page.resize((SIDE, SIDE), Image.Resampling.BOX))


def bitmap_figures(
    data: SketchDataModule, lines: Sequence[Polylines], labels: np.ndarray, seed: int
) -> dict[str, float]:
    """`recognised_as_pictures` of drawn ones of the four classes, and the judge's accuracy on real drawings beside;
    nothing where there are fewer than two of them, the bitmaps are not there, or the judge is not good enough; nor of
    other files of drawings, which may be what the judge was trained on."""
    names, folder = data.spec.names, getattr(data, "folder", None)
    known = {number: NAMES.index(name) for number, name in enumerate(names) if name in NAMES}
    if len(known) < 2 or folder is None or not (Path(folder) / FILE).is_file():
        return {}
    if data.path != Path(folder) / DRAWINGS:
        return {}
    real = [(to_polylines(s), known[int(n)]) for own in data.splits.values()
            for s, n in zip(own.strokes, own.labels, strict=True) if int(n) in known]  # fmt: skip
    judge = picture_judge(str(Path(folder) / FILE), tuple(sorted(known.values())), seed)
    found = pictures([own for own, _ in real])
    accuracy = float((judged(judge, found).numpy() == np.array([label for _, label in real])).mean())
    if accuracy < LEAST:
        log.warning(
            "judge: of pictures %.1f %% right on real drawings, less than 85 %%: it is left out.", 100 * accuracy
        )
        return {"pictures_real": accuracy}
    rows = [row for row, label in enumerate(labels) if int(label) in known]
    taken = judged(judge, pictures([lines[row] for row in rows])).numpy()
    right = taken == np.array([known[int(labels[row])] for row in rows])
    return {"pictures_real": accuracy, "recognised_as_pictures": float(right.mean())}


def pictures(lines: Sequence[Polylines]) -> torch.Tensor:
    return torch.from_numpy(np.stack([rendered(own) for own in lines]))[:, None].float() / 255


@lru_cache(maxsize=2)
def picture_judge(path: str, classes: tuple[int, ...], seed: int, epochs: int = 4) -> nn.Module:
    """A small CNN trained on the bitmaps of these classes but for the first 25 of each."""
    with np.load(path, allow_pickle=False) as loaded:
        images, labels = loaded["images"], loaded["labels"].astype(np.int64)
    rows = np.concatenate([np.flatnonzero(labels == label)[HELD_OUT:] for label in classes])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.3), nn.Linear(32 * 49, len(NAMES)),
        )  # fmt: skip
        optimizer, rng = torch.optim.Adam(network.parameters(), 2e-3), np.random.default_rng(seed)
        for _ in range(epochs):
            for batch in np.array_split(rng.permutation(rows), max(1, len(rows) // 64)):
                given = torch.from_numpy(images[batch]).float() / 255
                loss = F.cross_entropy(network(given), torch.from_numpy(labels[batch]))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return network.eval()
