"""Checkpoints written whole, to go on from in any folder."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from datamodules.errors import UsageError
from datamodules.files import whole_file
from reporting.load import read_checkpoint


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints under their final names are whole, and a run's folder can be moved.

    (Lightning writes into the system's temporary folder and moves: between two disks that is a copy, which a full disk
    or a kill cuts short after the earlier checkpoint is gone.)
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with whole_file(Path(path)) as unfinished:
            unfinished.write_bytes(content.getbuffer())

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return moved(super().load_checkpoint(path, *args, **kwargs), Path(path).resolve().parent)


def moved(checkpoint: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A checkpoint whose callbacks know the folder it lies in (else Lightning forgets a moved run's best score).

    A best checkpoint that did not come along is forgotten, and its score with it; so is one of a later step, the best
    of a decay before whose beginning a run goes on.
    """
    found = {}
    for name, state in checkpoint.get("callbacks", {}).items():
        before = state.get("dirpath")
        best = Path(elsewhere(state["best_model_path"], before, str(folder))) if before else folder
        if state.get("monitor") and best.is_file() and batches_done(read_checkpoint(best)) > batches_done(checkpoint):
            continue
        if before and best.is_file():
            state = {key: elsewhere(value, before, str(folder)) for key, value in state.items()}
            state["best_k_models"] = {elsewhere(k, before, str(folder)): v for k, v in state["best_k_models"].items()}
        found[name] = state
    return checkpoint | {"callbacks": found}


def batches_done(checkpoint: dict[str, Any]) -> int:
    """The steps of training behind a checkpoint; earlier versions had tasks of one optimizer alone."""
    return checkpoint.get("batches_done", checkpoint["global_step"])


def elsewhere(value: Any, before: str, after: str) -> Any:
    """A path in the folder `before` as one in `after`; anything else as it is."""
    return after + value.removeprefix(before) if isinstance(value, str) and value.startswith(before) else value


def check_holds_all(checkpoint: dict[str, Any], path: Path) -> None:
    """Raises UsageError when a checkpoint lacks what a run needs to go on: it is an early one, or kept weights."""
    if "optimizer_states" not in checkpoint:
        raise UsageError(f"'{path}' holds trained weights alone: they can be tested and drawn from, not trained on.")
    if not {"random_states", "sums"} <= checkpoint.keys():
        raise UsageError(
            f"'{path}' was written by an earlier version, without random states or sums of figures: its weights can be "
            "tested, but the run goes on only with the commit that its config.yaml names."
        )
