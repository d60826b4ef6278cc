"""Drawings from a network, stroke by stroke, many at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.errors import UsageError
from datamodules.strokes.forms import END, Polylines, from_five, to_polylines
from lightning_modules.sketch.mixture import as_mixture, drawn, ends_like, log_densities, log_pens, with_pens
from lightning_modules.sketch.network import Encoded, Pen, StrokeDecoder, first_strokes


class Drawn(NamedTuple):
    """Strokes (B, T, 5), ends after the last; log densities of each offset and its pen (B, T); of each step what was
    attended to (B, steps before), None without attention."""

    strokes: Tensor
    log_densities: Tensor
    attended: list[Tensor | None]


@torch.no_grad()
def draw(
    network: StrokeDecoder,
    z: Tensor | None,
    classes: Tensor,
    uniforms: Tensor,
    temperature: float | Tensor = 1.0,
    begun: Tensor | None = None,
    encoded: Encoded | None = None,
) -> Drawn:
    """Drawings of at most T strokes, a function of uniform numbers (B, T, 4) and nothing else.

    Args:
        z: (B, latent); None: the network has none.
        classes: vectors of the classes (B, embedding).
        temperature: of eq. 8, above 0; one, or one of each drawing (B,).
        begun: first strokes (B, S, 5) that are given, to go on from; where none of the three pens is told, the network
            says whether the pen is lifted.
        encoded: of `attention=encoder`, the drawing to redraw.

    Raises:
        UsageError: the network redraws only.
    """
    if network.looks == "encoder" and encoded is None:
        raise UsageError(
            "A network with attention=encoder looks at the drawing that it redraws, so it cannot draw from a class: "
            "train with model.attention=past or none."
        )
    training = network.training
    network.eval()
    batch, steps, _ = uniforms.shape
    heat = torch.as_tensor(temperature, dtype=classes.dtype, device=uniforms.device).expand(batch)
    pen = Pen(network.start(z), classes.new_zeros(batch, 2))
    stroke = first_strokes(classes.new_zeros(batch, 1, 5))[:, 0]
    over = torch.zeros(batch, dtype=torch.bool, device=uniforms.device)
    strokes, densities, attended = [], [], []
    for number in range(steps):
        parameters, weights, pen = network.step(stroke, pen, z, classes, encoded)
        mixture = as_mixture(parameters)
        given = begun is not None and number < begun.shape[1]
        if given:
            stroke = with_pens(begun[:, number].to(classes), mixture, uniforms[:, number], heat)
        else:
            stroke = drawn(mixture, uniforms[:, number], heat).to(classes)
        stroke = torch.where(over[:, None], ends_like(stroke), stroke)
        ends = stroke[:, 2 + END] > 0
        density = log_pens(mixture, stroke) + torch.where(ends, 0, log_densities(mixture, stroke[:, :2]))
        densities.append(torch.where(over, 0, density))
        strokes.append(stroke)
        attended.append(None if weights is None else weights[:, 0])
        over = over | ends
        if over.all():
            break
    network.train(training)
    return Drawn(torch.stack(strokes, 1), torch.stack(densities, 1), attended)


CHUNK = 200  # drawings at once


def draw_classes(
    network: StrokeDecoder, labels: Tensor, temperature: float, seed: int, begun: Tensor | None = None
) -> Tensor:
    """A drawing of each label (B,), z from its prior, of N_max strokes at most: (B, T, 5), a function of the seed."""
    generator = torch.Generator().manual_seed(seed)
    device, length = network.output.weight.device, network.spec.length
    found = []
    for own in labels.split(CHUNK):
        z = torch.randn(len(own), network.latent, generator=generator).to(device) if network.latent else None
        uniforms = torch.rand(len(own), length, 4, generator=generator).to(device)
        classes = network.class_vectors(own.to(device), len(own)).detach()
        given = None if begun is None else begun.to(device).expand(len(own), -1, -1)
        found.append(draw(network, z, classes, uniforms, temperature, given).strokes)
    return padded(found)


def redraw(network: StrokeDecoder, strokes: Tensor, labels: Tensor | None, temperature: float, seed: int) -> Tensor:
    """Each drawing (B, T, 5) encoded, and drawn from its μ: (B, T', 5)."""
    generator = torch.Generator().manual_seed(seed)
    device, found = network.output.weight.device, []
    for first in range(0, len(strokes), CHUNK):
        own = strokes[first : first + CHUNK].to(device)
        classes = network.class_vectors(None if labels is None else labels[first : first + CHUNK].to(device), len(own))
        with torch.no_grad():
            mean, _, encoded = network.encode(own, classes)
        uniforms = torch.rand(len(own), network.spec.length, 4, generator=generator).to(device)
        found.append(draw(network, mean, classes.detach(), uniforms, temperature, None, encoded).strokes)
    return padded(found)


def padded(parts: list[Tensor]) -> Tensor:
    """Batches of strokes that differ in length as one, ends after the shorter."""
    length, found = max(part.shape[1] for part in parts), []
    for part in parts:
        ends = ends_like(part.new_zeros(len(part), length - part.shape[1], 5))
        found.append(torch.cat([part, ends], 1))
    return torch.cat(found)


def lines_of(strokes: Tensor, scale: float) -> list[Polylines]:
    """Each drawing's strokes in the data's units."""
    found = []
    for five in strokes.cpu().double().numpy():
        own = from_five(five)
        own[:, :2] *= scale
        found.append(to_polylines(own))
    return found


def has_ended(strokes: Tensor) -> np.ndarray:
    """Did each drawing (B, T, 5) come to an end of its own (B,)?"""
    return (strokes[..., 2 + END] > 0).any(1).cpu().numpy()


def slerp(first: Tensor, last: Tensor, share: float) -> Tensor:
    """Between two z (latent,), along the great circle, their lengths between too."""
    lengths = first.norm(), last.norm()
    directions = first / lengths[0].clamp(min=1e-9), last / lengths[1].clamp(min=1e-9)
    angle = torch.arccos((directions[0] @ directions[1]).clamp(-1, 1))
    length = (1 - share) * lengths[0] + share * lengths[1]
    if angle.sin() < 1e-4:
        return (1 - share) * first + share * last
    parts = torch.sin((1 - share) * angle) * directions[0] + torch.sin(share * angle) * directions[1]
    return length * parts / angle.sin()
