"""A run in training as small files, to go on with on another machine.

`python -m running.travel pack runs/… parts` writes parts of at most 15 MiB, 60 MiB in all; there,
`python -m running.travel unpack parts runs/…` makes the run's folder anew, and `ckpt_path=` goes on from it.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import tarfile
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from datamodules.errors import Arguments, UsageError, run_tool
from datamodules.files import whole_file
from reporting.report import write_text
from running.averaging import PREFIX
from running.check import find_checkpoint
from running.load import read_checkpoint
from running.refusals import check_holds_all

MIB = 2**20
LAST, BEST = "checkpoints/last.ckpt", "checkpoints/best.ckpt"
# What else goes along; pictures and reports are made anew, TensorBoard begins where the run goes on.
CARRIED = ["config.yaml", "metrics.csv", "train.log", "snapshots/*.npy"]
SMALL = 1024  # tensors of fewer numbers are never rounded


def pack(run: Path, parts: Path, part_mib: float = 15, most_mib: float = 60) -> str:
    """Writes a run's last checkpoint, and what goes with it, as `parts`/state.json and the files that it names.

    Where it would be larger than `most_mib`, all but the weights being trained (the optimizer's moments, and by how
    much an average of the weights differs from them) is rounded to 16, then to 8 bits, and the best checkpoint stays
    behind: the run then goes on, but not bit for bit, and keeps the best of what follows. What was packed there before
    is whole until all of this is.

    Returns:
        What was written, in words.

    Raises:
        UsageError: there is no checkpoint, or even so it is too large.
    """
    if run.is_file():
        raise UsageError(f"'{run}' is a file: give the run's folder.")
    last = find_checkpoint(run, to_resume=True)
    checkpoint = read_checkpoint(last)
    check_holds_all(checkpoint, last)
    for dtype in (None, torch.bfloat16, torch.float8_e5m2):
        content = archive(run, last.read_bytes() if dtype is None else saved(without_best(smaller(checkpoint, dtype))),
                          with_best=dtype is None)  # fmt: skip
        if len(content) <= most_mib * MIB:
            break
    else:
        raise UsageError(
            f"'{last}' takes {len(content) / MIB:.1f} MiB even when rounded, more than {most_mib:g}: give a larger"
            " --most."
        )
    size = max(1, int(part_mib * MIB))
    sums, stamp = {}, hashlib.sha256(content).hexdigest()[:8]
    for number, start in enumerate(range(0, len(content), size)):
        name, piece = f"state.{stamp}.{number}", content[start : start + size]
        sums[name] = hashlib.sha256(piece).hexdigest()
        with whole_file(parts / name) as unfinished:
            unfinished.write_bytes(piece)
    write_text(parts / "state.json", json.dumps({"sha256": sums}, indent=2) + "\n")
    for stale in {path for path in parts.glob("state.????????.*[0-9]") if path.name not in sums}:
        stale.unlink()
    how = "exact" if dtype is None else f"moments rounded to {dtype.itemsize * 8} bits, without the best checkpoint"
    return f"{len(content) / MIB:.1f} MiB in {len(sums)} parts in {parts}; {how}"


def unpack(parts: Path, run: Path) -> str:
    """Makes the run's folder from what `pack` wrote.

    Returns:
        How to go on, in words.

    Raises:
        UsageError: a part is missing or damaged, or the folder holds a run.
    """
    if (run / LAST).exists():
        raise UsageError(f"'{run}' holds a run: give another folder.")
    files = members(read_parts(parts), parts)
    with TemporaryDirectory() as folder:
        unfinished = Path(folder) / "last.ckpt"
        unfinished.write_bytes(files.pop(LAST))
        last = saved(full(read_checkpoint(unfinished)))
    for name, content in {**files, LAST: last}.items():  # the last one says that all is there
        with whole_file(run / name) as unfinished:
            unfinished.write_bytes(content)
    return f"The run goes on with: python train.py ckpt_path={run / LAST}"


def archive(run: Path, last: bytes, with_best: bool) -> bytes:
    """A tar file of the run: its last checkpoint, and the files that go along."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as packed:
        member = tarfile.TarInfo(LAST)
        member.size = len(last)
        packed.addfile(member, io.BytesIO(last))
        for pattern in [*CARRIED, *([BEST] if with_best else [])]:
            for path in sorted(run.glob(pattern)):
                packed.add(path, path.relative_to(run).as_posix())
    return content.getvalue()


def read_parts(parts: Path) -> bytes:
    """The parts that state.json names, put together."""
    try:
        sums = json.loads((parts / "state.json").read_text(encoding="utf-8"))["sha256"]
        pieces = {name: (parts / Path(name).name).read_bytes() for name in sums}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"'{parts}' does not hold all parts of a packed run: pack it again.") from error
    for name, piece in pieces.items():
        if hashlib.sha256(piece).hexdigest() != sums[name]:
            raise UsageError(f"'{parts / name}' is damaged: copy it again.")
    return b"".join(pieces.values())


