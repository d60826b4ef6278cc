"""What there is without a network: the commonest class of each place, a linear model of colour and place, a ceiling."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from datamodules.files import whole_file
from lightning_modules.segmentation.fast_scnn import DIVIDE, enlarged
from lightning_modules.segmentation.scores import scores

FILE = "baselines.json"
PIXELS = 20_000  # of training images, for the linear model,
IMAGES = 400  # and of how many images they are
STEP = 4  # its test is on every fourth pixel across and down


def measure_baselines(data: Any, folder: Path) -> dict[str, float]:
    """`baseline/<name>/miou` and `…/pixel_accuracy` on the test split; all figures go into `baselines.json`."""
    spec, test = data.spec, data.splits["test"]
    common = commonest(data.splits["train"].masks, spec.classes)
    confusion = np.zeros((spec.classes,) * 2, np.int64)
    for mask in test.masks:
        confusion += counted(common, mask, spec)
    found = {"commonest_class_of_each_place": scores(confusion, spec.names, spec.background)}
    model, confusion = linear_model(data.splits["train"], spec), np.zeros((spec.classes,) * 2, np.int64)
    if model is not None:
        for image, mask in zip(test.images, test.masks, strict=True):
            small = mask[::STEP, ::STEP]
            inputs = features(fitted(image, mask.shape), spec.levels)[::STEP, ::STEP]
            predicted = model.predict(inputs.reshape(small.size, -1))
            confusion += counted(predicted.reshape(small.shape), small, spec)
        found["linear_model_of_colour_and_place"] = scores(confusion, spec.names, spec.background)
    confusion = np.zeros((spec.classes,) * 2, np.int64)
    for mask in test.masks:
        confusion += counted(averaged(mask, spec), mask, spec)
    found["truth_averaged_over_8×8_pixels"] = scores(confusion, spec.names, spec.background)
    with whole_file(folder / FILE) as unfinished:
        unfinished.write_text(json.dumps(found, indent=2) + "\n")
    shown = ("miou", "pixel_accuracy", "miou_objects")
    return {f"baseline/{name}/{k}": own[k] for name, own in found.items() for k in shown if k in own}


def commonest(masks: np.ndarray, classes: int) -> np.ndarray:
    """The most frequent class at each pixel (H, W), `ignore` left out."""
    counts = np.zeros((classes, *masks.shape[1:]), np.int32)
    for number in range(classes):
        for mask in masks:
            counts[number] += mask == number
    return counts.argmax(0)


def counted(predicted: np.ndarray, mask: np.ndarray, spec: Any) -> np.ndarray:
    valid = mask != spec.ignore
    places = mask[valid].astype(np.int64) * spec.classes + predicted[valid]
    return np.bincount(places, minlength=spec.classes**2).reshape(spec.classes, -1)


def averaged(mask: np.ndarray, spec: Any) -> np.ndarray:
    """What is left of a mask (H, W) when each class's share of every 8×8 pixels is enlarged again: logits at 1/8 of the
    size draw no finer, if they are shares. (Logits that are not may do better.)"""
    shares = F.one_hot(torch.from_numpy(mask.astype(np.int64)).clamp(0, spec.classes), spec.classes + 1)
    shares = shares[..., : spec.classes].permute(2, 0, 1)[None].float()
    coarse = F.avg_pool2d(shares, DIVIDE, ceil_mode=True, count_include_pad=False)
    return enlarged(coarse, mask.shape)[0].argmax(0).numpy()


def fitted(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image at its mask's size: a test's may be given to the network smaller."""
    if image.shape[-2:] == size:
        return image
    return F.interpolate(torch.from_numpy(np.array(image))[None], size, mode="nearest-exact")[0].numpy()


def features(image: np.ndarray, levels: int) -> np.ndarray:
    """Colour, place, and all products of two of them: (H, W, features)."""
    height, width = image.shape[-2:]
    down, across = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    single = np.stack([*(image / (levels - 1) * 2 - 1), down, across], -1)
    pairs = single[..., :, None] * single[..., None, :]
    first, second = np.triu_indices(single.shape[-1])
    return np.concatenate([single, pairs[..., first, second]], -1).astype(np.float32)


def linear_model(split: Any, spec: Any) -> LogisticRegression | None:
    """Of pixels drawn from a fixed seed; None where they are all of one class."""
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(split.images))[:IMAGES]
    each = PIXELS // len(chosen)
    inputs, labels = [], []
    for row in np.sort(chosen):
        places = rng.integers(split.masks[row].size, size=each)
        own = split.masks[row].ravel()[places]
        valid = own != spec.ignore
        of_all = features(split.images[row], spec.levels)
        inputs.append(of_all.reshape(-1, of_all.shape[-1])[places[valid]])
        labels.append(own[valid])
    known = np.concatenate(labels)
    if len(np.unique(known)) < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(max_iter=60).fit(np.concatenate(inputs), known)
