"""What of a network learns at which rate, and how much each class weighs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from datamodules.errors import UsageError


def parameter_groups(
    network: nn.Module, backbone_lr: float, norm_bias_lr: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """By name: kernels (and matrices); vectors, which weight decay would only hold back; the normalisations' biases.

    Of a network with a `backbone` its groups and the head's apart. `multiple` is of the learning rate. What is frozen
    is in none.

    Args:
        backbone_lr: multiple of the backbone's groups.
        norm_bias_lr: multiple of the normalisations' biases, on top of it.
        layer_decay: the backbone's last layer has the multiple `backbone_lr`, each one before it this share of the
            next one's (Clark et al. 2020, ELECTRA, arXiv 2003.10555, section 3.1); 1: all the same.
    """
    norms = [module for module in network.modules() if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm))]
    biases = {id(norm.bias) for norm in norms}
    found = []
    for part, multiple, parameters in parts(network, backbone_lr, layer_decay):
        own = [p for p in parameters if p.requires_grad]
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


def parts(network: nn.Module, backbone_lr: float, layer_decay: float) -> list[tuple[str, float, list[nn.Parameter]]]:
    """Beginning of the groups' names, multiple, parameters: of what is no backbone, then of the backbone, whole or
    layer by layer."""
    backbone = getattr(network, "backbone", None)
    if backbone is None:
        return [("", 1.0, list(network.parameters()))]
    inside = {id(parameter) for parameter in backbone.parameters()}
    head = ("", 1.0, [p for p in network.parameters() if id(p) not in inside])
    if layer_decay == 1:
        return [head, ("backbone ", backbone_lr, list(backbone.parameters()))]
    layers = network.layers_in_order()
    rates = [backbone_lr * layer_decay**above for above in reversed(range(len(layers)))]
    return [head] + [
        (f"backbone {place} ", rate, list(layer.parameters()))
        for place, (rate, layer) in enumerate(zip(rates, layers, strict=True))
    ]


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
