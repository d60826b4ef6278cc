"""The task: a likelihood of drawings, and drawings."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.errors import UsageError, did_you_mean
from datamodules.strokes.batches import SketchBatch
from lightning_modules.base import MakeOptimizer, MakeScheduler, Measured, Task
from lightning_modules.sketch.comparison import comparison_sections
from lightning_modules.sketch.judging import judge_run
from lightning_modules.sketch.losses import annealed, divergence, padded_to, reconstruction
from lightning_modules.sketch.network import StrokeDecoder
from lightning_modules.sketch.report import report_sections
from lightning_modules.sketch.studio import (
    complete_files,
    draw_files,
    end_of_morph,
    half_drawn,
    morph_files,
    read_begun,
)
from reporting.report import ComparedRun, Section

log = logging.getLogger(__name__)

FORMATS = ("svg", "gif", "json")
FROM_CLASS = ("draw", "complete", "morph")  # stages that draw what is not there yet
NOISE = 20  # of the seeds from which a tested drawing's ε is drawn


class Sketch(Task):
    """The negative log-likelihood of drawings under a mixture density, and of z a divergence from its prior.

    Logs, for train, val and test, means over drawings: `l_s` and `l_p` (nats of offsets and pens over N_max), `l_r`
    their sum, `l_kl` (nats over N_z; 0 of a decoder alone), `loss` = l_r + w·l_kl, and `nats_per_sketch` (N_max·l_r,
    pens up to the first end); of the test also `elbo_nats` (nats_per_sketch + N_z·l_kl: the bound of −log p) and
    `l_r_floored` (what l_r is with magenta's floor of 1e-6 under each density). z is drawn once for each drawing that
    is validated or tested, always the same.

    Trained is L_R + w·η·max(L_KL, floor), the maximum of the batch's mean.

    Args:
        network: `SketchDecoder` or `SketchRNN`.
        optimizer: parameters → optimizer.
        scheduler: (optimizer, total_steps=…) → a learning-rate schedule stepped after every batch.
        kl: `weight` w, `floor`, and `start` and `rate` of η.
        pad_loss: pens of all N_max steps count, as eq. 9 is written.
        class_name, temperature, draws, format: what the stages draw and complete draw; None: all classes, all formats.
        sketch: the file that `complete` goes on from; None: half of a drawing of the network's own.
        origin, target, steps: what `morph` draws.
        judge_steps, judged: of training the judge; drawings of a class that it is shown.
        seed: of all that is drawn after training.

    Raises:
        UsageError: a setting is impossible, or the network knows no such class.
    """

    bar = ("nats_per_sketch",)

    def __init__(
        self,
        network: StrokeDecoder,
        optimizer: MakeOptimizer,
        scheduler: MakeScheduler,
        kl: Mapping[str, float] = {"weight": 0.5, "floor": 0.2, "start": 0.01, "rate": 0.999},
        pad_loss: bool = False,
        class_name: str | None = None,
        temperature: float = 0.5,
        draws: int = 10,
        format: str | None = None,
        sketch: str | None = None,
        origin: str | None = None,
        target: str | None = None,
        steps: int = 10,
        judge_steps: int = 600,
        judged: int = 200,
        seed: int = 0,
    ):
        super().__init__(network, optimizer, scheduler)
        check_kl(kl)
        check_drawing(temperature, draws, steps, format)
        for name, value in {"judge_steps": judge_steps, "judged": judged}.items():
            if not isinstance(value, int) or value < 1:
                raise UsageError(f"task.module.{name} is {value!r}, but it must be a whole number, 1 or more.")
        self.label = None if class_name is None else network.spec.number(str(class_name))
        self.kl, self.pad_loss, self.temperature, self.draws = dict(kl), pad_loss, float(temperature), draws
        self.formats = FORMATS if format is None else (format,)
        self.sketch, self.origin, self.target, self.steps = sketch, origin, target, steps
        self.judge_steps, self.judged, self.seed = judge_steps, judged, seed

    # Training and scoring

    def measure(self, batch: SketchBatch, split: str) -> Measured:
        network, training = self.network, split == "train"
        strokes, length = batch.strokes, network.spec.length
        if self.pad_loss:
            strokes = padded_to(strokes, length)
        labels = batch.labels if network.spec.classes else None
        if network.latent:
            noise = None if training else fixed_noise(batch.rows, network.latent).to(strokes)
            parameters, mean, log_variance = network(strokes, labels, noise)
            l_kl = divergence(mean, log_variance)
        else:
            parameters = network(strokes, labels)
            l_kl = torch.zeros(len(strokes), device=strokes.device)
        nats = reconstruction(parameters, strokes, self.pad_loss)
        own = nats.offsets + nats.pens
        if self.pad_loss:  # whose figures beside others' are of a drawing up to its end, as ever
            own = nats.offsets + reconstruction(parameters, strokes, False).pens
        l_s, l_p = nats.offsets / length, nats.pens / length
        l_r, weight = l_s + l_p, self.kl["weight"] if network.latent else 0.0
        eta = annealed(self.global_step, self.kl["start"], self.kl["rate"]) if training else 1.0
        loss = l_r.mean() + weight * eta * l_kl.mean().clamp(min=self.kl["floor"]) if weight else l_r.mean()
        values = {
            "loss": l_r + weight * l_kl,
            "l_s": l_s,
            "l_p": l_p,
            "l_r": l_r,
            "l_kl": l_kl,
            "nats_per_sketch": own,
        }
        if not split.startswith("test"):
            return Measured(loss, values)
        bound = own + network.latent * l_kl
        values |= {"elbo_nats": bound, "l_r_floored": (nats.floored + nats.pens) / length}
        return Measured(loss, values, {"label": batch.labels, "nats_per_sketch": own, "elbo_nats": bound})

    @staticmethod
    def item_figures(predictions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"elbo_nats": predictions["elbo_nats"]}

    @staticmethod
    def comparison(runs: Sequence[ComparedRun], folder: Path) -> list[Section]:
        """The judge's figures, and L_R against L_KL."""
        return comparison_sections(runs, folder)

    def check_stages(self, run: Any) -> None:
        asked = [stage for stage in FROM_CLASS if stage in run.config.stages]
        if asked and self.network.looks == "encoder":
            raise UsageError(
                "A network with attention=encoder looks at the drawing that it redraws, so it cannot draw from a "
                f"class: leave out the stage {asked[0]}, or train with model.attention=past or none."
            )
        if "complete" in asked:
            self.begun()
        if "morph" in asked:
            for option, value in {"from": self.origin, "to": self.target}.items():
                if value is None:
                    raise UsageError(f"stages=[morph] needs {option}=…: a class's name, or a JSON file of a drawing.")
                self.end_of_morph(str(value), 0)

    # Drawing

    def stage_judge(self, run: Any) -> None:
        """Shows the network's drawings to a judge trained on real ones; leaves `judged.json`."""
        judge_run(self, run)

    def stage_draw(self, run: Any) -> None:
        """Draws of each class, or of one; leaves animations and JSON in `drawings/`."""
        draw_files(self, run.folder / "drawings")

    def stage_complete(self, run: Any) -> None:
        """Goes on from a drawing in several ways; leaves `drawings/completed.*`."""
        complete_files(self, self.begun(), run.folder / "drawings")

    def stage_morph(self, run: Any) -> None:
        """Draws what lies between two drawings, or classes; leaves `drawings/morph.*`."""
        ends = [self.end_of_morph(str(value), number) for number, value in enumerate((self.origin, self.target))]
        morph_files(self, ends, run.folder / "drawings")

    def begun(self) -> Tensor:
        """The strokes of `sketch=` (1, S, 5), without its last end; without it half of a drawing of the network's own.

        Raises:
            UsageError: it is no drawing, or too long to go on from.
        """
        if self.sketch is None:
            return half_drawn(self.network, self.label or 0, self.seed)
        return read_begun(str(self.sketch), self.network)

    def end_of_morph(self, name: str, number: int) -> tuple[Tensor | None, Tensor]:
        """z (1, latent) and class vector (1, embedding) of an end: a class's name, or a file.

        Raises:
            UsageError: it is neither, or the network cannot encode a drawing.
        """
        return end_of_morph(self, name, number)

    def report(self, run: Any) -> list[Section]:
        return report_sections(self, run)


def fixed_noise(rows: Tensor, latent: int) -> Tensor:
    """ε (B, latent) of a drawing that is tested, by its number alone: whatever its batch, always the same."""
    drawn = [np.random.default_rng((NOISE, int(row))).standard_normal(latent) for row in rows]
    return torch.from_numpy(np.stack(drawn)).float()


def check_kl(kl: Mapping[str, float]) -> None:
    """Raises UsageError when a setting of the divergence cannot be."""
    for name, most in {"weight": math.inf, "floor": math.inf, "start": 1.0, "rate": 1.0}.items():
        value = kl.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
            limit = "0 or more" if most == math.inf else "from 0 to 1"
            raise UsageError(f"task.module.kl.{name} is {value!r}, but it must be a number, {limit}.")


def check_drawing(temperature: float, draws: int, steps: int, format: str | None) -> None:
    """Raises UsageError when what is to be drawn cannot be."""
    number = isinstance(temperature, (int, float)) and not isinstance(temperature, bool)
    if not number or not temperature > 0 or not math.isfinite(temperature):
        raise UsageError(
            f"temperature is {temperature!r}, but it must be above 0 (0 would be the most probable stroke each time: "
            "0.01 comes close)."
        )
    for name, value, least in (("draws", draws, 1), ("steps", steps, 2)):
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= 1000:
            raise UsageError(f"{name} is {value!r}, but it must be a whole number from {least} to 1000.")
    if format is not None and format not in FORMATS:
        raise UsageError(f"format is '{format}'{did_you_mean(str(format), FORMATS)}: choose svg, gif or json.")
