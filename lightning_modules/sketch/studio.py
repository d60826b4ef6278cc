"""What the stages draw, complete and morph leave: animations, and drawings as JSON."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.errors import UsageError
from datamodules.strokes.files import as_json, read_drawing
from datamodules.strokes.forms import Polylines, to_five
from lightning_modules.sketch.animation import save_gif, svg
from lightning_modules.sketch.drawing import draw, draw_classes, lines_of, slerp
from lightning_modules.sketch.network import StrokeDecoder
from reporting.report import write_text

log = logging.getLogger(__name__)

MOST_CLASSES = 20  # drawn when none is named


def draw_files(module: Any, folder: Path) -> None:
    """`draws` drawings of the class, or of each, in each format; of several also the first two of each, `all`."""
    network, spec = module.network, module.network.spec
    if module.label is not None:
        chosen = [module.label]
    else:
        chosen = list(range(min(max(spec.classes, 1), MOST_CLASSES)))
        if spec.classes > MOST_CLASSES:
            log.info("draw: the first %d classes; class=NAME draws another.", MOST_CLASSES)
    labels = torch.tensor(chosen).repeat_interleave(module.draws)
    drawn = lines_of(draw_classes(network, labels, module.temperature, module.seed), spec.scale)
    for number, label in enumerate(chosen):
        own = drawn[number * module.draws : (number + 1) * module.draws]
        path = write_drawings(folder, file_name(spec.names[label] if spec.names else "drawing"), own, module)
    if len(chosen) > 1:
        starts = range(0, len(drawn), module.draws)
        first = [drawn[start + column] for column in range(min(2, module.draws)) for start in starts]
        path = write_drawings(folder, "all", first, module)
    log.info("draw: %s", path)


def complete_files(module: Any, begun: Tensor, folder: Path) -> None:
    """A begun drawing, the first, and `draws` ways to go on from it, of the class or of the first."""
    network = module.network
    labels = torch.full((module.draws,), module.label or 0)
    if module.label is None and network.spec.classes:
        log.info("complete: as a %s; class=NAME chooses another.", network.spec.names[0])
    drawn = draw_classes(network, labels, module.temperature, module.seed, begun)
    given = lines_of(begun, network.spec.scale)
    path = write_drawings(folder, "completed", given + lines_of(drawn, network.spec.scale), module)
    log.info("complete: %s", path)


def morph_files(module: Any, ends: list[tuple[Tensor | None, Tensor]], folder: Path) -> None:
    """`steps` drawings from one end to the other."""
    drawn = lines_of(morphed(module.network, ends, module.steps, module.temperature, module.seed),
                     module.network.spec.scale)  # fmt: skip
    log.info("morph: %s", write_drawings(folder, "morph", drawn, module))


def morphed(
    network: StrokeDecoder, ends: list[tuple[Tensor | None, Tensor]], steps: int, temperature: float, seed: int
) -> Tensor:
    """Drawings (steps, T, 5) on the way between two ends, all from the same uniform numbers: z along the great circle,
    classes' vectors along the line."""
    (first, one), (last, other) = ends
    shares = torch.linspace(0, 1, steps)
    device = network.output.weight.device
    z = None
    if first is not None:
        z = torch.stack([slerp(first[0], last[0], float(share)) for share in shares]).to(device)
    classes = torch.cat([(1 - share) * one + share * other for share in shares.to(device)])
    generator = torch.Generator().manual_seed(seed)
    uniforms = torch.rand(1, network.spec.length, 4, generator=generator).expand(steps, -1, -1).to(device)
    return draw(network, z, classes, uniforms, temperature).strokes


def end_of_morph(module: Any, name: str, number: int) -> tuple[Tensor | None, Tensor]:
    """z and class vector of a class's name (z from the prior, by the seed) or of a JSON file's drawing, encoded."""
    network = module.network
    device = network.output.weight.device
    if not name.endswith(".json"):
        if not network.spec.classes:
            raise UsageError(f"'{name}' is no class of this network, which has none: give a JSON file of a drawing.")
        label = torch.tensor([network.spec.number(name)], device=device)
        generator = torch.Generator().manual_seed(module.seed + number)
        z = torch.randn(1, network.latent, generator=generator).to(device) if network.latent else None
        return z, network.class_vectors(label, 1).detach()
    if not network.latent:
        raise UsageError(f"A decoder alone cannot encode '{name}': give classes' names, or train model=sketch_rnn.")
    strokes = scaled(read_drawing(Path(name)), network).to(device)
    label = torch.tensor([module.label or 0], device=device) if network.spec.classes else None
    classes = network.class_vectors(label, 1).detach()
    training = network.training
    with torch.no_grad():
        z = network.eval().encode(strokes, classes)[0]
    network.train(training)
    return z, classes


def read_begun(path: str, network: StrokeDecoder) -> Tensor:
    """The strokes of a file (1, S, 5), the last without a pen: whether that line is finished a file cannot say."""
    strokes, length = read_drawing(Path(path)), network.spec.length
    if len(strokes) >= length:
        raise UsageError(
            f"sketch: '{path}' has {len(strokes)} points, but this network draws {length - 1} at most: give fewer."
        )
    five = scaled(strokes, network)[:, : len(strokes)]
    five[:, -1, 2:] = 0
    return five


def half_drawn(network: StrokeDecoder, label: int, seed: int) -> Tensor:
    """The first half of a drawing of the network's own (1, S, 5)."""
    whole = draw_classes(network, torch.tensor([label]), 0.2, seed)
    points = int((whole[0, :, 4] == 0).sum())
    return whole[:, : max(1, points // 2)]


def scaled(strokes: np.ndarray, network: StrokeDecoder) -> Tensor:
    """Stroke-3 in the data's units → (1, N + 1, 5) in the network's."""
    five = torch.from_numpy(to_five(strokes, len(strokes) + 1))[None]
    five[..., :2] /= network.spec.scale
    return five


def write_drawings(folder: Path, name: str, drawings: list[Polylines], module: Any) -> Path:
    """The drawings in each format that is asked for; the first's path."""
    if "json" in module.formats:
        content = [{"drawing": as_json(lines), "temperature": module.temperature} for lines in drawings]
        write_text(folder / f"{name}.json", json.dumps(content) + "\n")
    if "svg" in module.formats:
        write_text(folder / f"{name}.svg", svg(drawings, title=name) + "\n")
    if "gif" in module.formats:
        save_gif(folder / f"{name}.gif", drawings)
    return folder / f"{name}.{module.formats[0]}"


def file_name(name: str) -> str:
    return name.replace(" ", "_").replace("/", "_")
