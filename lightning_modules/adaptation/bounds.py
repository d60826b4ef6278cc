"""The stage `bounds`: the same network, as many steps, trained on the source alone and on the target's labels."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn import functional as F

from datamodules.cache import cached_arrays
from datamodules.domains.pairs import PairDataModule
from datamodules.errors import UsageError
from lightning_modules.adaptation.distances import mean_kernel_distance
from lightning_modules.adaptation.network import SOURCE, TARGET, DigitNetwork, SourceOnly, TargetTrained
from lightning_modules.adaptation.predicting import outputs, probabilities
from reporting.folder import read_metrics
from reporting.load import read_checkpoint
from reporting.predictions import write_predictions

log = logging.getLogger(__name__)

VERSION = 1  # of how the bounds are trained; part of their cache's key
KEPT = 500  # test images of each domain whose features are kept for the report


def measure_bounds(classifier: DigitNetwork, run: Any) -> None:
    """Trains both bounds, or takes them from the cache; leaves their figures and `bounds.npz`.

    Figures: `test/source_only_accuracy` and, with batch normalisation, `test/adabn_accuracy` of it with the target's
    statistics; `test/target_trained_accuracy`; `test/gap_closed` = (this run − source only) / (target trained − source
    only); of the upper bound's last hidden layer `test/kernel_distance_floor` (target against target) and
    `test/kernel_distance_source` (source against target).
    """
    networks, data, device = bounds_of(classifier, run), run.datamodule, run.module.device
    images, labels = data.splits["target_test"]
    judged = {"source_only": networks["source"], "target_trained": networks["target"]}
    if classifier.norm != "none":
        judged["adabn"] = with_target_statistics(networks["source"], data.splits["target_train"].images, device)
    kept, accuracies = {"label": labels}, {}
    for name, network in judged.items():
        kept[name] = probabilities(network, images, TARGET, device)
        accuracies[name] = float((kept[name].argmax(1) == labels).mean())
        run.metrics[f"test/{name}_accuracy"] = accuracies[name]
    for domain, number in (("source", SOURCE), ("target", TARGET)):
        pictures = data.splits[f"{domain}_test"].images[:KEPT]
        kept[f"features_{domain}"] = outputs(networks["source"].features, pictures, number, device)
    lower, upper = accuracies["source_only"], accuracies["target_trained"]
    own = (read_metrics(run.folder) | run.metrics).get("test/accuracy")
    if own is not None and upper > lower:
        run.metrics["test/gap_closed"] = (own - lower) / (upper - lower)
    run.metrics |= own_distances(networks["target"], data, device)
    write_predictions(run.folder, kept, "bounds.npz")
    log.info("bounds: source only %.4f, trained on the target's labels %.4f", lower, upper)


def bounds_of(classifier: DigitNetwork, run: Any) -> dict[str, DigitNetwork]:
    """The networks trained on `source` and on `target`, of the classifier's settings, from the cache if they are there.

    Raises:
        UsageError: nothing says for how many steps.
    """
    steps, found = steps_of(run), {}
    for domain, kind in (("source", SourceOnly), ("target", TargetTrained)):
        weights = cached_weights(domain, kind, classifier, run, steps)
        network = kind(classifier.spec, **classifier.settings).to(run.module.device)
        network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
        found[domain] = network.eval()
    return found


def cached_weights(
    domain: str, kind: type[DigitNetwork], like: DigitNetwork, run: Any, steps: int
) -> dict[str, np.ndarray]:
    """The weights of a network of `like`'s settings trained on a domain for so many steps, kept in the cache."""
    config = run.config
    key = {
        "version": VERSION,
        "data": run.datamodule.fingerprint,
        "network": [domain, str(like.spec), like.settings],
        "training": OmegaConf.to_container(
            OmegaConf.masked_copy(config, ["optimizer", "scheduler", "seed"]), resolve=True
        ),
        "steps": [steps, run.datamodule.batch_size, str(config.trainer.precision)],
    }
    folder = Path(config.paths.cache).expanduser().absolute()
    return cached_arrays(folder, f"bound_{domain}", key, partial(trained_weights, kind, like, run, steps))


