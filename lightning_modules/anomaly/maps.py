"""The stage `map`: where in a large picture its patches are badly reconstructed, and whether that is the anomaly."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot as plt
from scipy.ndimage import uniform_filter

from datamodules.errors import UsageError
from datamodules.files import whole_file
from datamodules.images.kvasir import STEP, patches
from lightning_modules.anomaly.figures import plain
from lightning_modules.anomaly.judging import auc
from lightning_modules.anomaly.likelihoods import Likelihood
from lightning_modules.anomaly.scores import in_batches
from lightning_modules.anomaly.vae import VAE
from reporting.figures import save
from reporting.report import Section

log = logging.getLogger(__name__)

FILE = "map.npz"
DARK = 25  # of 255: all channels below it are the endoscope's frame, which is left out
WINDOW = 9  # pixels, of the local variance
NAMES = {"error": "reconstruction error", "saturation": "saturation", "variance": "local variance"}


def check_map(run: Any) -> None:
    """Raises UsageError when the data has no picture to map."""
    if not hasattr(run.datamodule, "picture"):
        raise UsageError(
            f"stages=[map] needs one large picture with a mask, which data={run.config.choices.data} has not: choose "
            "data=kvasir_patches."
        )


@torch.no_grad()
def map_errors(network: VAE, likelihood: Likelihood, device: torch.device, run: Any) -> None:
    """Leaves `map.npz`, of the held-out picture the mean squared error, saturation and local variance of each pixel;
    and `map/auc_error`, `map/auc_saturation`, `map/auc_variance`: how well each tells the mask's pixels."""
    data = run.datamodule
    cut, _, places = patches(data.picture, data.mask, STEP["test"], 0)
    errors = []
    for batch in in_batches(cut, data.eval_batch_size, device):
        expected = likelihood.mean(network(batch)[0])
        errors.append((batch.float() / (data.spec.levels - 1) - expected).square().mean(1).cpu().numpy())
    maps = {"error": averaged(np.concatenate(errors), places, data.mask.shape), **without_network(data.picture)}
    seen = (data.picture >= DARK).any(0)
    for name, values in maps.items():
        run.metrics[f"map/auc_{name}"] = auc(data.mask[seen], values[seen])
    with whole_file(path := run.folder / FILE) as unfinished:
        np.savez_compressed(unfinished, **maps, picture=data.picture, mask=data.mask)
    log.info("map: %s", "  ".join(f"map/auc_{name} {run.metrics[f'map/auc_{name}']:.4f}" for name in maps))
    log.info("map: %s", path)


def averaged(errors: np.ndarray, places: Sequence[tuple[int, int]], shape: tuple[int, int]) -> np.ndarray:
    """Patches (N, h, w) put back at their tops and lefts, the mean where they overlap, (H, W)."""
    total, counts = np.zeros(shape), np.zeros(shape)
    height, width = errors.shape[1:]
    for error, (top, left) in zip(errors, places, strict=True):
        total[top : top + height, left : left + width] += error
        counts[top : top + height, left : left + width] += 1
    return total / np.maximum(counts, 1)


def without_network(picture: np.ndarray) -> dict[str, np.ndarray]:
    """Saturation and local variance of a picture uint8 (3, H, W), (H, W) each."""
    values = picture / 255
    brightest = values.max(0)
    grey = values.mean(0)
    variance = uniform_filter(grey**2, WINDOW) - uniform_filter(grey, WINDOW) ** 2
    return {"saturation": (brightest - values.min(0)) / np.maximum(brightest, 1e-6), "variance": variance}


def map_section(run: Any) -> Section:
    """The picture, its mask's edge, and the three maps, with their areas."""
    with np.load(run.folder / FILE) as found:
        save_maps(run.folder / "figures" / "map.png", dict(found))
    rows = ["| of each pixel | AUC, inside the mask against outside |", "|---|---:|"]
    rows += [f"| {words} | {run.metrics[f'map/auc_{name}']:.4f} |" for name, words in NAMES.items()]
    text = (
        f"Picture {run.config.data.held_out}, on whose patches nothing was trained. Five images: an illustration, no "
        "result. The black frame is left out.\n\n" + "\n".join(rows)
    )
    return Section("Where the errors are", text, "figures/map.png")


def save_maps(path: Path, found: dict[str, np.ndarray]) -> None:
    figure, axes = plt.subplots(1, 1 + len(NAMES), figsize=(4 * (1 + len(NAMES)), 3.8), layout="constrained")
    axes[0].imshow(plain(found["picture"] / 255))
    axes[0].set_title("picture, edge of the polyp")
    for axis, (name, words) in zip(axes[1:], NAMES.items(), strict=True):
        axis.imshow(found[name], cmap="magma", vmax=np.quantile(found[name], 0.99))
        axis.set_title(words)
    for axis in axes:
        axis.contour(found["mask"], [0.5], colors="cyan", linewidths=1)
        axis.axis("off")
    save(figure, path)
