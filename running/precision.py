"""`trainer.precision=auto`: what this machine multiplies fast."""

from __future__ import annotations

from pathlib import Path

import torch


def resolve_precision(asked: str, accelerator: str) -> tuple[str, str]:
    """The precision to train in, and why in a few words. Anything but `auto` is returned as it is."""
    if asked != "auto":
        return asked, "as asked"
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        major, _ = torch.cuda.get_device_capability()
        return ("bf16-mixed", "the GPU has bf16") if major >= 8 else ("16-mixed", "the GPU is older than bf16")
    if accelerator in ("auto", "cpu") and cpu_has_amx():
        return "bf16-mixed", "the CPU has AMX"
    return "32-true", "no fast half precision here"


def cpu_has_amx() -> bool:
    """Does the CPU multiply bf16 matrices in tiles (Intel AMX)?"""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "amx_bf16" in cpuinfo.read_text()
