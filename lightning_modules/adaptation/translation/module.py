"""The tasks with several optimizers: CycleGAN, and CyCADA, whose labeller watches the translations' classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.domains.pairs import PairBatch
from datamodules.errors import UsageError
from lightning_modules.adaptation.network import SOURCE, DigitNetwork
from lightning_modules.adaptation.reversal import domain_loss, domain_losses, reversal_strength, reverse
from lightning_modules.adaptation.translation.cycada import CyCADA
from lightning_modules.adaptation.translation.cyclegan import CycleGAN
from lightning_modules.adaptation.translation.labeller import train_labeller
from lightning_modules.adaptation.translation.losses import fooling_loss, judged_loss, pixel_loss, semantic_loss
from lightning_modules.adaptation.translation.pool import ImagePool
from lightning_modules.adaptation.translation.report import translation_sections
from lightning_modules.adaptation.translation.stage import translate_images
from lightning_modules.adaptation.translation.translated import (
    bound_figures,
    save_snapshot,
    translate,
    translation_figures,
)
from lightning_modules.adaptation.two_domains import TwoDomains
from lightning_modules.base import Measured
from lightning_modules.several import SeveralOptimizers
from reporting.report import Section

CLASSIFIERS = ("joint", "after")
AFTER = 0.25  # the last part of a training, in which classifier=after learns
SNAPSHOTS = 6  # of the same digits' translations over a training


class Translation(SeveralOptimizers, TwoDomains):
    """Zhu et al. 2017, and a classifier that learns from translated source images and their labels.

    The steps of a batch: both generators together, both discriminators together, the classifier. It sees the images
    that the generators' step made, detached. Or it has the last quarter of the training for itself: the others stay as
    they are by then.

    Logs of training `loss` (all that the generators lower; the classifier's where it is alone), `fooling`, `cycle` and
    `identity` as they stand in it, `judged` of the discriminators, `classifier_loss` and `accuracy_translated`.
    `val/accuracy_source` is of translated validation images; the test has `test/cycle_l1` and, with noise,
    `test/diversity`: the mean |G(x, z₁) − G(x, z₂)|.

    Args:
        network, others: as of `SeveralOptimizers` and `TwoDomains`.
        cycle: weight of |F(G(x_s)) − x_s|, and of the target's cycle unless `cycle_target` says another.
        cycle_target: of |G(F(x_t)) − x_t|.
        identity: weight of |G(x_t) − x_t| and |F(x_s) − x_s|, in multiples of `cycle`.
        pool: earlier translations that each discriminator is shown too.
        task_through_generator: G lowers the classifier's loss too (PixelDA).
        classifier: when it is trained: joint, beside the others; or after them.

    Raises:
        UsageError: a weight or the pool's size is below 0; `classifier` is neither, or after and G needs it before.
    """

    def __init__(
        self,
        network: CycleGAN,
        *,
        cycle: float = 10.0,
        cycle_target: float | None = None,
        identity: float = 0.5,
        pool: int = 50,
        task_through_generator: bool = False,
        classifier: str = "joint",
        **others: Any,
    ):
        super().__init__(network, **others)
        if classifier not in CLASSIFIERS:
            raise UsageError(f"task.module.classifier is '{classifier}': choose one of {', '.join(CLASSIFIERS)}.")
        if classifier == "after" and task_through_generator:
            raise UsageError(
                "task.module.task_through_generator=true needs the classifier while G learns: choose "
                "task.module.classifier=joint."
            )
        self.joint = classifier == "joint"
        self.cycle, self.identity = cycle, identity
        self.cycle_target = cycle if cycle_target is None else cycle_target
        require_weights(cycle=cycle, cycle_target=self.cycle_target, identity=identity, pool=pool)
        self.task_through_generator = task_through_generator
        self.pool_target, self.pool_source = (ImagePool(pool, network.spec.shape) for _ in range(2))

    @property
    def classifier(self) -> DigitNetwork:
        return self.network.classifier

    @property
    def players(self) -> Mapping[str, str]:
        return {"generators": "optimizer", "discriminators": "adversary_optimizer", "classifier": "optimizer"}

    def parameters_of(self, player: str) -> Iterable[nn.Parameter]:
        network = self.network
        modules = {
            "generators": [network.to_target, network.to_source],
            "discriminators": [network.judge_target, network.judge_source],
            "classifier": [network.classifier],
        }[player]
        return (parameter for module in modules for parameter in module.parameters())

    # The steps of a batch

    def play(self, batch: PairBatch) -> Measured:
        network, labels = self.network, batch.labels
        source, target = network.scaled(batch.source), network.scaled(batch.target)
        if not self.joint and self.part_done >= 1 - AFTER:
            with torch.no_grad():
                translated = network.to_target(source)
            return self.taught(translated, batch)
        parts: dict[str, Tensor] = {}
        made: dict[str, Tensor] = {}

        def of_generators() -> Tensor:
            made["target"], made["source"] = network.to_target(source), network.to_source(target)
            parts.update(self.generator_parts(source, target, made["target"], made["source"], labels))
            return torch.stack([*parts.values()]).sum()

        def of_discriminators() -> Tensor:
            return sum(
                judged_loss(judge(real), judge(pool.query(fake)))
                for judge, pool, real, fake in (
                    (network.judge_target, self.pool_target, target, made["target"]),
                    (network.judge_source, self.pool_source, source, made["source"]),
                )
            )

        loss = self.step("generators", of_generators)
        judged = self.step("discriminators", of_discriminators)
        means = {**parts, "judged": judged, "loss": loss}
        values = {name: value.detach().expand(len(labels)) for name, value in means.items()}
        if self.joint:
            values = self.taught(made["target"].detach(), batch).values | values
        return Measured(loss, values)

    def taught(self, translated: Tensor, batch: PairBatch) -> Measured:
        """The classifier's step on translated images."""
        labels, logits = batch.labels, []
        loss = self.step("classifier", lambda: self.classifier_loss(translated, batch.target, labels, logits))
        each = loss.expand(len(labels))
        right = logits[0].argmax(1) == labels
        return Measured(loss, {"loss": each, "classifier_loss": each, "accuracy_translated": right})

    def generator_parts(
        self, source: Tensor, target: Tensor, made_target: Tensor, made_source: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        """What the generators lower, each part with its weight."""
        network = self.network
        found = {
            "fooling": fooling_loss(network.judge_target(made_target)) + fooling_loss(network.judge_source(made_source))
        }
        found["cycle"] = self.cycle * pixel_loss(network.to_source(made_target), source)
        if self.cycle_target:
            found["cycle"] = found["cycle"] + self.cycle_target * pixel_loss(network.to_target(made_source), target)
        if self.identity:
            stays = pixel_loss(network.to_target(target), target) + pixel_loss(network.to_source(source), source)
            found["identity"] = self.identity * self.cycle * stays
        if self.task_through_generator:
            found["task"] = F.cross_entropy(network.classify(made_target).float(), labels)
        return found

    def classifier_loss(self, translated: Tensor, target: Tensor, labels: Tensor, logits: list[Tensor]) -> Tensor:
        """Cross-entropy on translated images; appends the classifier's logits."""
        logits.append(self.network.classify(translated).float())
        return F.cross_entropy(logits[0], labels)

    # Figures

    def measure(self, batch: Any, split: str) -> Measured:
        if split == "val_source":
            images, labels = batch
            return super().measure((self.network.intensities(translate(self.network, images)), labels), "val")
        return super().measure(batch, split)

    def domain_figures(self) -> dict[str, float]:
        return super().domain_figures() | translation_figures(self)

    def on_validated(self, found: Mapping[str, float]) -> None:
        super().on_validated(found)
        if self.trainer.is_global_zero:
            save_snapshot(self, SNAPSHOTS)

    def stage_bounds(self, run: Any) -> None:
        super().stage_bounds(run)
        run.metrics |= {f"test/{name}": value for name, value in bound_figures(self, run).items()}

    def stage_translate(self, run: Any) -> None:
        """Source images, or a folder's, and their translations as files."""
        translate_images(self, run)

    def report(self, run: Any) -> list[Section]:
        return [*translation_sections(self, run), *super().report(run)]


class SemanticTranslation(Translation):
    """CyCADA: f_S, trained on the source beforehand and fixed, must find in a translation the class of its original.

    Logs also `semantic` as it stands in the generators' loss, f_S's own `val/labeller_accuracy_source`, and
    `test/semantic_agreement`: in how many G(x_s) f_S finds the label of x_s.

    Args:
        others: as of `Translation`.
        semantic: weight of f_S's cross-entropy on G(x_s).
        semantic_labels: of which labels: the source's own (true), or f_S's (false: the paper's).
        semantic_target: weight, in multiples of `semantic`, of its cross-entropy on F(x_t) with its own label of x_t (1
            in the paper). f_S is right on barely half of the target for the whole run: it binds F to wrong digits.
        semantic_gate: least confidence of f_S in its label of x_t for that to count (none in the paper).
        semantic_start: the part of the training after which f_S is asked.
        source_steps: of f_S's own training.
        feature_level: the classifier's domain head tells G(x_s) from x_t behind a reversed gradient (in the place of
            equation 5's second game): DANN on translated images.
        gamma: how fast its λ grows, as of `Adaptation`.

    Raises:
        UsageError: a weight is below 0, or a share above 1.
    """

    def __init__(
        self,
        network: CyCADA,
        *,
        semantic: float = 1.0,
        semantic_labels: bool = True,
        semantic_target: float = 0.0,
        semantic_gate: float = 0.0,
        semantic_start: float = 0.0,
        source_steps: int = 500,
        feature_level: bool = False,
        gamma: float = 10.0,
        **others: Any,
    ):
        super().__init__(network, **others)
        require_weights(semantic=semantic, semantic_target=semantic_target, semantic_gate=semantic_gate, gamma=gamma)
        require_weights(semantic_start=semantic_start, source_steps=source_steps)
        for name, value in {"semantic_gate": semantic_gate, "semantic_start": semantic_start}.items():
            if value > 1:
                raise UsageError(f"task.module.{name} is {value}, but it is a share: it must be from 0 to 1.")
        self.semantic, self.semantic_target, self.semantic_gate = semantic, semantic_target, semantic_gate
        self.semantic_labels, self.semantic_start = semantic_labels, semantic_start
        self.source_steps, self.feature_level, self.gamma = source_steps, feature_level, gamma

    def measure(self, batch: Any, split: str) -> Measured:
        measured = super().measure(batch, split)
        if split != "val_source":
            return measured
        images, labels = batch
        right = self.network.labeller(images, SOURCE).argmax(1) == labels
        return measured._replace(values={**measured.values, "labeller_accuracy": right})

    def before_fit(self, run: Any) -> None:
        """Trains f_S, or takes it from the cache, or from `source_ckpt`."""
        self.to(run.trainer.strategy.root_device)  # where there is one, the GPU trains it too
        train_labeller(self.network.labeller, run, self.source_steps)

    def generator_parts(
        self, source: Tensor, target: Tensor, made_target: Tensor, made_source: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        found = super().generator_parts(source, target, made_target, made_source, labels)
        if self.semantic and self.part_done >= self.semantic_start:
            found["semantic"] = self.semantic * self.semantic_parts(source, target, made_target, made_source, labels)
        return found

    def semantic_parts(
        self, source: Tensor, target: Tensor, made_target: Tensor, made_source: Tensor, labels: Tensor
    ) -> Tensor:
        """L_sem (equation 4): both halves through f_S as it is."""
        label = self.network.label_logits
        wanted = labels if self.semantic_labels else label(source).argmax(1)
        found = semantic_loss(label(made_target), wanted)
        if self.semantic_target:
            with torch.no_grad():
                sure, own = label(target).float().softmax(1).max(1)
            lost = semantic_loss(label(made_source), own, sure, self.semantic_gate)
            found = found + self.semantic_target * lost
        return found

    def classifier_loss(self, translated: Tensor, target: Tensor, labels: Tensor, logits: list[Tensor]) -> Tensor:
        if not self.feature_level:
            return super().classifier_loss(translated, target, labels, logits)
        network, items = self.network.classifier, len(labels)
        features = network.features_of_both(self.network.intensities(translated), target.float())
        logits.append(network.classify(features[:items]).float())
        reversed_features = reverse(features, reversal_strength(self.part_done, self.gamma))
        losses = domain_losses(network.domain_logits(reversed_features).float(), items)
        return F.cross_entropy(logits[0], labels) + domain_loss(losses, items)


def require_weights(**settings: float) -> None:
    """Raises UsageError when a setting of the module is below 0."""
    for name, value in settings.items():
        if value < 0:
            raise UsageError(f"task.module.{name} is {value}, but it must be 0 or more.")
