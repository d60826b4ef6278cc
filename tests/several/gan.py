"""The smallest game of two players: a generator and a discriminator of digits, and runs of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import open_dict
from torch import Tensor, nn

from datamodules.spec import ImageSpec
from lightning_modules.base import Measured
from lightning_modules.several import SeveralOptimizers
from running.composed import compose_config
from running.configured import final_config
from running.run import execute

LATENT, POOL = 3, 5
WORDS = ["task=multitask", "data=digits", "optimizer=adam", "adversary_optimizer=adam", "adversary_optimizer.lr=0.001"]
WORDS += ["stages=[fit]", "trainer.precision=32-true", "trainer.log_every_n_steps=1", "trainer.limit_val_batches=1"]
WORDS += ["trainer.limit_train_batches=7", "trainer.max_epochs=3", "trainer.val_check_interval=3", "patience=null"]
WORDS += ["checkpoint=last"]


class Players(nn.Module):
    """A generator with batch normalisation, and a discriminator with dropout."""

    def __init__(self, spec: ImageSpec):
        super().__init__()
        self.spec, pixels = spec, spec.height * spec.width
        self.generator = nn.Sequential(nn.Linear(LATENT, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, pixels))
        self.discriminator = nn.Sequential(nn.Linear(pixels, 6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.discriminator(images.flatten(1) / (self.spec.levels - 1))


class Game(SeveralOptimizers):
    """Least squares; one step of the generator and two of the discriminator a batch, on a pool of earlier images."""

    players: Mapping[str, str] = {"generator": "optimizer", "discriminator": "adversary_optimizer"}

    def __init__(self, network: Players, *others: Any, **named: Any):
        super().__init__(network, *others, **named)
        self.register_buffer("pool", torch.zeros(POOL, network.spec.height * network.spec.width))

    def parameters_of(self, player: str) -> Iterable[nn.Parameter]:
        return getattr(self.network, player).parameters()

    def play(self, batch: Any) -> Measured:
        network, (images, _) = self.network, batch
        fakes = []

        def of_generator() -> Tensor:
            fakes.append(network.generator(torch.randn(len(images), LATENT, device=self.device)))
            return (network.discriminator(fakes[0]) - 1).square().mean()

        def of_discriminator() -> Tensor:
            self.pool[torch.randperm(POOL)[:2]] = fakes[0][:2].detach()
            return ((network(images) - 1).square().mean() + network.discriminator(self.pool).square().mean()) / 2

        loss = self.step("generator", of_generator)
        judged = [self.step("discriminator", of_discriminator) for _ in range(2)]
        values = {"loss": loss.expand(len(images)), "judge": judged[1].expand(len(images))}
        return Measured(loss, values)

    def measure(self, batch: Any, split: str) -> Measured:
        judged = self.network(batch[0])[:, 0]
        return Measured(judged.mean(), {"loss": judged, "rising": torch.full_like(judged, float(self.batches_done))})


def run_game(words: list[str], folder: Path, **module: Any) -> float:
    """A run of the game, as `tests.conftest.run_here` makes one of a task that conf/ holds."""
    goes_on = any(word.startswith("ckpt_path=") for word in words)
    composed = compose_config([*(["adversary_optimizer=adam"] if goes_on else WORDS), *words])
    hydra_config = composed.hydra
    with open_dict(composed):
        del composed["hydra"]
        composed.model = {"_target_": f"{__name__}.Players", "_convert_": "object"}
        composed.task.module = {"_target_": f"{__name__}.Game", **module}
        composed.task.update(monitor="val/rising", mode="min", shown=["loss"])  # so that the first would be the best
    folder.mkdir(parents=True, exist_ok=True)
    return execute(final_config(composed, hydra_config), folder)
