"""A fully connected network, forward and backward passes written out on tensors: autograd has no part in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from datamodules.errors import UsageError, did_you_mean
from datamodules.spec import Spec, require_images

# Of a layer with so many inputs and outputs, the standard deviation of its normal weights.
INITIALISATIONS = {
    "random": lambda inputs, outputs: 0.01,
    "xavier": lambda inputs, outputs: math.sqrt(2 / (inputs + outputs)),  # Glorot & Bengio 2010, eq. 16
    "he": lambda inputs, outputs: math.sqrt(2 / inputs),  # He et al. 2015, arXiv 1502.01852, eq. 10
}


class ScratchMLP(nn.Module):
    """Images (B, C, H, W) → logits (B, classes): C·H·W – hidden … – classes, ReLU between, softmax understood.

    A layer is a_l = relu(a_{l−1} W_l + b_l), the last one without the ReLU; W_l is (inputs, outputs). MNIST with hidden
    128 and 64: 109,386 parameters. No method builds a graph, whatever the mode outside.

    Args:
        spec: the images and their classes.
        hidden: widths of the hidden layers.
        initialisation: of the weights, normal around 0; `random` with standard deviation 0.01 in every layer, `xavier`
            √(2 / (inputs + outputs)), `he` √(2 / inputs). Biases begin at 0.

    Raises:
        UsageError: the data has no classes, a width is impossible, or there is no such initialisation.
    """

    def __init__(self, spec: Spec, *, hidden: Sequence[int] = (128, 64), initialisation: str = "he"):
        super().__init__()
        self.spec = require_images(spec, "The network")
        if spec.classes < 2:
            raise UsageError(
                "This data has no classes to tell apart: choose data=digits, or data=mnist with data.binarize=none."
            )
        if not all(isinstance(width, int) and width >= 1 for width in hidden):
            raise UsageError(f"model.hidden is {list(hidden)}, but widths must be whole numbers, 1 or more: [128,64].")
        if initialisation not in INITIALISATIONS:
            known = ", ".join(INITIALISATIONS)
            near = did_you_mean(str(initialisation), INITIALISATIONS)
            raise UsageError(f"model.initialisation is {initialisation}{near}: choose one of {known}.")
        self.initialisation = initialisation
        sizes = [spec.dims, *hidden, spec.classes]
        pairs = list(pairwise(sizes))
        self.weights = nn.ParameterList(torch.empty(inputs, outputs) for inputs, outputs in pairs)
        self.biases = nn.ParameterList(torch.zeros(outputs) for _, outputs in pairs)
        self.initialise_()

    @torch.no_grad()
    def initialise_(self, generator: torch.Generator | None = None) -> None:
        """Draws the weights anew."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            weight.normal_(0, INITIALISATIONS[self.initialisation](*weight.shape), generator=generator)
            bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        return self.activations(images)[-1]

    @torch.no_grad()
    def activations(self, images: Tensor) -> list[Tensor]:
        """The forward pass: a_0, the pixels from 0 to 1 (B, C·H·W), each hidden layer's a_l, and last the logits.

        Args:
            images: (B, C, H, W), integers or floats 0 … levels−1.
        """
        first = self.weights[0]
        found = [images.flatten(1).to(first.dtype) / (self.spec.levels - 1)]
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            sums = torch.addmm(bias, found[-1], weight)
            found.append(sums if layer == last else sums.clamp_(min=0))
        return found

    @torch.no_grad()
    def gradients(self, activations: list[Tensor], labels: Tensor, l2: float = 0.0) -> list[Tensor]:
        """The backward pass: gradients of the mean cross-entropy + l2/2 · Σ‖W_l‖², ordered as `parameters()`.

        With δ_l the gradient of the mean with respect to layer l's sums: δ_L = (softmax(a_L) − onehot(y)) / B;
        δ_{l−1} = (δ_l W_lᵀ) where a_{l−1} > 0, else 0; ∂/∂W_l = a_{l−1}ᵀ δ_l + l2·W_l; ∂/∂b_l = δ_l summed over images.

        Args:
            activations: what the forward pass found.
            labels: integers (B,).
            l2: strength of the penalty; biases have none.
        """
        delta = activations[-1].softmax(1)
        delta[torch.arange(len(labels)), labels] -= 1
        delta /= len(labels)
        weights, biases = [], []
        for layer in reversed(range(len(self.weights))):
            weight, before = self.weights[layer], activations[layer]
            slope = before.T @ delta
            weights.append(slope.add_(weight, alpha=l2) if l2 else slope)
            biases.append(delta.sum(0))
            if layer:
                delta = (delta @ weight.T).mul_(before > 0)
        return weights[::-1] + biases[::-1]
