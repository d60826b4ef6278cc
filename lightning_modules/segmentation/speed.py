"""How fast the network is, one image at a time: batch norms folded, warmed up, argmax included."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from datamodules.errors import UsageError
from datamodules.files import whole_file
from lightning_modules.segmentation.fast_scnn import LEAST_SIDE, FastSCNN, folded

log = logging.getLogger(__name__)

FILE = "speed.json"
WARM_UP = 20
PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}


def check_sizes(sizes: Any) -> list[tuple[int, int]]:
    """`sizes=[[h,w],…]` as pairs.

    Raises:
        UsageError: they are none, or too small for the network.
    """
    pairs = [list(pair) if isinstance(pair, Sequence) and not isinstance(pair, str) else [] for pair in sizes]
    if not pairs or not all(len(p) == 2 and all(isinstance(s, int) and s >= LEAST_SIDE for s in p) for p in pairs):
        raise UsageError(f"sizes is {sizes}, but it must be a list of [height, width] from {LEAST_SIDE} on each.")
    return [(high, wide) for high, wide in pairs]


def measure_speed(network: FastSCNN, run: Any) -> dict[str, float]:
    """`speed/fps` and its like of the first size in float32; `speed.json` holds every size and precision."""
    given = run.config.get("sizes")
    sizes = check_sizes(given) if given is not None else [network.spec.shape[1:]]
    device, rows = next(network.parameters()).device, []
    for height, width in sizes:
        image = torch.randint(0, network.spec.levels, (1, network.spec.channels, height, width), device=device)
        for name, dtype in PRECISIONS.items():
            fast = folded(network).to(dtype)
            row = {"height": height, "width": width, "precision": name, "macs": macs(fast, image)}
            rows.append(row | told(latencies(fast, image, run.config.speed_runs)))
            log.info("speed: %d×%d %s: %.1f frames a second", width, height, name, rows[-1]["fps"])
    parameters = sum(p.numel() for p in network.parameters())
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} thread(s)"
    with whole_file(run.folder / FILE) as unfinished:
        unfinished.write_text(json.dumps({"device": f"{device.type}, {where}", "rows": rows}, indent=2) + "\n")
    main = {k: v for k, v in rows[0].items() if k not in ("height", "width", "precision")}
    main |= {"parameters": parameters, "memory_mb": parameters * 4 / 1e6}
    return {f"speed/{name}": value for name, value in main.items()}


@torch.inference_mode()
def latencies(network: nn.Module, image: Tensor, runs: int) -> np.ndarray:
    """Seconds of each of `runs` images, from pixels to classes (runs,), after a warm-up."""
    seconds = []
    for number in range(WARM_UP + runs):
        wait_for(image.device)
        started = time.perf_counter()
        network(image).argmax(1)
        wait_for(image.device)
        if number >= WARM_UP:
            seconds.append(time.perf_counter() - started)
    return np.array(seconds)


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def told(seconds: np.ndarray) -> dict[str, float]:
    found = {f"latency_p{part}_ms": float(np.percentile(seconds, part) * 1e3) for part in (50, 95, 99)}
    return {"fps": float(1 / np.median(seconds)), **found}


def macs(network: nn.Module, image: Tensor) -> int:
    """Multiplications and additions of convolutions, as pairs."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(image)
    return counter.get_total_flops() // 2


def read_speed(folder: Path) -> dict[str, Any] | None:
    path = folder / FILE
    return json.loads(path.read_text()) if path.exists() else None
