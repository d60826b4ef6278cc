"""Every configuration that conf/ holds: claimed, composed, run for a batch, and read back."""

from __future__ import annotations

import json

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from datamodules.errors import UsageError
from datamodules.spec import ImageSpec
from reporting.folder import CONF
from reporting.load import load_run
from running.check import check_config
from running.composed import compose_config
from tests.conftest import LARGE, MODELS, PAIRS, SMALLEST, TASKS, run_here
from tests.smallest import inputs

PUBLISHED_GROUPS = ("data", "optimizer", "adversary_optimizer", "scheduler", "trainer", "model", "task", "experiment",
                    "sweep", "debug")  # fmt: skip


def test_every_model_is_claimed_by_a_task():
    claimed = {model for task in TASKS.values() for model in [*task.models, *task.get("large_models", [])]}
    assert claimed == set(MODELS)


@pytest.mark.parametrize(
    ("group", "choice"),
    [(group, path.stem) for group in PUBLISHED_GROUPS for path in sorted((CONF / group).glob("*.yaml"))],
)
def test_every_choice_composes(group, choice):
    config = compose_config([f"{group}={choice}"])
    assert config.hydra.runtime.choices[group] == choice
    OmegaConf.to_container(config, resolve=False)


@pytest.mark.parametrize(("task", "model"), PAIRS)
def test_every_model_instantiates_from_a_bare_composition(task, model):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", [f"task={task}", f"model={model}"])
    smallest = SMALLEST[task]
    network = instantiate(config.model, spec=smallest.spec)
    assert network.spec == smallest.spec and type(network.spec) is type(smallest.spec)
    check_output(network, smallest, smallest.spec)


@pytest.mark.parametrize(("task", "model"), [*LARGE, ("classification", "cnn")])
def test_a_large_model_composes_and_is_built_without_memory(task, model):
    config = compose_config([f"task={task}", f"model={model}"])
    check_config(OmegaConf.masked_copy(config, [key for key in config if key != "hydra"]), model, task)
    with torch.device("meta"):
        network = instantiate(config.model, spec=SMALLEST[task].spec)
    assert all(parameter.is_meta for parameter in network.parameters())


def test_a_large_model_is_one_of_the_tasks():
    config = compose_config(["task=classification", "model=pixelcnn", "+task.large_models=[pixelcnn]"])
    check_config(config, "pixelcnn", "classification")
    with pytest.raises(UsageError, match=r"choose one of cnn, vit, resnet, lenet5, .*pixelcnn"):
        check_config(config, "row_lstm", "classification")


def check_output(network, smallest, spec):
    """The network's first (or only) output has the task's shape."""
    given = inputs(spec)
    output = network.eval()(given)
    output = output[0] if isinstance(output, tuple) else output
    assert output.shape == smallest.output(spec, len(given))


@pytest.mark.parametrize(("task", "model"), PAIRS)
def test_every_pair_fits_tests_reports_and_reloads(task, model, tmp_path):
    monitored = run_here([f"task={task}", f"model={model}", "debug=quick", *SMALLEST[task].words_of(model)], tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert monitored == metrics[TASKS[task].monitor]
    assert all(f"test/{name}" in metrics for name in TASKS[task].shown)
    assert (tmp_path / "report.md").exists()
    network, spec, config = load_run(tmp_path)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == metrics["parameters"]
    assert config.choices.model == model and not network.training
    check_output(network, SMALLEST[task], spec)


def test_a_word_beats_an_experiment_beats_a_task():
    config = compose_config(["experiment=pixelrnn_cifar10_small", "model=row_lstm", "model.layers=5"])
    assert (config.model.hidden, config.model.layers, config.data.batch_size) == (32, 5, 4)
    assert config.model._target_.endswith("RowLSTM") and config.optimizer._target_.endswith("Adam")
    words = ["experiment=pixelrnn_cifar10_small", "optimizer=rmsprop"]
    assert compose_config(words).optimizer._target_.endswith("RMSprop")
    assert compose_config(["model=row_lstm"]).optimizer._target_.endswith("RMSprop")
    assert compose_config(["model=pixelnet"]).optimizer._target_.endswith("Adam")
    assert compose_config(["model=pixelnet", "optimizer=rmsprop"]).optimizer._target_.endswith("RMSprop")


@pytest.mark.parametrize(
    ("model", "layers"), [("pixelcnn", 15), ("row_lstm", 12), ("diag_bilstm", 12), ("pixelnet", 6)]
)
def test_the_papers_presets_have_the_papers_depth(model, layers):
    config = compose_config(["experiment=pixelrnn_cifar10", f"model={model}", "model.hidden=6", "model.output_maps=6"])
    assert len(instantiate(config.model, spec=ImageSpec(3, 32, 32, 256)).layers) == layers
