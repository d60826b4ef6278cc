"""What the training loop costs: a run's own steps against bare ones, side by side in one training.

`python -m benchmarks.loop [--steps 20] [--words "experiment=cnn_record"]`; two minutes on one CPU core. The bare step
is loss, backward and optimizer on one batch that lies ready, in the run's precision. A run's own step is all that lies
between two of its batches: loading, augmentation, figures, checks, averages, schedule, curves; no validation.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from omegaconf import open_dict

from benchmarks.timing import ratio, seconds, spread, where
from datamodules.tools import Arguments, whole_number
from lightning_modules.base import Task
from running.build import make_data, make_module, make_trainer
from running.composed import compose_config
from running.configured import final_config
from running.precision import resolve_precision
from running.run import quieten

ROWS = {
    "CNN of 2.33 million parameters": "task=classification model.filters=64 model.depth=7 data.batch_size=128",
    "character LSTM": "task=char_lm",
    "Diagonal BiLSTM": "task=pixelrnn model=diag_bilstm",
}


class SideBySide(Callback):
    """Times `steps` of the run's steps, then as many bare ones, `rounds` times after one that does not count."""

    def __init__(self, steps: int, rounds: int):
        self.steps, self.rounds = steps, rounds
        self.times: dict[str, list[float]] = {"loop": [], "bare": []}
        self.done, self.started = 0, 0.0

    def on_train_batch_end(self, trainer: L.Trainer, module: Task, outputs: Any, batch: Any, number: int) -> None:
        self.done += 1
        if self.done % self.steps:
            return
        if self.started:
            # The device's work has ended too: the last step's loss is read.
            outputs["loss"].item()
            self.times["loop"].append((time.perf_counter() - self.started) / self.steps)
            self.times["bare"].append(seconds(partial(self.bare_steps, trainer, module, batch)) / self.steps)
        trainer.should_stop = len(self.times["loop"]) == self.rounds
        self.started = time.perf_counter()

    def bare_steps(self, trainer: L.Trainer, module: Task, batch: Any) -> None:
        (optimizer,) = trainer.optimizers
        for _ in range(self.steps):
            optimizer.zero_grad()
            with trainer.precision_plugin.train_step_context():
                loss = module.measure(batch, "train").loss
            loss.backward()
            optimizer.step()


def measured(words: list[str], steps: int, rounds: int) -> SideBySide:
    """The two kinds of step of the training that these words of a command describe."""
    composed = compose_config([*words, "trainer.max_epochs=100000", "patience=null", "budget.minutes=null"])
    hydra = composed.hydra
    with open_dict(composed):
        del composed["hydra"]
    config = final_config(composed, hydra)
    config.trainer.precision, _ = resolve_precision(str(config.trainer.precision), str(config.trainer.accelerator))
    L.seed_everything(config.seed, verbose=False)
    found = SideBySide(steps, rounds)
    with tempfile.TemporaryDirectory() as folder:
        data = make_data(config, None)
        module = make_module(config, data.spec, None)
        trainer = make_trainer(config, Path(folder), module, data.spec, None)
        trainer.limit_val_batches = 0
        trainer.callbacks.append(found)
        trainer.fit(module, datamodule=module.data_of(data.module))
    return found


def main() -> None:
    parser = Arguments(description="A run's own training steps against bare ones.")
    parser.add_argument("--steps", type=whole_number, default=20)
    parser.add_argument("--rounds", type=whole_number, default=5)
    parser.add_argument("--words", help="of a command, in place of the three rows")
    args = parser.parse_args()
    quieten()
    print(f"Bare steps and those of a training, {args.steps} at a time, {args.rounds} rounds; {where()}\n")
    print("| training | bare step, ms (min … max) | step in the loop, ms | bare / loop |")
    print("|---|---:|---:|---:|")
    for name, words in {args.words: args.words}.items() if args.words else ROWS.items():
        times = measured(words.split(), args.steps, args.rounds).times
        shown = [spread(times[kind], digits=1) for kind in ("bare", "loop")]
        print(f"| {name} | {' | '.join(shown)} | {ratio(times, 'bare', 'loop'):.2f} |", flush=True)


if __name__ == "__main__":
    main()
