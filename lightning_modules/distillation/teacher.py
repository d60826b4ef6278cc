"""The teacher: a trained classifier, found or trained, and frozen."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import lightning as L
import torch
from filelock import FileLock
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.seed import isolate_rng
from omegaconf import OmegaConf
from torch import Tensor, nn

from datamodules.errors import UsageError
from datamodules.files import whole_file
from datamodules.spec import ImageSpec
from lightning_modules.classification import Classification
from lightning_modules.classification.network import Classifier
from lightning_modules.distillation.checkpoints import write_classifier
from reporting.folder import find_checkpoint
from reporting.load import load_run, read_checkpoint

log = logging.getLogger(__name__)
NAME = "teacher.ckpt"  # beside the run's own checkpoints
OTHERS = ("cache", "batch_size", "eval_batch_size")  # options of data that its training does not depend on


class Teacher:
    """A classifier without gradients of its own, though one flows through it to the images.

    It is no module, so that no other module's `train()` reaches it, and no optimizer or checkpoint of the run holds it:
    each call says its mode, and what is not an ablation calls it in evaluation mode.
    """

    def __init__(self, network: Classifier, accuracy: float | None):
        self.network, self.accuracy = network.eval().requires_grad_(False), accuracy
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = 0.0  # running statistics stay as they are in train mode too

    def __call__(self, x: Tensor, train: bool = False) -> Tensor:
        """Logits of normalised images."""
        self.network.train(train)
        found = self.network.forward_normalised(x)
        self.network.eval()
        return found


def read_teacher(path: Path, spec: ImageSpec) -> Teacher:
    """The teacher in a checkpoint of task=classification.

    Raises:
        UsageError: it is of another task or of other images, or does not normalise them.
    """
    kept = read_checkpoint(path)
    if (task := kept["config"]["choices"]["task"]) != "classification":
        raise UsageError(f"teacher='{path}' is a run of task={task}, but a teacher is one of task=classification.")
    network, own, _ = load_run(path)
    if own != spec:
        raise UsageError(
            f"teacher='{path}' was trained on {own}, but the data is {spec}: choose the data it was trained on."
        )
    if not network.normalise:
        raise UsageError(
            f"teacher='{path}' does not normalise its images, which the generator's are: train one with "
            "model.normalise=true."
        )
    return Teacher(network, kept["metrics"].get("val/accuracy"))


def find_teacher(run: Any) -> Path | None:
    """The checkpoint of the teacher that a run has: its own, one beside the checkpoint it works on, or `teacher=`."""
    places = []
    if run.checkpoint_path is not None or "teacher" not in run.config.stages:
        places = [run.best_path.with_name(NAME)]
    if run.checkpoint_path is not None:
        places.append(Path(run.checkpoint_path).with_name(NAME))
    found = next((place for place in places if place.is_file()), None)
    if found is None and run.config.teacher is not None:
        return find_checkpoint(run.config.teacher)
    return found


def keep_teacher(path: Path, run: Any) -> Path:
    """Copies the teacher beside the run's checkpoints, so that it goes where the run goes."""
    own = run.best_path.with_name(NAME)
    if path.resolve() != own.resolve():
        own.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(own) as unfinished:
            shutil.copyfile(path, unfinished)
    return own


# Training one


def taught(run: Any) -> Path:
    """The checkpoint of a teacher trained as `task.teaching` says; of the same settings trained once, and cached."""
    config, data = run.config, run.datamodule
    settings = {
        "teaching": OmegaConf.to_container(config.task.teaching, resolve=True),
        "data": {k: v for k, v in OmegaConf.to_container(config.data, resolve=True).items() if k not in OTHERS},
        "spec": str(data.spec),
        "seed": config.seed,
        "trainer": [str(config.trainer[key]) for key in ("precision", "limit_train_batches")],
    }
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    path = Path(config.paths.cache).expanduser().absolute() / f"teacher-{key}.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.is_file():
            with isolate_rng():  # a run goes the same way with a teacher from the cache
                torch.manual_seed(config.seed)
                train_teacher(run, path)
    return path


def train_teacher(run: Any, path: Path) -> None:
    """Trains a classifier on the training images and writes its checkpoint."""
    config, teaching = run.config, run.config.task.teaching
    data = copy.copy(run.datamodule.data)
    data.batch_size, data.trainer = teaching.batch_size, None
    model = {**OmegaConf.to_container(teaching.model, resolve=True), "normalise": True}
    try:
        network = instantiate(model, spec=data.spec)
    except Exception as error:
        raise UsageError(f"The teacher of task.teaching.model cannot be: {error.__cause__ or error}") from error
    own = config.copy()
    own.optimizer, own.scheduler = teaching.optimizer, teaching.scheduler  # where one asks for the other's settings
    module = Classification(network, instantiate(own.optimizer), instantiate(own.scheduler))
    log.info("the teacher trains: %d epochs on %s", teaching.epochs, config.choices.data)
    trainer = L.Trainer(
        max_epochs=teaching.epochs,
        accelerator=config.trainer.accelerator,
        precision=config.trainer.precision,
        limit_train_batches=config.trainer.limit_train_batches,
        limit_val_batches=config.trainer.limit_val_batches,
        check_val_every_n_epoch=teaching.epochs,  # its last weights are taken
        num_sanity_val_steps=0,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Epochs()],
    )
    trainer.fit(module, datamodule=data)
    figures = {name: value.item() for name, value in trainer.callback_metrics.items() if "_step" not in name}
    own.adversary_optimizer = None
    _, choice = model["_target_"].rsplit(".", 1)
    write_classifier(path, network, data.spec, own, choice.lower(), model, figures, trainer.global_step)


class Epochs(Callback):
    """A log line at every fifth of the epochs."""

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        done, whole = trainer.current_epoch + 1, trainer.max_epochs
        if done * 5 // whole > (done - 1) * 5 // whole:
            log.info("teacher: epoch %d of %d, loss %.4f", done, whole, trainer.callback_metrics["train/loss_step"])


def flops_of(network: nn.Module, spec: ImageSpec) -> int:
    """Floating-point operations of one image, two to a multiply-add."""
    from torch.utils.flop_counter import FlopCounterMode

    device = next(network.parameters()).device
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, *spec.shape, device=device))
    return counter.get_total_flops()
