"""What one update is worth: the first updates from one start by each descent, measured after every one."""

from __future__ import annotations

import json
import logging
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from reporting.report import write_text

log = logging.getLogger(__name__)
FILE = "updates.json"
LARGER = (4, 16)  # times the learning rate: whether full-batch descent only wants longer steps


def trace_updates(module: Any, run: Any) -> dict[str, Any]:
    """As many updates as there are epochs, the number that full-batch descent gets; written to updates.json.

    Each descent begins with the same freshly drawn weights and the same order of images. Full-batch descent is tried
    with larger learning rates too, and from small random weights.

    Args:
        module: a `ScratchTraining`.
        run: a `running.run.Run`.

    Returns:
        `updates`, `batches` (an epoch's mini-batches), and `traces`: of each a name, `images` per update, whether it is
        a `variant` of full-batch descent, and after 0, 1, 2 … updates the validation `loss` and `accuracy`.
    """
    splits, config = run.datamodule.splits, run.config
    device = next(module.network.parameters()).device
    images, labels, *held_out = (
        torch.from_numpy(array[:]).to(device) for split in ("train", "val") for array in splits[split]
    )
    generator = torch.Generator().manual_seed(config.seed)
    order = torch.randperm(len(images), generator=generator).to(device)
    starts = {name: deepcopy(module.network).cpu() for name in {module.network.initialisation, "random"}}
    for name, network in sorted(starts.items()):
        network.initialisation = name
        network.initialise_(generator)
    updates = config.trainer.max_epochs
    sizes = {"stochastic, 1 image": 1, f"mini-batch, {config.data.batch_size}": config.data.batch_size}
    own, everything = module.network.initialisation, len(images)
    plans = {**{name: (size, 1, own) for name, size in sizes.items()}, "full batch": (everything, 1, own)}
    plans |= {f"full batch, {factor} × the learning rate": (everything, factor, own) for factor in LARGER}
    if own != "random":
        plans["full batch, random weights of 0.01"] = (everything, 1, "random")
    traces = []
    for name, (size, factor, initialisation) in plans.items():
        network = deepcopy(starts[initialisation]).to(device)
        optimizer = module.make_optimizer(network.parameters())
        for group in optimizer.param_groups:
            group["lr"] *= factor
        points = [score(network, *held_out)]
        for update in range(updates):
            rows = order[torch.arange(update * size, (update + 1) * size, device=device) % len(order)]
            batch = (images, labels) if size == len(images) else (images[rows], labels[rows])
            descend(network, *batch, optimizer, module.l2)
            points.append(score(network, *held_out))
        losses, accuracies = zip(*points, strict=True)
        variant = (factor, initialisation) != (1, own)
        traces.append({"name": name, "images": size, "variant": variant, "loss": losses, "accuracy": accuracies})
    found = {"updates": updates, "batches": -(-len(images) // config.data.batch_size), "traces": traces}
    log.info("updates: %s", write_text(run.folder / FILE, json.dumps(found) + "\n"))
    return found


def descend(network: Any, images: Tensor, labels: Tensor, optimizer: torch.optim.Optimizer, l2: float) -> Tensor:
    """One update: both passes, the gradients put where the optimizer looks; returns the logits before it."""
    activations = network.activations(images)
    gradients = network.gradients(activations, labels, l2)
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()
    return activations[-1]


def score(network: Any, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean cross-entropy and accuracy."""
    logits = network(images)
    loss = torch.nn.functional.cross_entropy(logits, labels)
    return loss.item(), (logits.argmax(1) == labels).double().mean().item()