def steps_of(run: Any) -> int:
    """For how many steps the run was trained."""
    known = read_metrics(run.folder) | run.metrics
    if "steps" in known:
        return int(known["steps"])
    path = run.checkpoint_path
    if path is None:
        raise UsageError("The stage bounds trains for as many steps as the run: put fit before it, or give ckpt_path=…")
    checkpoint = read_checkpoint(path)
    return int(checkpoint.get("batches_done", checkpoint["global_step"]))


def trained_weights(kind: type[DigitNetwork], like: DigitNetwork, run: Any, steps: int) -> dict[str, np.ndarray]:
    """The weights of a network trained anew."""
    device = run.module.device
    # The run's own draws go on as if nothing had been trained here: whether the cache has the weights changes no run.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(run.config.seed)
        network = kind(like.spec, **like.settings).to(device)
        log.info("bounds: a network of the %s's labels, %s steps", network.trains_on, f"{steps:,}")
        train_classifier(
            network,
            batches_of(network, run.datamodule),
            TARGET if network.trains_on == "target" else SOURCE,
            optimizer=instantiate(run.config.optimizer),
            scheduler=instantiate(run.config.scheduler),
            steps=steps,
            context=run.trainer.precision_plugin.forward_context,
        )
    return {name: value.detach().cpu().numpy() for name, value in network.state_dict().items()}


def batches_of(network: DigitNetwork, data: PairDataModule) -> Iterator[tuple[Tensor, Tensor]]:
    """The labelled images of one domain, epoch after epoch, in the order in which a run sees them."""
    loader = data.train_dataloader()
    own = (
        torch.from_numpy(np.array(data.target_labels("train", peeking=True))) if network.trains_on == "target" else None
    )
    for epoch in count():
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            yield (batch.source, batch.labels) if own is None else (batch.target, own[batch.rows])


def train_classifier(
    network: DigitNetwork,
    batches: Iterator[tuple[Tensor, Tensor]],
    domain: int,
    *,
    optimizer: Callable[..., torch.optim.Optimizer],
    scheduler: Callable[..., Any],
    steps: int,
    context: Callable[[], Any] = nullcontext,
) -> None:
    """Cross-entropy on labelled images of one domain, a step for each batch.

    Args:
        batches: (images, labels), as many as there are steps or more.
        context: what the forward pass runs in, say a mixed precision.
    """
    device = next(network.parameters()).device
    stepping = optimizer(network.parameters())
    schedule = scheduler(stepping, total_steps=steps)
    network.train()
    for images, labels in islice(batches, steps):
        with context():
            loss = F.cross_entropy(network(images.to(device), domain).float(), labels.to(device))
        stepping.zero_grad()
        loss.backward()
        stepping.step()
        schedule.step()
    network.eval()


@torch.no_grad()
def with_target_statistics(
    network: DigitNetwork, images: np.ndarray, device: torch.device | str, batch: int = 256
) -> DigitNetwork:
    """AdaBN (Li et al. 2016, arXiv 1603.04779): a copy whose normalisations have the statistics of these images.

    Those are the means over batches of the images that trained, without labels; the weights stay.
    """
    adapted = copy.deepcopy(network).train()
    adapted.dropout.eval()
    for number, start in enumerate(range(0, len(images), batch), 1):
        for norm in (adapted.norm1, adapted.norm2):
            norm.momentum = 1 / number  # so that each batch counts alike
        adapted.features(torch.from_numpy(np.ascontiguousarray(images[start : start + batch])).to(device), TARGET)
    return adapted.eval()


def own_distances(network: DigitNetwork, data: PairDataModule, device: torch.device | str) -> dict[str, float]:
    """Of test images, in the upper bound's last hidden layer: target halves apart, and source from target."""
    source, target = (
        outputs(
            lambda *given: network.hidden(network.features(*given)), data.splits[f"{name}_test"].images, TARGET, device
        )
        for name in ("source", "target")
    )
    half = len(target) // 2
    if half < 2:
        return {}
    return {
        "test/kernel_distance_floor": mean_kernel_distance(target[:half], target[half:]),
        "test/kernel_distance_source": mean_kernel_distance(source, target),
    }
