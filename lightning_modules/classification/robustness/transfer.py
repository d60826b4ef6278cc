"""Images crafted on another run's network: what an attacker without the weights has.

Source: Papernot, McDaniel & Goodfellow 2016, "Transferability in Machine Learning" (arXiv 1605.07277).
"""

from __future__ import annotations

from pathlib import Path

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec
from lightning_modules.classification.network import Classifier, kind
from reporting.load import load_run


def surrogate(run: str | Path, spec: ImageSpec) -> Classifier:
    """The network of another run, in evaluation mode, for images of this spec.

    Raises:
        UsageError: there is no such run, or its network is of other images or classes.
    """
    network = load_run(run).network
    if not isinstance(network, Classifier):
        raise UsageError(f"attack.transfer: '{run}' is no classifier's run: give one of task=classification.")
    ours, theirs = spec, network.spec
    if (ours.channels, ours.height, ours.width) != (theirs.channels, theirs.height, theirs.width):
        raise UsageError(
            f"attack.transfer: '{run}' was trained on {described(theirs)} images, but these are {described(ours)}: "
            "give a run of the same size and channels."
        )
    if ours.classes != theirs.classes:
        raise UsageError(
            f"attack.transfer: '{run}' tells {theirs.classes} classes apart, but there are {ours.classes} here: give a "
            "run of the same classes."
        )
    return network


def described(spec: ImageSpec) -> str:
    return f"{kind(spec.channels)} {spec.height}×{spec.width}"