def members(content: bytes, parts: Path) -> dict[str, bytes]:
    """The files of a packed run by name; others than those that `pack` puts there are refused."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as packed:
            files = {member.name: packed.extractfile(member).read() for member in packed if member.isfile()}
    except tarfile.TarError as error:
        raise UsageError(f"'{parts}' holds no packed run: pack it again.") from error
    known = [LAST, BEST, *CARRIED]
    for name in files:
        if ".." in name or not any(fnmatch(name, pattern) for pattern in known):
            raise UsageError(f"'{parts}' holds '{name}', which is none of a packed run's files: pack it again.")
    if LAST not in files:
        raise UsageError(f"'{parts}' holds no checkpoint: pack it again.")
    return files


def saved(checkpoint: dict[str, Any]) -> bytes:
    content = io.BytesIO()
    torch.save(checkpoint, content)
    return content.getvalue()


def smaller(checkpoint: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """A checkpoint with all but the weights being trained rounded; `full` is its inverse, but for the rounding."""
    found = checkpoint | {"optimizer_states": mapped(checkpoint["optimizer_states"], lambda x: rounded(x, dtype))}
    if "training_weights" in checkpoint:  # state_dict holds their average
        training, weights = checkpoint["training_weights"], checkpoint["state_dict"]
        differences = {
            name: rounded(weights[PREFIX + name] - value, dtype) for name, value in training["weights"].items()
        }
        found["state_dict"] = {name: value for name, value in weights.items() if not name.startswith(PREFIX)}
        found["training_weights"] = training | {"average_minus": differences}
    return found


def full(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What `smaller` was given."""
    found = checkpoint | {"optimizer_states": mapped(checkpoint["optimizer_states"], lambda x: x)}
    training = dict(found.get("training_weights", {}))
    if differences := training.pop("average_minus", None):
        differences = mapped(differences, lambda x: x)
        average = {PREFIX + name: value + differences[name] for name, value in training["weights"].items()}
        found |= {"state_dict": found["state_dict"] | average, "training_weights": training}
    return found


def mapped(node: Any, change: Callable[[Tensor], Any]) -> Any:
    """Nested containers with every tensor changed; what `rounded` made is a tensor again first."""
    if isinstance(node, dict) and node.keys() == {"rounded", "scale"}:
        node = node["rounded"].float() / node["scale"]
    if isinstance(node, Tensor):
        return change(node)
    if isinstance(node, dict):
        return {key: mapped(value, change) for key, value in node.items()}
    return [mapped(value, change) for value in node] if isinstance(node, list) else node


def rounded(values: Tensor, dtype: torch.dtype) -> Tensor | dict[str, Any]:
    """A large tensor in fewer bits; 8 bits are scaled to the largest, and nothing but 0 becomes 0: a second moment of 0
    would let its weight leap."""
    if not values.is_floating_point() or values.numel() < SMALL:
        return values
    top, scale = values.abs().max().item(), 1.0
    if dtype.itemsize == 1 and top > 0 and math.isfinite(top):
        limits = torch.finfo(dtype)
        scale = limits.max / top
        values = values * scale
        least = limits.smallest_normal * limits.eps  # the smallest number there is
        values = torch.where((values != 0) & (values.abs() < least), least * values.sign(), values)
    return {"rounded": values.to(dtype), "scale": scale}


def without_best(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint that knows of no best one, so that the next validation makes one."""
    callbacks = checkpoint["callbacks"]
    return checkpoint | {"callbacks": {k: v for k, v in callbacks.items() if not k.startswith("ModelCheckpoint")}}


def main(words: Sequence[str]) -> str:
    """Packs or unpacks; returns what was done, in words."""
    parser = Arguments(prog="python -m running.travel", description="A run in training as small files, and back.")
    parser.add_argument("what", choices=["pack", "unpack"])
    parser.add_argument("source", type=Path, help="the run's folder, or the parts'")
    parser.add_argument("target", type=Path, help="the folder to make")
    parser.add_argument("--part", type=float, default=15, metavar="MIB", help="largest part (default: %(default)s)")
    parser.add_argument("--most", type=float, default=60, metavar="MIB", help="of all of them (default: %(default)s)")
    args = parser.parse_args(words)
    if args.what == "unpack":
        return unpack(args.source, args.target)
    if not (0 < args.part < math.inf and 0 < args.most < math.inf):
        raise UsageError("--part and --most must be numbers above 0, in MiB.")
    return pack(args.source, args.target, args.part, args.most)


if __name__ == "__main__":
    run_tool(main)
