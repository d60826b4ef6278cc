"""A convolutional network's features: its part of a run's report."""

from __future__ import annotations

import numpy as np

from lightning_modules.classification.figures import save_maps
from lightning_modules.classification.network import Shown
from reporting.report import Section


def maps_section(
    layers: dict[str, np.ndarray], shown: Shown, levels: int, where: str = "After the ReLU of every second convolution"
) -> Section:
    """The strongest maps of chosen test images, each layer's (N, width, h, w); `where` says what is shown."""
    save_maps(shown.folder / "figures" / "feature_maps.png", shown.images, shown.captions, layers, levels)
    text = (
        f"{where}, the maps with the strongest mean; each is scaled to its own maximum, dark is 0. "
        "task.module.shown_images chooses the images."
    )
    return Section("Feature maps", text, "figures/feature_maps.png")
