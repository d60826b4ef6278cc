"""One tiny run of each kind that must go on exactly: all of it takes about two seconds, data made up included."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

LINES = ("To be, or not to be, that is the question:\n", "Whether 'tis nobler in the mind to suffer\n")
SHORT = ["patience=3", "trainer.precision=32-true", "trainer.log_every_n_steps=2", "trainer.limit_val_batches=2"]
IMAGES = [*SHORT, "trainer.limit_train_batches=8", "trainer.limit_test_batches=2", "trainer.max_epochs=3"]
DRAWN = ["task.module.samples=2", "task.module.completions=1", "task.module.snapshots=2"]
TEXT = [*SHORT, "task=char_lm", "data=text", "data.window=16", "data.batch_size=8", "data.eval_batch_size=8"]
TEXT += ["model.hidden=12", "model.embedding=6", "task.module.length=20", "trainer.max_epochs=2"]

SMALLEST = ["model.hidden=4", "model.layers=1", "trainer.val_check_interval=3"]
RISING = ["optimizer.lr=0.3", "scheduler=constant", "patience=2", "trainer.max_epochs=20"]
AUGMENTED = ["data=cifar10", "data.flip=random", "data.crop_padding=2", "data.val_items=40", "data.eval_batch_size=16"]
AVERAGED = [
    "optimizer=sgd",
    "average=0.9",
    "task.module.shown_images=[0]",
    "trainer.limit_train_batches=1.0",
]

CASES = {
    # Dropout, one-cycle rate, snapshots, validations in the middle of epochs.
    "pixelrnn": [*IMAGES, *DRAWN, *SMALLEST],
    # Batch normalisation, and an end by patience: the rate is so high that the loss rises.
    "pixelnet": ["model=pixelnet", *IMAGES, *DRAWN, *SMALLEST, *RISING],
    # Augmentation, the average of the weights, momentum, dropout; a validation at each epoch's end.
    "classification": ["task=classification", *IMAGES, *AUGMENTED, *AVERAGED, "model.filters=4", "model.depth=3"],
    # The state carried from window to window, and forgotten by chance; dropout.
    "char_lm": [*TEXT, "model.layers=2", "task.module.forget=0.3", "trainer.val_check_interval=5"],
    # Two optimizers, several steps of one a batch, noise, images kept at moments of the training; a teacher before it.
    "distillation": [
        "task=distillation",
        *SHORT,
        "patience=null",
        "model.student_width=2",
        "model.generator_width=2",
        "model.latent=3",
        "data.batch_size=8",
        "task.teaching.epochs=1",
        "task.teaching.model.filters=4",
        "task.module.iterations=8",
        "trainer.limit_test_batches=2",
        "trainer.max_epochs=3",
        "trainer.val_check_interval=3",
    ],
    # Shuffled windows from the zero state; a validation every other epoch; the state at a plateau's end.
    "char_gru": [
        *TEXT,
        "model=char_gru",
        "data.carry=false",
        "trainer.check_val_every_n_epoch=2",
        "scheduler=warmup_stable_decay",
    ],
}


def make_data(folder: Path) -> list[str]:
    """Writes the made-up data that the cases read, points the environment at it, and returns words that name it."""
    rng = np.random.default_rng(0)
    batches = folder / "cifar-10-batches-bin"
    batches.mkdir(parents=True)
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        records = rng.integers(0, 256, (40, 1 + 3 * 32 * 32), np.uint8)
        records[:, 0] %= 10
        records.tofile(batches / f"{name}.bin")
    (folder / "text.txt").write_text("".join(LINES[number] for number in rng.integers(0, 2, 60)), encoding="utf-8")
    os.environ.update(ETUDES_DATA=str(folder), ETUDES_CACHE=str(folder / "cache"))
    return [f"data.path={folder / 'text.txt'}"]
