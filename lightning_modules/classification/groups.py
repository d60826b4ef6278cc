"""What of a network learns at which rate, and how much each class weighs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from datamodules.errors import UsageError


def parameter_groups(network: nn.Module, backbone_lr: float, norm_bias_lr: float) -> list[dict[str, Any]]:
    """By name: kernels (and matrices); vectors, which weight decay would only hold back; the normalisations' biases.

    Of a network with a `backbone` its groups and the head's apart. `multiple` is of the learning rate. What is frozen
    is in none.

    Args:
        backbone_lr: multiple of the backbone's groups.
        norm_bias_lr: multiple of the normalisations' biases, on top of it.
    """
    norms = [module for module in network.modules() if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm))]
    biases = {id(norm.bias) for norm in norms}
    backbone = getattr(network, "backbone", None)
    inside = set() if backbone is None else {id(parameter) for parameter in backbone.parameters()}
    found = []
    for part, multiple in {"": 1.0, **({"backbone ": backbone_lr} if inside else {})}.items():
        own = [p for p in network.parameters() if p.requires_grad and (id(p) in inside) == bool(part)]
        kernels = [p for p in own if p.ndim > 1]
        vectors = [p for p in own if p.ndim == 1 and id(p) not in biases]
        norm_biases = [p for p in own if id(p) in biases]
        found += [
            {"params": kernels, "name": f"{part}kernels", "multiple": multiple},
            {"params": vectors, "name": f"{part}vectors", "multiple": multiple, "weight_decay": 0.0},
            {
                "params": norm_biases,
                "name": f"{part}norm biases",
                "multiple": multiple * norm_bias_lr,
                "weight_decay": 0.0,
            },
        ]
    return found


def balanced_weights(labels: np.ndarray, classes: int) -> Tensor:
    """N / (K · n_c) of each class (K,): with them all classes weigh alike.

    Raises:
        UsageError: a class has no training image.
    """
    counts = np.bincount(labels, minlength=classes)
    if not counts.all():
        raise UsageError(
            f"task.module.class_weights=balanced needs training images of every class, but class {counts.argmin()} has "
            "none: choose none."
        )
    return torch.from_numpy(len(labels) / (classes * counts)).float()
