"""The state in which adversarial images are crafted, and everything put back afterwards."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from datamodules.errors import UsageError
from lightning_modules.attacks.losses import Loss

P, R = ParamSpec("P"), TypeVar("R")
Forward = Callable[[Tensor], Tensor]  # float images in [0, 1] (N, C, H, W) → logits (N, K)


def forward_of(network: nn.Module, levels: int) -> Forward:
    """A network of this project, which takes intensities 0 … levels − 1, as a function of images in [0, 1]."""
    return lambda images: network(images * (levels - 1))


@contextmanager
def exact() -> Iterator[None]:
    """Gradients exist and are float32's: no inference mode, no autocast, no TF32 or bfloat16 inside products.

    Lightning tests in inference mode, where enabling gradients alone does nothing. What was set before is set again,
    after an exception too.
    """
    precision, tf32 = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with ExitStack() as stack:
        stack.callback(torch.set_float32_matmul_precision, precision)
        stack.callback(setattr, torch.backends.cudnn, "allow_tf32", tf32)
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def crafting(network: nn.Module, mode: str = "eval", precise: bool = True) -> Iterator[None]:
    """`exact`, and the network as an attack may use it: its parameters frozen, in eval mode.

    Every module's own mode and every parameter's `requires_grad` come back, after an exception too.

    Args:
        network: what is attacked.
        mode: `eval`; `train`: batch normalisation sees the adversarial images too (Madry's code crafts so); or `asis`.
        precise: False keeps the precision and autocast of outside, as training may want; gradients are enabled.

    Raises:
        UsageError: another mode.
    """
    if mode not in ("eval", "train", "asis"):
        raise UsageError(f"craft_mode is {mode}, but it must be eval, train or asis.")
    modes = [(module, module.training) for module in network.modules()]
    parameters = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    with ExitStack() as stack:
        stack.callback(_put_back, modes, parameters)
        if mode != "asis":
            network.train(mode == "train")
        for parameter, _ in parameters:
            parameter.requires_grad_(False)
        if precise:
            stack.enter_context(exact())
        else:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
        yield


def _put_back(modes: list[tuple[nn.Module, bool]], parameters: list[tuple[nn.Parameter, bool]]) -> None:
    for module, training in modes:
        module.training = training
    for parameter, required in parameters:
        parameter.requires_grad_(required)


def crafted(attack: Callable[P, R]) -> Callable[P, R]:
    """Decorates an attack: it runs in `exact`."""

    @functools.wraps(attack)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with exact():
            return attack(*args, **kwargs)

    return run


def copied(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """Copies that gradients may pass: those made in inference mode could not be saved for a backward pass."""
    return tuple(None if tensor is None else tensor.detach().clone() for tensor in tensors)


def gradient(
    forward: Forward, images: Tensor, labels: Tensor, loss: Loss, targets: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """One pass each way: the loss's gradient (N, C, H, W), the logits (N, K) and the losses (N,), all detached.

    A gradient that is not finite counts as zero. No parameter's `.grad` is touched.
    """
    images = images.detach().requires_grad_()
    logits = forward(images)
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    losses = loss(logits, labels, targets)
    (found,) = torch.autograd.grad(losses.sum(), images)
    return found.nan_to_num(0, 0, 0), logits.detach(), losses.detach()


class Passes:
    """A `forward` that counts the images it was shown: what an attack costs.

    Attributes:
        forwards: images passed forward.
        backwards: those of them whose gradient was wanted.
    """

    def __init__(self, forward: Forward):
        self.forward, self.forwards, self.backwards = forward, 0, 0

    def __call__(self, images: Tensor) -> Tensor:
        self.forwards += len(images)
        self.backwards += len(images) * (images.requires_grad and torch.is_grad_enabled())
        return self.forward(images)
