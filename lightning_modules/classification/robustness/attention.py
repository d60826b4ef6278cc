"""Where a vision transformer looks before and after an attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt

from lightning_modules.attacks import forward_of, judged
from lightning_modules.classification.figures import to_picture
from lightning_modules.classification.network import Classifier
from lightning_modules.classification.networks.attention import rollout
from lightning_modules.classification.networks.vit import ViT
from reporting.figures import save

ROWS = 4
COUNTED = 128


def attention_under_attack(
    network: Classifier, crafted: Mapping[str, np.ndarray], names: Sequence[str], path: Path
) -> str:
    """Draws images before and after with what the class token takes from each patch; "" of other networks.

    Args:
        crafted: `images` (N, C, H, W) stored, `moved` in [0, 1], `label`.
        names: of the classes.

    Returns:
        How much of the attention went elsewhere, over up to 128 images, in words.
    """
    if not isinstance(network, ViT):
        return ""
    most = network.spec.levels - 1
    before, moved = (torch.from_numpy(crafted[name][:COUNTED]).float() for name in ("images", "moved"))
    labels, forward = crafted["label"][:COUNTED], forward_of(network.eval(), network.spec.levels)
    looked = [looks(network, some) for some in (before, moved * most)]
    named = [judged(forward, some).argmax(1).numpy() for some in (before / most, moved)]
    gone = 0.5 * np.abs(looked[0] - looked[1]).sum((1, 2))
    fooled = (named[0] == labels) & (named[1] != labels)
    shown = np.flatnonzero(fooled if fooled.any() else named[0] == labels)[:ROWS]
    if not len(shown):
        return ""
    titles = ("original", "it looks", "attacked", "it looks")
    figure, axes = plt.subplots(len(shown), 4, figsize=(6.6, 1.85 * len(shown)), squeeze=False, layout="constrained")
    for row, number in zip(axes, shown, strict=True):
        top = max(looked[0][number].max(), looked[1][number].max())
        for place, image in {0: before[number].numpy(), 2: (moved * most)[number].numpy()}.items():
            row[place].imshow(to_picture(image, network.spec.levels), interpolation="nearest")
            row[place + 1].imshow(looked[place // 2][number], cmap="inferno", vmin=0, vmax=top, interpolation="nearest")
            row[place].set_xlabel(f"taken for {names[named[place // 2][number]]}", fontsize=8)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    save(figure, path)
    kinds = {"fooled": fooled, "not": ~fooled}
    both = " and ".join(f"{gone[some].mean():.1%} where it was {what}" for what, some in kinds.items() if some.any())
    return (
        "What the class token takes from each patch through all blocks (attention rollout), one scale for both. Of it "
        f"went to other patches under PGD, over {len(labels)} images: {both}."
    )


def looks(network: ViT, images: torch.Tensor) -> np.ndarray:
    """Shares of the patches (N, rows, columns), which sum to 1; images of intensities 0 … levels − 1."""
    with torch.no_grad():
        weights = network.attention(images).float().numpy()
    found = rollout(weights)[:, 0, 1:]
    grid = tuple(side // network.patch for side in images.shape[2:])
    return (found / found.sum(1, keepdims=True)).reshape(-1, *grid)
