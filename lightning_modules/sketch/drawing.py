"""Drawings from a network, stroke by stroke, many at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.errors import UsageError
from datamodules.strokes.forms import END, Polylines, from_five, to_polylines
from lightning_modules.sketch.mixture import as_mixture, drawn, ends_like, log_densities, log_pens
from lightning_modules.sketch.network import Pen, StrokeDecoder, first_strokes


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
) -> Drawn:
    """Drawings of at most T strokes, a function of uniform numbers (B, T, 4) and nothing else.

    Args:
        z: (B, latent); None: the network has none.
        classes: vectors of the classes (B, embedding).
        temperature: of eq. 8, above 0; one, or one of each drawing (B,).
        begun: first strokes (B, S, 5) that are given, to go on from.

    Raises:
        UsageError: the network redraws only.
    """
    if network.looks == "encoder":
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
        parameters, weights, pen = network.step(stroke, pen, z, classes)
        mixture = as_mixture(parameters)
        given = begun is not None and number < begun.shape[1]
        stroke = begun[:, number].to(classes) if given else drawn(mixture, uniforms[:, number], heat).to(classes)
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
