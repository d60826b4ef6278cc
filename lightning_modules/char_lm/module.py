"""The task: likelihood of text, truncated back-propagation with carried state, both ways to score, generation."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.nn import functional as F

from datamodules.errors import UsageError
from datamodules.files import whole_file
from datamodules.text import SCORINGS
from datamodules.text_loader import TextBatch
from datamodules.vocabulary import UNKNOWN, decode, encode
from lightning_modules.base import MakeOptimizer, MakeScheduler, Task, gathered, split_means
from lightning_modules.char_lm.dynamic import dynamic_scores
from lightning_modules.char_lm.generation import generate
from lightning_modules.char_lm.recurrent import RecurrentLM, State, detached, select_rows
from lightning_modules.char_lm.report import report_sections
from reporting.report import Section, write_text

log = logging.getLogger(__name__)

MOST = 1_000_000  # characters, and texts
DIVERGED = 100.0  # nats per character: no probabilities any more
MEANS = ("train", "val", *SCORINGS)


class CharLM(Task):
    """Negative log-likelihood of text under a recurrent network.

    Logs, for train, val and test: `loss` (nats per character, or per word), `perplexity` (its exponential), `accuracy`
    (how often the most probable character is the right one) and `bits_per_char` (or `bits_per_word`). The training
    figures are means over what was trained on since the last validation, dropout and all. The test is scored twice,
    `test/loss_carried` and `test/loss_reset` and so on; those without an ending are of the way `data.scoring` names,
    in which `val` is scored too.

    Args:
        network: one of this package's networks.
        optimizer: parameters → optimizer.
        scheduler: (optimizer, total_steps=…) → a learning-rate schedule stepped after every batch.
        forget: the chance that a stream which carries its state begins a training window from the zero state, so that
            the network learns to start from it too.
        prompt: what generated texts go on from; None: the text's own first line.
        length: characters, or words, to generate.
        draws: texts of each temperature.
        temperature: of the texts, one or several.
        top_k: generate from so many most probable characters; None: all.
        top_p: generate from the nucleus of this probability; None: all.
        adapt_lr: learning rates of the stage `adapt`, of which it takes the best on validation text.
        adapt_window: codes between two of its steps.
        seed: of generation, apart from the training's random numbers.

    Raises:
        UsageError: a number is impossible, or the prompt has a character that the network has never seen.
    """

    def __init__(
        self,
        network: RecurrentLM,
        optimizer: MakeOptimizer,
        scheduler: MakeScheduler,
        forget: float = 0.0,
        prompt: str | None = None,
        length: int = 500,
        draws: int = 1,
        temperature: float | Sequence[float] = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        adapt_lr: float | Sequence[float] = (0.03, 0.1, 0.3),
        adapt_window: int = 32,
        seed: int = 0,
    ):
        super().__init__(network, optimizer, scheduler)
        self.temperatures = [temperature] if isinstance(temperature, (int, float)) else list(temperature)
        check_generation(length, draws, self.temperatures, top_k, top_p)
        if not 0 <= forget <= 1:
            raise UsageError(f"task.module.forget is {forget}, but a chance lies between 0 and 1.")
        self.adapt_lr = [adapt_lr] if isinstance(adapt_lr, (int, float)) else list(adapt_lr)
        self.adapt_window = adapt_window
        if not self.adapt_lr or not all(isinstance(lr, (int, float)) and 0 < lr < math.inf for lr in self.adapt_lr):
            raise UsageError(f"task.module.adapt_lr is {adapt_lr}, but it must be a number above 0, or several.")
        if not isinstance(adapt_window, int) or not 1 <= adapt_window <= MOST:
            raise UsageError(f"task.module.adapt_window is {adapt_window}, but it must be from 1 to {MOST}.")
        self.prompt = None if prompt is None else str(prompt)
        if self.prompt is not None:
            self._codes_of(self.prompt)
        self.forget, self.length, self.draws = forget, length, draws
        self.top_k, self.top_p, self.seed = top_k, top_p, seed
        self.nats, self.hits = split_means(MEANS), split_means(MEANS)
        self.state: State | None = None  # of the training streams
        self.scored_state: State | None = None
        self.tested: dict[str, list[dict[str, np.ndarray]]] = {}

    def _codes_of(self, prompt: str) -> np.ndarray:
        codes = encode(prompt, self.network.spec)
        if not len(codes):
            raise UsageError("prompt is empty: give at least one character.")
        return codes

    # Training and scoring

    def _score(self, batch: TextBatch, mean: str, state: State | None) -> tuple[Tensor, Tensor, State]:
        """Nats and hits (B, T) of a batch's targets, counted in a mean, and the state after it."""
        logits, state = self.network(batch.inputs, state if batch.carried else None)
        nats = F.cross_entropy(logits.float().flatten(0, 1), batch.targets.flatten(), reduction="none")
        hits = logits.detach().argmax(-1) == batch.targets
        # One value for each code, not a batch's mean: batches differ in size, and MeanMetric drops weights here.
        self.nats[f"{mean}_mean"].update(nats.detach())
        self.hits[f"{mean}_mean"].update(hits.flatten())
        return nats.view_as(batch.targets), hits, detached(state)

    def _log_means(self, mean: str, split: str, ending: str = "") -> None:
        nats, hits = self.nats[f"{mean}_mean"], self.hits[f"{mean}_mean"]
        loss, accuracy = nats.compute(), hits.compute()
        self.log(f"{split}/loss{ending}", loss, prog_bar=not ending)
        self.log(f"{split}/perplexity{ending}", loss.exp())
        self.log(f"{split}/bits_per_{self.network.spec.unit}{ending}", loss / math.log(2))
        self.log(f"{split}/accuracy{ending}", accuracy)

    def _reset_means(self, *names: str) -> None:
        for name in names:
            self.nats[f"{name}_mean"].reset()
            self.hits[f"{name}_mean"].reset()

    def training_step(self, batch: TextBatch, number: int) -> Tensor:
        if batch.carried and self.forget:
            # A function of (seed, step), so that a run that goes on draws as the whole one does.
            chance = np.random.default_rng((self.seed, self.global_step)).random(len(batch.inputs))
            self.state = select_rows(self.state, torch.from_numpy(chance >= self.forget).to(self.device))
        nats, _, self.state = self._score(batch, "train", self.state)
        loss = nats.mean()
        self.log("train/loss_step", loss.detach(), prog_bar=True)
        return loss

    def validation_step(self, batch: TextBatch, number: int) -> None:
        _, _, self.scored_state = self._score(batch, "val", self.scored_state)

    def on_validation_epoch_end(self) -> None:
        if self.nats["train_mean"].update_called:
            self._log_means("train", "train")
        self._log_means("val", "val")
        self._reset_means("train", "val")
        # A short text for TensorBoard, before the checkpoint: a run that goes on from it does not write it again.
        if self.trainer.is_global_zero:
            drawn = self.texts(self.starting_text(self.trainer.datamodule), length=min(self.length, 200))
            self._show_on_board(self.trainer, drawn, self.trainer.global_step - 1)  # as this validation's figures

    def on_test_epoch_start(self) -> None:
        self.tested = {scoring: [] for scoring in SCORINGS}
        self._reset_means(*SCORINGS)

    def test_step(self, batch: TextBatch, number: int, dataloader_idx: int = 0) -> None:
        scoring = SCORINGS[dataloader_idx]
        nats, hits, self.scored_state = self._score(batch, scoring, self.scored_state)
        rows = {"code": batch.targets, "nats": nats, "hit": hits}
        self.tested[scoring].append({name: part.flatten().cpu().numpy() for name, part in rows.items()})

    def on_test_epoch_end(self) -> None:
        for scoring in SCORINGS:
            self._log_means(scoring, "test", f"_{scoring}")
        self._log_means(self.trainer.datamodule.scoring, "test")

    def predictions(self) -> dict[str, np.ndarray]:
        """For each code of the test stretch, in order: the code; its nats and whether it was the most probable one,
        carried and reset."""
        arrays = {}
        for scoring, batches in self.tested.items():
            rows = {name: np.concatenate([batch[name] for batch in batches]) for name in ("code", "nats", "hit")}
            arrays |= {f"nats_{scoring}": rows["nats"].astype(np.float32), f"hit_{scoring}": rows["hit"]}
            arrays[f"code_{scoring}"] = rows["code"].astype(np.int32)
        return arrays

    def on_step_skipped(self) -> None:
        """The state carried out of a step that was not finite would spoil all that follow: they start from zero."""
        self.state = None if self.state is None else tuple(torch.zeros_like(part) for part in self.state)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Of every process, each of which has streams of its own.
        state = None if self.state is None else [part.cpu() for part in self.state]
        checkpoint["carried_state"] = gathered(state)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["carried_state"][self.trainer.global_rank]
        self.state = None if state is None else tuple(part.to(self.device) for part in state)

    # Generation

    def starting_text(self, datamodule: Any) -> str:
        """The prompt, or the first line of the text."""
        if self.prompt is not None:
            return self.prompt
        if not datamodule.text:
            raise UsageError("The text whose first line would begin is not there: give prompt=… to go on from.")
        first = next(line for line in datamodule.text.splitlines() if line.strip())[:60]
        return f"{first}\n" if self.network.spec.unit == "word" or "\n" in self.network.spec.vocabulary else first

    def texts(self, prompt: str, length: int) -> list[dict[str, Any]]:
        """`draws` texts of each temperature, all drawn as one batch: temperature, prompt and the text that follows."""
        temperatures = [value for value in self.temperatures for _ in range(self.draws)]
        codes = torch.from_numpy(self._codes_of(prompt)).to(self.device).repeat(len(temperatures), 1)
        generator = torch.Generator(self.device).manual_seed(self.seed)
        heat = torch.tensor(temperatures, device=self.device)
        drawn = generate(self.network, codes, length, heat, self.top_k, self.top_p, generator).cpu().numpy()
        return [
            {"temperature": float(value), "prompt": prompt, "text": decode(row, self.network.spec)}
            for value, row in zip(temperatures, drawn, strict=True)
        ]

    def _show_on_board(self, trainer: L.Trainer, drawn: list[dict[str, Any]], step: int | None = None) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                for entry in drawn:
                    # Four blanks before a line: Markdown then shows it as it is.
                    text = "    " + (entry["prompt"] + entry["text"]).replace("\n", "\n    ")
                    logger.experiment.add_text(f"temperature {entry['temperature']:g}", text, global_step=step)

    def stage_generate(self, run: Any) -> None:
        """Generates text; prints it, and leaves `generated.json`."""
        prompt = self.starting_text(run.datamodule)
        if self.network.spec.unit == "word" and 0 in self._codes_of(prompt):
            log.warning("The prompt has words outside the vocabulary: each is read as %s.", UNKNOWN)
        drawn = self.texts(prompt, self.length)
        write_text(run.folder / "generated.json", json.dumps(drawn, indent=1, ensure_ascii=False) + "\n")
        self._show_on_board(run.trainer, drawn)
        for entry in drawn:
            log.info("temperature %g:\n%s%s\n", entry["temperature"], entry["prompt"], entry["text"])

    def stage_adapt(self, run: Any) -> None:
        """Dynamic evaluation: scores the test stretch with weights that go on learning from what they have scored.

        Logs `test/loss_dynamic` and so on beside the carried and reset figures; leaves `adapted.npz`.

        Raises:
            UsageError: validation text is not a stretch of its own, on which a learning rate could be chosen; or no
                rate leads anywhere.
        """
        data = run.datamodule
        if data.split != "temporal":
            raise UsageError("stages=[adapt] needs validation text of its own: train with data.split=temporal.")
        tried = {}
        for lr in self.adapt_lr:
            nats = dynamic_scores(self.network, data.scored("val", "carried"), lr, self.adapt_window).nats
            loss = nats.double().mean().item()
            tried[lr] = loss if loss < DIVERGED else math.inf
            log.info("adapt: learning rate %g: val/loss_dynamic %.4f", lr, loss)
        lr = min(tried, key=tried.get)
        if math.isinf(tried[lr]):
            raise UsageError(
                f"Dynamic evaluation diverges with task.module.adapt_lr={list(tried)}: give smaller rates."
            )
        nats, hits = dynamic_scores(self.network, data.scored("test", "carried"), lr, self.adapt_window)
        loss = nats.double().mean().item()
        figures = {"loss": loss, "perplexity": math.exp(loss), f"bits_per_{self.network.spec.unit}": loss / math.log(2)}
        figures["accuracy"] = hits.double().mean().item()
        run.metrics |= {f"test/{name}_dynamic": value for name, value in figures.items()}
        run.metrics |= {"val/loss_dynamic": tried[lr], "adapt/lr": lr, "adapt/window": self.adapt_window}
        log.info("adapt: %s", "  ".join(f"test/{name}_dynamic {value:.4f}" for name, value in figures.items()))
        with whole_file(run.folder / "adapted.npz") as unfinished:
            np.savez_compressed(unfinished, nats=nats.numpy(), hit=hits.numpy())

    def report(self, run: Any) -> list[Section]:
        """What the run's report shows."""
        return report_sections(self.network, run)


def check_generation(
    length: int, draws: int, temperatures: Sequence[float], top_k: int | None, top_p: float | None
) -> None:
    """Raises UsageError when one of these cannot be."""
    for name, value in [("length", length), ("draws", draws), ("top_k", 1 if top_k is None else top_k)]:
        if not isinstance(value, int) or not 1 <= value <= MOST:
            raise UsageError(f"task.module.{name} is {value!r}, but it must be a whole number from 1 to {MOST}.")
    for value in temperatures:
        if not isinstance(value, (int, float)) or not value > 0 or not math.isfinite(value):
            raise UsageError(f"task.module.temperature is {value!r}, but it must be above 0.")
    if not temperatures:
        raise UsageError("task.module.temperature is an empty list: give one temperature or several.")
    if top_p is not None and not 0 < top_p <= 1:
        raise UsageError(f"task.module.top_p is {top_p}, but a probability above 0 and up to 1 is needed.")
