"""Attacks side by side with foolbox's and ART's, on one network trained ordinarily and one trained on attacked images.

    python -m benchmarks.attacks [--items 256] [--filters 32] [--steps 300]

About two minutes on one core. Digits, the CNN of the classification task, L∞, ε = 0.15; each attack draws its own
start. PGD-20: the same steps, of 2.5 ε / 20; this project's ends an item at its first success, the others make all
steps. PGD-40 × 2: ending so against all steps of all items, also at an ε that leaves nothing of the ordinary network.
Both networks are made here, in float32.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.timing import ratio, side_by_side, spread, where
from datamodules.images.digits import Digits
from datamodules.tools import Arguments, whole_number
from lightning_modules.attacks import adversarial, crafting, forward_of, pgd, succeeded
from lightning_modules.classification import CNN

EPS, ROUNDS = 0.15, 5


class Scaled(nn.Module):
    """The network as a function of images in [0, 1], a module, as foolbox and ART want it."""

    def __init__(self, network: nn.Module, levels: int):
        super().__init__()
        self.network, self.scaled = network, forward_of(network, levels)

    def forward(self, images: Tensor) -> Tensor:
        return self.scaled(images)


def trained(data: Digits, images: Tensor, labels: Tensor, args: argparse.Namespace, method: str | None) -> nn.Module:
    """The CNN after so many steps of Adam on batches of 64; `method`: on attacked ones."""
    torch.manual_seed(0)
    network = Scaled(CNN(data.spec, filters=args.filters, dropout=0.0), data.spec.levels).train()
    optimizer, generator = torch.optim.Adam(network.parameters(), 2e-3), torch.Generator().manual_seed(0)
    for _ in range(args.steps):
        batch = torch.randint(len(images), (64,), generator=generator)
        x, y = images[batch], labels[batch]
        if method:
            with crafting(network):
                x = adversarial(method, network, x, y, eps=EPS, generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()
    return network.eval()


def attacks_of(network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, object]:
    """PGD-20 by name, each a function without arguments that gives adversarial images."""
    import foolbox
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    step = 2.5 * EPS / 20
    wrapped = PyTorchClassifier(
        network,
        loss=nn.CrossEntropyLoss(reduction="sum"),
        input_shape=tuple(images.shape[1:]),
        nb_classes=10,
        clip_values=(0, 1),
        device_type="cpu",
    )
    art = ProjectedGradientDescent(
        wrapped, np.inf, EPS, step, max_iter=20, num_random_init=1, batch_size=len(images), verbose=False
    )
    model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    fool = foolbox.attacks.LinfProjectedGradientDescentAttack(abs_stepsize=step, steps=20)
    return {
        "ours": lambda: pgd(network, images, labels, eps=EPS, step=step, steps=20),
        "foolbox": lambda: fool.run(model, images, foolbox.criteria.Misclassification(labels), epsilon=EPS),
        "ART": lambda: torch.from_numpy(art.generate(images.numpy(), labels.numpy())),
    }


def robust(network: nn.Module, moved: Tensor, labels: Tensor) -> str:
    return f"{100 * (~succeeded(network, moved, labels)).float().mean():.1f} %"


def single(name: str, network: nn.Module, images: Tensor, labels: Tensor) -> str:
    ways = attacks_of(network, images, labels)
    left = " · ".join(robust(network, way(), labels) for way in ways.values())
    times = side_by_side(ways, ROUNDS)
    faster = min(ratio(times, other, "ours") for other in ("foolbox", "ART"))
    return f"| {name} | {left} | {' | '.join(spread(times[way]) for way in ways)} | {faster:.2f} |"


def restarted(name: str, network: nn.Module, images: Tensor, labels: Tensor, eps: float) -> str:
    way = {"eps": eps, "steps": 40, "restarts": 2}
    ways = {
        "first": lambda: pgd(network, images, labels, **way),
        "last": lambda: pgd(network, images, labels, keep="last", **way),
    }
    left = " · ".join(robust(network, run(), labels) for run in ways.values())
    times = side_by_side(ways, ROUNDS)
    part = 1 / ratio(times, "last", "first")
    return f"| {name} | {eps} | {left} | {spread(times['first'])} | {spread(times['last'])} | {part:.2f} |"


def main() -> None:
    parser = Arguments(description="Seconds of attacks, beside foolbox and ART.")
    parser.add_argument("--items", type=whole_number, default=256, help="test images attacked, 360 at most")
    parser.add_argument("--filters", type=whole_number, default=32)
    parser.add_argument("--steps", type=whole_number, default=300, help="of training, for each network")
    args = parser.parse_args()
    data = Digits()
    splits = {
        name: (torch.from_numpy(split.images) / (data.spec.levels - 1), torch.from_numpy(split.labels))
        for name, split in data.load_splits().items()
    }
    images, labels = (kept[: args.items] for kept in splits["test"])
    networks = {
        "ordinary": trained(data, *splits["train"], args, None),
        "trained on FGSM-RS": trained(data, *splits["train"], args, "fgsm_rs"),
    }
    print(f"Milliseconds for {len(images)} digits; {where()}\n")
    print(f"PGD-20, ε = {EPS}\n")
    print("| network | robust: ours · foolbox · ART | ours | foolbox | ART | faster of them / ours |")
    print("|---|---|---:|---:|---:|---:|")
    for name, network in networks.items():
        print(single(name, network, images, labels), flush=True)
    print("\nPGD-40 × 2\n\n| network | ε | robust: first success · all steps | first success | all steps | part |")
    print("|---|---:|---|---:|---:|---:|")
    for name, eps in (("ordinary", 2 * EPS), ("ordinary", EPS), ("trained on FGSM-RS", EPS)):
        print(restarted(name, networks[name], images, labels, eps), flush=True)


if __name__ == "__main__":
    main()
