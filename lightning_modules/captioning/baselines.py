"""What needs no decoder: one sentence for all images, and the sentences of the nearest training image."""

from __future__ import annotations

import numpy as np

from lightning_modules.captioning.scores import CiderD, References

SAMPLE = 400  # training captions among which the best constant one is sought


def best_constant(references: References, seed: int = 0) -> str:
    """Of training captions the one most like all others, by CIDEr-D; among `SAMPLE` of them, one of an image."""
    rng = np.random.default_rng(seed)
    images = rng.permutation(len(references))[:SAMPLE]
    drawn = [references[image][rng.integers(len(references[image]))] for image in images]
    measure = CiderD([[caption] for caption in drawn])
    different = list(dict.fromkeys(drawn))
    means = [sum(measure.similarity(caption, other) for other in drawn) for caption in different]
    return different[int(np.argmax(means))]


def most_like_the_others(captions: list[str], measure: CiderD) -> str:
    """An image's caption that is most like its other ones (Devlin et al. 2015, arXiv 1505.04467)."""
    alike = [
        sum(measure.similarity(caption, other) for place, other in enumerate(captions) if place != number)
        for number, caption in enumerate(captions)
    ]
    return captions[int(np.argmax(alike))]


def nearest(features: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Of each image (N, F) the nearest known one (K, F) by the cosine: (N,)."""

    def unit(rows: np.ndarray) -> np.ndarray:
        rows = rows.astype(np.float64)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)

    return (unit(features) @ unit(known).T).argmax(1)


def nearest_captions(features: np.ndarray, known: np.ndarray, references: References) -> list[str]:
    """For each image a caption of the nearest known image, whose captions are `references`."""
    measure = CiderD(references)
    found = nearest(features, known)
    chosen = {image: most_like_the_others(list(references[image]), measure) for image in set(found.tolist())}
    return [chosen[image] for image in found.tolist()]
