"""Rotated IoU of all pairs: this project's closed sum, shapely, and the usual form made careful and vectorised.

    python -m benchmarks.rotated [--boxes 400]

Half a minute on one core. Boxes in a field of 40 px, sides 2 to 32 px, so that about half of the pairs overlap. The
usual form (detectron2, mmcv) collects the corners of each box inside the other and the crossings of their sides, sorts
them by angle and takes the polygon's area; here all pairs at once in torch, in float64.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from benchmarks.timing import ratio, side_by_side, spread, where
from datamodules.tools import Arguments, whole_number
from lightning_modules.detection import rotated_iou
from lightning_modules.detection.geometry.boxes import corners

ROUNDS, PAIRS = 3, 1 << 14


def by_sorting(first: Tensor, second: Tensor) -> Tensor:
    """IoU (N, M) of boxes by crossings and corners sorted round their middle, some thousand pairs at a time."""
    i, j = torch.arange(len(first)).repeat_interleave(len(second)), torch.arange(len(second)).repeat(len(first))
    parts = [shared_by_sorting(first[a], second[b]) for a, b in zip(i.split(PAIRS), j.split(PAIRS), strict=True)]
    shared = torch.cat(parts).view(len(first), len(second))
    areas = [boxes[:, 2] * boxes[:, 3] for boxes in (first, second)]
    return shared / (areas[0][:, None] + areas[1] - shared)


def shared_by_sorting(first: Tensor, second: Tensor) -> Tensor:
    one, two = (corners(boxes) - first[:, None, :2] for boxes in (first, second))  # (P, 4, 2)
    sides = [points.roll(-1, 1) - points for points in (one, two)]
    offset = two[:, None] - one[:, :, None]  # (P, 4, 4, 2)
    cross = sides[0][:, :, None, 0] * sides[1][:, None, :, 1] - sides[0][:, :, None, 1] * sides[1][:, None, :, 0]
    safe = torch.where(cross == 0, 1, cross)
    t = (offset[..., 0] * sides[1][:, None, :, 1] - offset[..., 1] * sides[1][:, None, :, 0]) / safe
    u = (offset[..., 0] * sides[0][:, :, None, 1] - offset[..., 1] * sides[0][:, :, None, 0]) / safe
    met = (cross != 0) & (t >= 0) & (t <= 1) & (u >= 0) & (u <= 1)
    crossings = one[:, :, None] + t[..., None] * sides[0][:, :, None]
    points = torch.cat([crossings.flatten(1, 2), one, two], 1)  # (P, 24, 2)
    wanted = torch.cat([met.flatten(1), inside(one, two, sides[1]), inside(two, one, sides[0])], 1)
    middle = (points * wanted[..., None]).sum(1, keepdim=True) / wanted.sum(1).clamp(min=1)[:, None, None]
    points = torch.where(wanted[..., None], points - middle, 0)
    angle = torch.where(wanted, torch.atan2(points[..., 1], points[..., 0]), 9.0)
    order = angle.argsort(1)
    x, y = (part.gather(1, order) for part in points.unbind(-1))
    count = wanted.sum(1, keepdim=True)
    after = (torch.arange(points.shape[1]) + 1) % count.clamp(min=1)  # the last wanted point is followed by the first
    area = (x * y.gather(1, after) - x.gather(1, after) * y) * (torch.arange(points.shape[1]) < count)
    return area.sum(1).abs() / 2


def inside(points: Tensor, polygon: Tensor, sides: Tensor) -> Tensor:
    offset = points[:, :, None] - polygon[:, None]
    return ((sides[:, None, :, 0] * offset[..., 1] - sides[:, None, :, 1] * offset[..., 0]) >= 0).all(2)


def by_shapely(first: Tensor, second: Tensor) -> Tensor:
    import shapely

    one, two = (shapely.polygons(corners(boxes).numpy()) for boxes in (first, second))
    shared = shapely.area(shapely.intersection(one[:, None], two[None]))
    return torch.from_numpy(shared / (shapely.area(one)[:, None] + shapely.area(two) - shared))


def boxes_of(count: int, seed: int) -> Tensor:
    drawn = torch.rand(count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.cat([drawn[:, :2] * 40, 2 + drawn[:, 2:4] * 30, (drawn[:, 4:] - 0.5) * torch.pi], 1)


def arguments() -> argparse.Namespace:
    parser = Arguments(description="Rotated IoU of all pairs against shapely and the usual form.")
    parser.add_argument("--boxes", type=whole_number, default=400, help="on each side of the table of pairs")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    first, second = boxes_of(args.boxes, 0), boxes_of(args.boxes, 1)
    forms = {
        "closed sum, float64": lambda: rotated_iou(first, second),
        "closed sum, float32": lambda: rotated_iou(first.float(), second.float()),
        "usual form, vectorised": lambda: by_sorting(first, second),
        "shapely, vectorised": lambda: by_shapely(first, second),
    }
    expected = forms["shapely, vectorised"]()
    times = side_by_side(forms, ROUNDS)
    pairs = args.boxes**2
    print(f"{pairs:,} pairs, {(expected > 0).double().mean():.0%} overlap; {where()}\n")
    print("| form | seconds, median (least … most) | million pairs a second | times ours | off from shapely |")
    print("|---|---:|---:|---:|---:|")
    for name, run in forms.items():
        rate = pairs / sorted(times[name])[ROUNDS // 2] / 1e6
        slower, off = ratio(times, name, "closed sum, float64"), (run() - expected).abs().max()
        print(f"| {name} | {spread(times[name], 1, 3)} | {rate:.2f} | {slower:.1f} | {off:.1e} |")


if __name__ == "__main__":
    main()
