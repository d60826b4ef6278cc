"""What an attack came to: success by item, the worst case over attacks, and how sure a share is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from lightning_modules.attacks.crafting import Forward, exact

Z95 = 1.959964  # of a normal's two-sided 95 %


def kept(which: Tensor, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """Those items of each tensor; None stays None."""
    return tuple(None if tensor is None else tensor[which] for tensor in tensors)


def broken(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Is the most likely class a wrong one; with `targets`: the target? (N,)"""
    named = logits.argmax(1)
    return named != labels if targets is None else named == targets


@torch.no_grad()
def predicted(forward: Forward, images: Tensor) -> Tensor:
    """Logits (N, K) without a graph."""
    return forward(images).detach()


def judged(forward: Forward, images: Tensor) -> Tensor:
    """The logits (N, K) that decide, clean and attacked alike: float32, no gradients, no autocast."""
    with exact():
        return predicted(forward, images.detach().clone())


def succeeded(forward: Forward, images: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Which images are broken by the evaluation's own pass (N,)."""
    return broken(judged(forward, images), labels, targets)


def first_success(successes: Mapping[str, Tensor]) -> list[str]:
    """For each item the first attack, in the mapping's order, that broke it; `""` where none did."""
    names, marks = list(successes), torch.stack([mark.bool() for mark in successes.values()]).cpu()
    firsts, any_ = marks.int().argmax(0).tolist(), marks.any(0).tolist()
    return [names[first] if was else "" for first, was in zip(firsts, any_, strict=True)]


def worst_case(right: Tensor, successes: Mapping[str, Tensor]) -> Tensor:
    """Robust (N,): right when clean and broken by none of the attacks. Its mean is called robust accuracy."""
    robust = right.bool().clone()
    for success in successes.values():
        robust &= ~success.to(robust.device).bool()
    return robust


Attack = Callable[[Forward, Tensor, Tensor, Sequence[int]], Tensor]  # forward, images, labels, items → images


def in_sequence(
    attacks: Mapping[str, Attack], forward: Forward, images: Tensor, labels: Tensor, items: Sequence[int] | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Each attack on the items that still stand: right when clean and broken by none before.

    Args:
        attacks: name → (forward, images, labels, items) → images, in order.
        items: numbers of the items in their split.

    Returns:
        The images at the end (each item's first success, else its last attempt, else the original), and each attack's
        successes (N,), False where it was not tried. Robust are those right when clean without a success.
    """
    numbers = torch.arange(len(images)) if items is None else torch.tensor([int(item) for item in items])
    ends, successes = images.detach().clone(), {}
    standing = (~succeeded(forward, images, labels)).nonzero()[:, 0]
    for name, attack in attacks.items():
        successes[name] = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        if len(standing):
            moved = attack(forward, images[standing], labels[standing], numbers[standing.cpu()].tolist())
            won = succeeded(forward, moved, labels[standing])
            ends[standing], successes[name][standing] = moved, won
            standing = standing[~won]
    return ends, successes


def wilson(successes: float, tried: int, z: float = Z95) -> tuple[float, float]:
    """The interval of a share: (p̂ + z²/2n ± z √(p̂(1 − p̂)/n + z²/4n²)) / (1 + z²/n), inside [0, 1]; n = 0: all of it.

    Source: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference".
    """
    if not tried:
        return 0.0, 1.0
    share, extra = successes / tried, z * z / tried
    middle = (share + extra / 2) / (1 + extra)
    half = z * (share * (1 - share) / tried + extra / (4 * tried)) ** 0.5 / (1 + extra)
    return max(0.0, middle - half), min(1.0, middle + half)
