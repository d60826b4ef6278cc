"""What two runs left behind, compared bit for bit."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from reporting.load import read_checkpoint

# Not of a checkpoint: Lightning's counters differ in how they were reached, the configuration in `ckpt_path`; and the
# figure that ModelCheckpoint saw last is not read back, for nothing depends on it.
LEFT_OUT = ("loops", "config", "seconds", "current_score")


def differences(one: Path, other: Path) -> list[str]:
    """The names of what differs between two runs' folders; seconds may."""
    found = []
    kept = {path.stem for folder in (one, other) for path in (folder / "checkpoints").glob("*.ckpt")}
    for name in sorted(kept):
        left, right = (contents(folder, name) for folder in (one, other))
        found += [f"{name}.ckpt: {place}" for place in unequal(left, right)]
    figures = [json.loads((folder / "metrics.json").read_text()) for folder in (one, other)]
    figures = [{key: value for key, value in kept.items() if not key.startswith("seconds/")} for kept in figures]
    found += [f"metrics.json: {place}" for place in unequal(*figures)]
    names = {str(path.relative_to(folder)) for folder in (one, other) for path in folder.rglob("*") if path.is_file()}
    for name in sorted(names):
        left, right = one / name, other / name
        if "tensorboard" in name or name.endswith(("train.log", ".ckpt")):
            continue
        if not left.exists() or not right.exists():
            found.append(f"{name}: there is only one")
        elif name.endswith(".npz"):
            found += [f"{name}: {place}" for place in unequal(dict(np.load(left)), dict(np.load(right)))]
        elif name.endswith((".npy", ".csv", "generated.json", ".png")) and left.read_bytes() != right.read_bytes():
            found.append(name)
    found += [f"tensorboard: {place}" for place in unequal(events(one), events(other))]
    return found


def contents(folder: Path, name: str) -> Any:
    checkpoint = read_checkpoint(folder / "checkpoints" / f"{name}.ckpt")
    return without_folder(checkpoint, str(folder))


def without_folder(value: Any, folder: str) -> Any:
    """Nested containers without what is left out, the run's folder taken out of every string."""
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if key not in LEFT_OUT}
        return {without_folder(key, folder): without_folder(item, folder) for key, item in kept.items()}
    if isinstance(value, (list, tuple)):
        return [without_folder(item, folder) for item in value]
    return value.replace(folder, "") if isinstance(value, str) else value


def events(folder: Path) -> dict[str, Any]:
    """What TensorBoard shows: scalars, pictures and texts, for each name and step the last written."""
    board = EventAccumulator(str(folder / "tensorboard"), {"scalars": 0, "images": 0, "tensors": 0}).Reload()
    tags = board.Tags()
    shown: dict[str, Any] = {name: {e.step: e.value for e in board.Scalars(name)} for name in tags["scalars"]}
    shown |= {name: {e.step: e.encoded_image_string for e in board.Images(name)} for name in tags["images"]}
    texts = [name for name in tags["tensors"] if name.startswith("temperature")]
    return shown | {name: {e.step: e.tensor_proto.string_val[0] for e in board.Tensors(name)} for name in texts}


def unequal(one: Any, other: Any, place: str = "") -> list[str]:
    """The places in nested containers where two differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted({*one, *other}, key=str)
        gone = [f"{place}/{key}: there is only one" for key in keys if key not in one or key not in other]
        both = [key for key in keys if key in one and key in other]
        return gone + [found for key in both for found in unequal(one[key], other[key], f"{place}/{key}")]
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        if len(one) != len(other):
            return [f"{place}: {len(one)} and {len(other)} of them"]
        pairs = enumerate(zip(one, other, strict=True))
        return [found for number, (a, b) in pairs for found in unequal(a, b, f"{place}/{number}")]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        one, other = one.numpy(), other.numpy()
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        same = one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
        return [] if same else [place]
    nan = isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other)
    return [] if nan or (type(one) is type(other) and one == other) else [f"{place}: {one!r:.60} and {other!r:.60}"]
