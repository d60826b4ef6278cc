"""Lossless compression with a network's likelihood: the proof that a stated likelihood can be used.

A range coder spends −log₂ p bits on what has probability p, so a file of images has the size that the network states,
if the decoder can form the same p from the pixels before. A network that looks ahead cannot pass: the decoder has
nothing to look at, and the file is larger than stated. Encoder and decoder run the same incremental code in float32,
for the same number of images at once, on as many threads; the file's header holds these.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import constriction
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datamodules.errors import UsageError
from datamodules.files import whole_file
from lightning_modules.pixelrnn.sampling import fill
from lightning_modules.pixelrnn.stack import AutoregressiveNetwork

MAGIC = b"ETUDES1\n"
log = logging.getLogger(__name__)


def compress(network: AutoregressiveNetwork, images: Tensor, labels: Tensor, path: Path) -> None:
    """Writes integer images (N, C, H, W), whole or not at all; a conditional network's labels (N,) go with them."""
    encoder = constriction.stream.queue.RangeEncoder()
    family = constriction.stream.model.Categorical(perfect=False)

    def choose(logits: Tensor, place: tuple[int, int, int]) -> Tensor:
        channel, row, column = place
        symbols = images[:, channel, row, column]
        encoder.encode(symbols.numpy().astype(np.int32), family, logits.softmax(1).numpy())
        return symbols.long()

    header = {
        "images": len(images),
        "labels": labels.tolist() if network.class_biases else None,
        "shape": list(network.spec.shape),
        "levels": network.spec.levels,
        "arithmetic": "float32",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "network": fingerprint(network.state_dict()),
        "pixels": fingerprint({"images": images.to(torch.int16)}),
    }
    with on_the_cpu_in_float32(network, header["threads"]):
        fill(network, torch.zeros_like(images).long(), 0, labels, choose, "encoding rows")
    text = json.dumps(header, separators=(",", ":")).encode()
    words = encoder.get_compressed().astype("<u4").tobytes()
    with whole_file(path) as unfinished:
        unfinished.write_bytes(MAGIC + len(text).to_bytes(4, "little") + text + words)


def decompress(network: AutoregressiveNetwork, path: Path) -> Tensor:
    """Reads what `compress` wrote with the same network: integers (N, C, H, W).

    Raises:
        UsageError: the file is damaged, another network's, or made where arithmetic gives other results.
    """
    header, words = read(path)
    if header["network"] != fingerprint(network.state_dict()):
        raise UsageError(f"'{path}' was written with another network's weights: give the checkpoint it was made with.")
    decoder = constriction.stream.queue.RangeDecoder(words)
    family = constriction.stream.model.Categorical(perfect=False)

    def choose(logits: Tensor, place: tuple[int, int, int]) -> Tensor:
        return torch.from_numpy(decoder.decode(family, logits.softmax(1).numpy())).long()

    images = torch.zeros(header["images"], *header["shape"], dtype=torch.int64)
    labels = None if header["labels"] is None else torch.tensor(header["labels"])
    try:
        with on_the_cpu_in_float32(network, header["threads"]):
            fill(network, images, 0, labels, choose, "decoding rows")
        whole = fingerprint({"images": images.to(torch.int16)}) == header["pixels"]
    except (AssertionError, ValueError):  # constriction's, of words that no encoder wrote
        whole = False
    if not whole:
        raise UsageError(
            f"'{path}' decodes into other pixels than were written: the file is damaged, or this machine or torch"
            f" {torch.__version__} computes otherwise than the one that wrote it (torch {header['torch']})."
        )
    return images


def read(path: Path) -> tuple[dict[str, Any], np.ndarray]:
    """A file's header and its code words.

    Raises:
        UsageError: the file is no compressed file of this project, or it is cut.
    """
    content = path.read_bytes() if path.is_file() else b""
    try:
        size = int.from_bytes(content[len(MAGIC) : len(MAGIC) + 4], "little")
        body = content[len(MAGIC) + 4 :]
        header = json.loads(body[:size])
        words = np.frombuffer(body[size:], dtype="<u4").astype(np.uint32)
        if not content.startswith(MAGIC) or not {"network", "pixels", "shape"} <= header.keys():
            raise ValueError
    except (ValueError, AttributeError):
        raise UsageError(f"'{path}' is no file of compressed images, or it is cut: write it anew.") from None
    return header, words


