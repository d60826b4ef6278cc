"""CIFAR-10's files as others publish them, of a few made-up images."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from datamodules.images.cifar10_files import BATCHES
from datamodules.images.shared.image import Split

BATCH_ITEMS = 6


def png(image: np.ndarray, size: tuple[int, int] = (32, 32), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).convert(mode).resize(size).save(buffer, "PNG")
    return buffer.getvalue()


def table(split: Split, column: str = "img", **options) -> pa.Table:
    images = [{"bytes": png(image, **options), "path": None} for image in split.images]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    return pa.table({column: pa.array(images, kind), "label": pa.array(split.labels)})


def images_table(images: list[bytes | None]) -> pa.Table:
    return pa.table({"img": [{"bytes": content, "path": "x.png"} for content in images], "label": [1] * len(images)})


def write_parquet(folder: Path, made_up: dict[str, list[Split]], column: str = "img") -> Path:
    folder.mkdir(parents=True)
    for split, batches in made_up.items():
        for number, batch in enumerate(batches):
            file = folder / f"{split}-{number:05d}-of-{len(batches):05d}.parquet"
            pq.write_table(table(batch, column), file)
    return folder


def python2_pickle(batch: Split) -> bytes:
    """What Python 2's cPickle wrote, byte for byte in the parts that matter: no Python 3 can write it."""

    def number(value: int) -> bytes:
        return b"J" + value.to_bytes(4, "little", signed=True)

    data = batch.images.tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR(K\x01"
        + (b"(" + number(len(batch.images)) + number(3072) + b"t")
        + b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + (b"T" + len(data).to_bytes(4, "little") + data + b"tb")
    )
    labels = b"](" + b"".join(number(int(label)) for label in batch.labels) + b"e"
    return b"\x80\x02}(U\x04data" + array + b"U\x06labels" + labels + b"U\x0bbatch_labelU\x07made upu."


def python3_pickle(batch: Split, protocol: int) -> bytes:
    rows = batch.images.reshape(-1, 3072)
    return pickle.dumps({"data": rows, "labels": batch.labels.tolist()}, protocol=protocol)


def binary(batch: Split) -> bytes:
    return np.column_stack([batch.labels.astype(np.uint8), batch.images.reshape(-1, 3072)]).tobytes()


def write_batches(folder: Path, made_up: dict[str, list[Split]], encode=python2_pickle, suffix: str = "") -> Path:
    folder.mkdir(parents=True)
    for split, batches in made_up.items():
        for name, batch in zip(BATCHES[split], batches, strict=True):
            (folder / f"{name}{suffix}").write_bytes(encode(batch))
    return folder


def write_binary(folder: Path, made_up: dict[str, list[Split]]) -> Path:
    return write_batches(folder, made_up, binary, ".bin")
