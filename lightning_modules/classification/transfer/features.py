"""Features of images at several depths of a network: computed once, in evaluation mode, and kept."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.cache import cached_arrays
from datamodules.errors import UsageError
from lightning_modules.classification.network import Classifier
from lightning_modules.classification.networks.backbone import Depth, Transferred
from lightning_modules.classification.networks.pretrained import state_sha256

log = logging.getLogger(__name__)

VERSION = 1  # of how features are computed: an older one's are not used again
POOLS = ("mean", "none")


@dataclass(frozen=True)
class FeatureSettings:
    """`features` of the configuration.

    layers: depths, block numbers and `head`; None: the network's own choice.
    pool: `mean` over each map's places; `none`: whole maps, flattened.
    flip: training images mirrored too.
    """

    layers: Sequence[Depth] | None = None
    pool: str = "mean"
    flip: bool = False

    def __post_init__(self) -> None:
        if self.pool not in POOLS:
            raise UsageError(f"features.pool is {self.pool!r}: choose {' or '.join(POOLS)}.")

    @classmethod
    def of(cls, config: Any) -> FeatureSettings:
        """Of a run's configuration; those of a checkpoint older than the stage are the usual ones."""
        given = config.get("features") or {}
        return cls(**{field.name: given[field.name] for field in fields(cls) if field.name in given})


def depths_for(network: Classifier, layers: Sequence[Depth] | None) -> list[Depth]:
    """The depths to be read, the network's own choice without one.

    Raises:
        UsageError: the network has no such depth, or no maps at all.
    """
    if isinstance(network, Transferred):
        return network.require_depths(network.default_depths if layers is None else list(layers), "features.layers")
    if not hasattr(network, "maps"):
        raise UsageError(
            "This network names no maps to take features from: choose model=efficientnet_lite0, or another "
            "convolutional network."
        )
    depths = ["head"] if layers is None else list(layers)
    if not depths or any(depth != "head" and not isinstance(depth, int) for depth in depths):
        raise UsageError(f"features.layers is {depths}, but it must be a list of layers' numbers and head.")
    return depths


def maps_at(network: Classifier, images: Tensor, depths: Sequence[Depth]) -> list[Tensor]:
    """The maps (B, K, h, w) of images (B, C, H, W), 0 … levels−1, at these depths.

    Raises:
        UsageError: there is no such depth.
    """
    if isinstance(network, Transferred):
        return network.depth_maps(images, depths)
    maps = network.maps(images)
    for depth in depths:
        if depth != "head" and not 0 <= depth < len(maps):
            raise UsageError(
                f"features.layers names {depth}, but this network's depths are 0 to {len(maps) - 1}, head."
            )
    return [maps[-1] if depth == "head" else maps[depth] for depth in depths]


def pixels_sha256(images: np.ndarray) -> str:
    """Of the pixels that are fed, in their order."""
    digest = hashlib.sha256(f"{images.dtype} {images.shape}".encode())
    digest.update(np.ascontiguousarray(images).tobytes())
    return digest.hexdigest()


def split_features(
    network: Classifier,
    parts: Mapping[str, np.ndarray],
    settings: FeatureSettings,
    cache: Path,
    *,
    device: torch.device | str = "cpu",
    precision: str = "32-true",
    batch_size: int = 100,
) -> dict[str, np.ndarray]:
    """Features float32 (N, D) of images uint8 (N, C, H, W), part by part; of `train` with `flip` also `train_mirrored`.

    They are kept in `cache` by all that they depend on: the network's tensors and the size it scales to, the pixels and
    their order, depths, pool, precision and this code's version. Labels and groups are not kept with them.
    """
    depths = depths_for(network, settings.layers)
    parts = {name: images for name, images in parts.items() if len(images)}
    if settings.flip and "train" in parts:
        parts["train_mirrored"] = np.ascontiguousarray(parts["train"][..., ::-1])
    key = {
        "version": VERSION,
        "network": f"{type(network).__name__} {getattr(network, 'size', '')}",
        "weights": state_sha256(getattr(network, "backbone", network)),
        "pixels": {name: pixels_sha256(images) for name, images in parts.items()},
        "layers": depths,
        "pool": settings.pool,
        "precision": precision,
        "levels": network.spec.levels,
    }

    def compute() -> dict[str, np.ndarray]:
        return {
            name: compute_features(network, images, depths, settings.pool, device, precision, batch_size)
            for name, images in parts.items()
        }

    return cached_arrays(cache, "features", key, compute)


@torch.no_grad()
def compute_features(
    network: Classifier,
    images: np.ndarray,
    depths: Sequence[Depth],
    pool: str,
    device: torch.device | str,
    precision: str,
    batch_size: int,
) -> np.ndarray:
    """Features float32 (N, D): in evaluation mode, so that an image's do not depend on its neighbours."""
    was_training, found = network.training, []
    network.eval()
    try:
        for first in range(0, len(images), batch_size):
            batch = torch.from_numpy(np.array(images[first : first + batch_size])).to(device)
            with lower_precision(torch.device(device), precision):
                maps = maps_at(network, batch, depths)
            maps = [found_map.float() for found_map in maps]
            flat = [m.mean((2, 3)) if pool == "mean" else m.flatten(1) for m in maps]
            found.append(torch.cat(flat, 1).cpu().numpy())
    finally:
        network.train(was_training)
    return np.concatenate(found)


def lower_precision(device: torch.device, precision: str) -> Any:
    """What computes in the run's precision."""
    if precision.startswith("bf16"):
        return torch.autocast(device.type, torch.bfloat16)
    return torch.autocast(device.type, torch.float16) if precision.startswith("16") else nullcontext()