def compression_figures(network: AutoregressiveNetwork, images: Tensor, labels: Tensor, path: Path) -> dict[str, float]:
    """Compresses, decodes and checks images; bits per dimension of the file, as stated, and of PNG and WebP.

    Raises:
        UsageError: the decoded pixels differ.
    """
    device = next(network.parameters()).device
    compress(network, images, labels, path)
    log.info("compress: %d images in %s bytes; decoding", len(images), f"{path.stat().st_size:,}")
    if not torch.equal(decompress(network, path), images.long()):
        raise UsageError(f"'{path}' decodes into other pixels than were written.")
    with on_the_cpu_in_float32(network, torch.get_num_threads()), torch.no_grad():
        stated = sum(
            network.nats(*batch).double().sum().item() for batch in zip(images.split(16), labels.split(16), strict=True)
        )
    network.to(device)
    dims = images.numel()
    sizes = {
        "png": picture_bytes(images, network.spec.levels, "png"),
        "webp": picture_bytes(images, network.spec.levels, "webp"),
    }
    figures = {"file": path.stat().st_size * 8 / dims, "stated": stated / math.log(2) / dims}
    figures |= {name: size * 8 / dims for name, size in sizes.items()}
    figures = {f"compress/{name}_bits_per_dim": value for name, value in figures.items()}
    log.info("compress: %s", "  ".join(f"{name} {value:.4f}" for name, value in figures.items()))
    return figures | {"compress/images": len(images)}


def compression_table(metrics: dict[str, float]) -> str:
    """Markdown: what a stage `compress` found."""
    file, stated = (metrics[f"compress/{name}_bits_per_dim"] for name in ("file", "stated"))
    excess = 100 * (file - stated) / max(stated, 1e-9)
    verdict = (
        f"The file is {excess:+.2f} % off the stated likelihood, header and all: the likelihood is real."
        if excess < 1
        else f"The file is {excess:+.2f} % off the stated likelihood: so few images that the header weighs, or the"
        " network looks ahead of what it predicts, and its stated likelihood is not one."
    )
    rows = [("this network's file", file), ("this network, as stated", stated)]
    rows += [(name, metrics[f"compress/{key}_bits_per_dim"]) for name, key in
             [("PNG, all images in one picture", "png"), ("WebP lossless, all in one picture", "webp")]]  # fmt: skip
    lines = ["| | bits/dim |", "|---|---:|", *(f"| {name} | {value:.4f} |" for name, value in rows)]
    count = int(metrics["compress/images"])
    about = f"{count} test images written to one file by an entropy coder, decoded again, every pixel equal. {verdict}"
    return "\n".join([about, "", *lines])


def picture_bytes(images: Tensor, levels: int, form: str) -> int:
    """Bytes of PNG or lossless WebP pictures that hold the images one below another; two levels as one bit a pixel."""
    tall = images.to(torch.uint8).permute(0, 2, 3, 1).flatten(0, 1).squeeze(2).numpy()
    if form == "png":
        picture = Image.fromarray(tall * 255).convert("1") if levels == 2 else Image.fromarray(tall)
        return encoded(picture, "png", optimize=True)
    parts = np.array_split(tall, math.ceil(len(tall) / 16_000))  # a WebP is at most 16,383 pixels high
    return sum(encoded(Image.fromarray(part).convert("RGB"), "webp", lossless=True, quality=100) for part in parts)


def encoded(picture: Image.Image, form: str, **options: Any) -> int:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.tell()


def fingerprint(tensors: dict[str, Tensor]) -> str:
    """A digest of names, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


@contextmanager
def on_the_cpu_in_float32(network: AutoregressiveNetwork, threads: int) -> Iterator[None]:
    """For as long as probabilities must come out bit for bit the same."""
    before = torch.get_num_threads()
    network.cpu().float().eval()
    torch.set_num_threads(threads)
    try:
        with torch.autocast("cpu", enabled=False):
            yield
    finally:
        torch.set_num_threads(before)
