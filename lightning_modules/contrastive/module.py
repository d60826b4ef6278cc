"""The task: two towers trained to put images beside what is said of them, and the image tower defended."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.captions.batches import CaptionBatch
from datamodules.errors import UsageError
from lightning_modules import attacks
from lightning_modules.base import MakeOptimizer, MakeScheduler, Measured, Ratio, Task
from lightning_modules.classification.robustness.adversarial import WATCHED, Adversary
from lightning_modules.contrastive.attack import attack_names, check_attack
from lightning_modules.contrastive.comparison import comparison_sections
from lightning_modules.contrastive.loss import info_nce, recall, similarities
from lightning_modules.contrastive.report import report_sections
from lightning_modules.contrastive.towers import TwoTowers
from reporting.folder import find_checkpoint
from reporting.load import read_checkpoint
from reporting.report import ComparedRun, Section

NEAREST = (1, 5)  # that retrieval looks among


class Contrastive(Task):
    """InfoNCE over equal facts; or, with a defence, cross-entropy over the names of adversarial images.

    Logs, without a defence, for train, val and test the `loss` (InfoNCE, in nats, within a batch). Of val and test also
    `accuracy`, zero-shot among all names, of the images that show one class; of test `recall_at_1` and `recall_at_5`,
    means over both directions. Of images of classes never trained on, where the data has such, these end in `_unseen`.

    With a defence the `loss` of train and val is that defence's own, on adversarial images, and `robust_accuracy` is
    the share of these that its own logits, of the names trained on, have right; training crafts by `adversarial`,
    validation by PGD-10. The towers then start from a trained model's weights.

    Of each item tested are kept its label, fact, both embeddings and the zero-shot probabilities.

    Args:
        network: the two towers.
        optimizer: parameters → optimizer, given those that are trained.
        scheduler: (optimizer, total_steps=…) → a learning-rate schedule stepped after every batch.
        defence: the network's, see `TwoTowers`.
        start: a run's folder or a checkpoint, whose weights training starts from; None: from first weights.
        adversarial: how adversarial images are made, as in classification; its method is PGD.

    Raises:
        UsageError: a setting is impossible, or a defence has nothing to start from.
    """

    def __init__(
        self,
        network: TwoTowers,
        optimizer: MakeOptimizer,
        scheduler: MakeScheduler,
        defence: str = "none",
        start: str | None = None,
        adversarial: Mapping[str, Any] | None = None,
    ):
        super().__init__(network, optimizer, scheduler)
        self.defended, self.start, self.adversary = defence != "none", start, Adversary.of(adversarial)
        if self.defended and self.adversary.method != "pgd":
            raise UsageError(
                f"task.module.adversarial.method is {self.adversary.method}, but the defences are trained on images of "
                "pgd: leave it so; its steps may be 1."
            )
        self.class_tokens: list[Tensor] = []  # of each class the tokens of its sentences, where labels are all there is

    # Training

    def configure_optimizers(self) -> dict[str, Any]:
        """Weight decay is kept from vectors, which it would only hold back."""
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        matrices, vectors = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim < 2]
        groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
        return self.scheduled(self.make_optimizer([group for group in groups if group["params"]]))

    def measure(self, batch: Any, split: str) -> Measured:
        images, labels = (batch.images, batch.labels) if isinstance(batch, CaptionBatch) else batch
        if split == "train" and self.defended:
            return self.measure_defence(images, labels)
        image = self.network.image(images)
        values: dict[str, Tensor | Ratio] = {}
        if split != "train":
            logits = self.network.logits(image)
            values["accuracy"] = Ratio((logits.argmax(1) == labels) & (labels >= 0), labels >= 0)
        if split == "val" and self.defended:
            own = self.validate_defence(images, labels)
            return Measured(own["loss"].above.mean(), {**values, **own})
        text, fact = self.sentences_of(batch, split)
        losses = info_nce(similarities(image, text, self.network.scale), fact)
        values["loss"] = losses
        rows = {}
        if split.startswith("test"):
            rows = {"label": labels, "fact": fact, "image": image, "text": text, "probabilities": logits.softmax(1)}
        return Measured(losses.mean(), values, rows)

    def sentences_of(self, batch: Any, split: str) -> tuple[Tensor, Tensor]:
        """A sentence's embedding for each item (B, D), and the fact it tells (B,).

        Of images with labels alone: in training one drawn of the class's, by torch's generator, which a checkpoint
        keeps; else the first.
        """
        if isinstance(batch, CaptionBatch):
            return self.network.text(self.network.read(batch.codes)), batch.fact
        labels = batch[1]
        if not self.class_tokens:
            self.class_tokens = [self.network.tokens(own) for own in self.network.sentences]
        drawn = [
            own[int(torch.randint(len(own), ())) if split == "train" else 0]
            for own in (self.class_tokens[label] for label in labels.tolist())
        ]
        return self.network.text(torch.stack(drawn).to(labels.device)), labels

    # The defences

    def measure_defence(self, images: Tensor, labels: Tensor) -> Measured:
        target, images, labels = self.target(images, labels)
        moved = self.adversary.batch(target, images, labels, self.part_done) if len(images) else images
        losses, right = target.judged(moved, labels)
        return Measured(losses.sum() / max(1, len(losses)), {"loss": losses, "robust_accuracy": right})

    def validate_defence(self, images: Tensor, labels: Tensor) -> dict[str, Ratio]:
        """`loss` and `robust_accuracy` of the split's first images under PGD-10."""
        target, images, labels = self.target(images, labels)
        seen = int(self.sums["val"]["loss"][1]) if "loss" in self.sums["val"] else 0
        limit = max(1, self.adversary.val_items // self.trainer.world_size)
        tried = max(0, min(len(images), limit - seen))
        if not tried:
            nothing = torch.zeros(1, device=images.device)
            return {"loss": Ratio(nothing, nothing), "robust_accuracy": Ratio(nothing, nothing)}
        images, labels, most = images[:tried], labels[:tried], target.spec.levels - 1
        with attacks.crafting(target):
            forward, inside = attacks.forward_of(target, target.spec.levels), images.float() / most
            items = range(seen, seen + tried)
            moved = most * attacks.pgd(forward, inside, labels, eps=self.adversary.eps, steps=WATCHED, items=items)
        losses, right = target.judged(moved, labels)
        return {"loss": Ratio(losses, torch.ones_like(losses)), "robust_accuracy": Ratio(right, torch.ones_like(right))}

    def target(self, images: Tensor, labels: Tensor) -> tuple[Target, Tensor, Tensor]:
        """What a defence is trained on, and the images of one class with their labels among the names trained on."""
        held_out = set(self.trainer.datamodule.held_out)
        names = [number for number in range(len(self.network.captions.names)) if number not in held_out]
        place = torch.full((len(self.network.captions.names) + 1,), -1, device=labels.device)
        place[names] = torch.arange(len(names), device=labels.device)
        own = place[labels]  # of label −1 the last, which is no name's
        return Target(self.network, names), images[own >= 0], own[own >= 0]

    # Figures

    def figures(self, split: str, means: Mapping[str, Tensor], rows: Mapping[str, Tensor]) -> dict[str, Any]:
        if not split.startswith("test"):
            return {}
        found: dict[str, Any] = {"names": self.network.names.cpu().numpy()}
        for k in NEAREST:
            ways = recall(rows["image"], rows["text"], rows["fact"], k)
            found |= {f"recall_at_{k}": sum(ways) / 2, f"recall_at_{k}_image": ways[0], f"recall_at_{k}_text": ways[1]}
        return found

    @staticmethod
    def item_figures(predictions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Of each image of one class whether its name is found, among those trained on."""
        chosen = predictions["label"] >= 0
        right = predictions["probabilities"].argmax(1) == predictions["label"]
        return {"accuracy": right[chosen].astype(np.float64)}

    @staticmethod
    def comparison(runs: Sequence[ComparedRun], folder: Path) -> list[Section]:
        """The defences' table, and their robust accuracies' differences, paired over items and seeds."""
        return comparison_sections(runs)

    # Stages

    def check_stages(self, run: Any) -> None:
        """Also gives the network the weights that training starts from: only then is it known that they fit."""
        if run.checkpoint_path is None:  # else there are weights, the start's own no longer wanted
            self.begin(run.config.stages)
        if "attack" in run.config.stages:
            check_attack(run)

    def begin(self, stages: Sequence[str]) -> None:
        if not self.network.trained and self.start is None:
            if "fit" not in stages:
                raise UsageError(
                    f"stages=[{','.join(stages)}] need a trained network: give ckpt_path=… or start=RUN, or put fit "
                    "first."
                )
            if self.defended:
                raise UsageError(
                    f"task.module.defence={self.network.defence} defends a trained model: give start=RUN, the folder "
                    "of a run of this task without a defence."
                )
        if self.defended:  # frozen towers stay in evaluation mode, about which Lightning wonders
            warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
        if self.start is not None:
            start_from(self.network, self.start)
        self.network.begin_head()

    def stage_attack(self, run: Any) -> None:
        """Attacks test images of seen and of unseen names: see `attack.py`."""
        attack_names(self.network, self.device, run)

    def report(self, run: Any) -> list[Section]:
        return report_sections(self.network, self.device, run)


class Target(nn.Module):
    """What a defence is trained on: images → logits over the names trained on (B, seen)."""

    def __init__(self, network: TwoTowers, names: Sequence[int]):
        super().__init__()
        self.network, self.names, self.spec = network, list(names), network.captions
        self.training = network.training  # crafting puts each module's own mode back

    def forward(self, images: Tensor) -> Tensor:
        return self.network.training_logits(images)[:, self.names]

    def judged(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of each item, and whether it is right (B,)."""
        logits = self(images)
        return F.cross_entropy(logits, labels, reduction="none"), (logits.argmax(1) == labels).float()


def weights_of(network: TwoTowers, start: str) -> dict[str, Tensor]:
    """The weights of the network of a run, or of a checkpoint.

    Raises:
        UsageError: there is none, or it is of another task, or has a defence itself.
    """
    path = find_checkpoint(start)
    checkpoint = read_checkpoint(path)
    task = checkpoint["config"]["choices"]["task"]
    defence = checkpoint["config"]["task"]["module"].get("defence", "none")
    if task != "contrastive" or defence != "none":
        other = f"of task={task}" if task != "contrastive" else f"of a run with task.module.defence={defence}"
        raise UsageError(f"start='{path}' is {other}: give a run of task=contrastive without a defence.")
    prefix = "network."
    return {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}


def start_from(network: TwoTowers, start: str) -> None:
    """Gives the network the weights of a trained one; `weights_of` says what it raises, and where they do not fit."""
    try:
        network.start_from(weights_of(network, start))
    except RuntimeError as error:
        said = str(error).splitlines()[-1].strip().rstrip(".")
        raise UsageError(
            f"start='{start}' is another network than this command's ({said}): give the words of its model too."
        ) from error
