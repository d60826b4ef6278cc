"""A checkpoint or configuration from someone else runs no code, and nothing reaches for the network unasked."""

from __future__ import annotations

import os
import pickle
import shutil
import socket
import subprocess
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from datamodules.errors import UsageError
from reporting import targets
from reporting.compare import main as compare
from reporting.load import load_run, read_checkpoint
from reporting.targets import allowed_calls, check_calls, check_hydra, moved
from running.check import compose_config
from tests.commands import train_ended
from tests.conftest import PAIRS, QUICK, SMALLEST, TASKS, run_here

ADAM = {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.1}


class Payload:
    """Leaves a file when it is unpickled."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


PLANTED = {
    "torch.hub.load": {"_target_": "torch.hub.load", "repo_or_dir": "someone/model", "model": "theirs"},
    "os.system": {"_target_": "os.system", "command": "true"},
    "subprocess.Popen": {"_target_": "subprocess.Popen", "_args_": [["true"]]},
    "torch.utils.cpp_extension.load_inline": {"_target_": "torch.utils.cpp_extension.load_inline", "name": "x"},
    "builtins.eval": {"_target_": "builtins.eval", "_args_": ["1"]},
    "hydra.utils.get_method": {"_target_": "hydra.utils.get_method", "path": "os.system"},
    # Names that begin as ours do, or as a known one does
    "datamodules.shakespeare.urlopen": {"_target_": "datamodules.shakespeare.urlopen", "url": "http://localhost"},
    "datamodules.cache.shutil.rmtree": {"_target_": "datamodules.cache.shutil.rmtree", "path": "/nowhere"},
    "lightning_modules.base.torch.hub.load": {"_target_": "lightning_modules.base.torch.hub.load"},
    "torch.optim.Adam.__init__": {"_target_": "torch.optim.Adam.__init__"},
    "torch.optim.LBFGS": {"_target_": "torch.optim.LBFGS", "_partial_": True},
    # Inside what is allowed
    "os.execv": {**ADAM, "params": {"a": [{"_target_": "os.execv", "path": "true"}]}},
    "os.abort": {**ADAM, "params": ({"_target_": "os.abort"},)},
}


@pytest.mark.parametrize("target", PLANTED)
def test_what_is_not_on_the_list_is_refused(target):
    with pytest.raises(UsageError, match=rf"^it asks to run {target}, which is none") as error:
        check_calls({"model": {"a": PLANTED[target]}}, "it")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "node",
    [
        {**ADAM, "_args_": ["x"]},
        {**ADAM, "_partial_": False},
        {"_target_": "torch.optim.Adam"},
        {**ADAM, "_recursive_": False},
        {**ADAM, "_convert_": "partial"},
        {"_target_": "lightning.Trainer", "_partial_": True},
    ],
    ids=str,
)
def test_an_allowed_name_called_in_another_way_is_refused(node):
    with pytest.raises(UsageError, match=r"calls (torch\.optim\.Adam|lightning\.Trainer) with .* as no file of conf"):
        check_calls({"optimizer": node}, "it")
    check_calls({"optimizer": ADAM, "trainer": {"_target_": "lightning.Trainer"}}, "it")


@pytest.mark.parametrize(
    "text",
    [
        "${oc.create:{_target_:os.system}}",
        "${ oc.create :x}",
        "${oc.env:HOME}",
        "${oc.env:ETUDES_DATA,${oc.create:x}}",
        "${${a}.create:x}",
        "${oc.decode:'{_target_: os.system}'}",
    ],
)
def test_text_that_could_become_a_call_is_refused(text):
    with pytest.raises(UsageError, match="refused"):
        check_calls({"model": text}, "it")
    check_calls({"model": "${optimizer.lr}", "data": "${oc.env:ETUDES_DATA,data}"}, "it")


def test_every_configuration_of_the_project_is_allowed():
    for task, model in PAIRS:
        config = compose_config([f"task={task}", f"model={model}"])
        check_hydra(OmegaConf.to_container(config.hydra), "it")
        del config._content["hydra"]
        check_calls(OmegaConf.to_container(config), "it")


def test_what_an_earlier_version_called_is_found_where_it_is_now(quick_run, tmp_path):
    names = [dict(call).get("_target_", "") for call in allowed_calls()]
    ends = [(name.split(".")[0], name.split(".")[-1]) for name in set(names)]
    assert len(ends) == len(set(ends)), "two names of one package end alike"
    for path in (targets.REPOSITORY / "results").rglob("config.yaml"):
        check_calls(moved(OmegaConf.to_container(OmegaConf.load(path))), str(path))
    assert moved(PLANTED) == PLANTED
    checkpoint = read_checkpoint(quick_run / "checkpoints/best.ckpt")
    now, checkpoint["config"]["data"]["_target_"] = checkpoint["config"]["data"]["_target_"], "datamodules.old.Digits"
    torch.save(checkpoint, tmp_path / "earlier.ckpt")
    assert now.endswith(".Digits") and read_checkpoint(tmp_path / "earlier.ckpt")["config"]["data"]["_target_"] == now


def test_a_file_put_into_conf_widens_nothing_but_to_what_the_project_defines(tmp_path, monkeypatch):
    shutil.copytree(targets.CONF, tmp_path / "conf")
    for number, target in enumerate(("torch.hub.load", "datamodules.shakespeare.urlopen", "os.system")):
        (tmp_path / f"conf/experiment/theirs{number}.yaml").write_text(f"model:\n  _target_: {target}\n")
    before = allowed_calls()
    monkeypatch.setattr(targets, "CONF", tmp_path / "conf")
    allowed_calls.cache_clear()
    assert allowed_calls() == before
    allowed_calls.cache_clear()


@pytest.mark.parametrize("target", ["torch.hub.load", "os.execv", "os.abort", "torch.utils.cpp_extension.load_inline"])
def test_a_planted_checkpoint_is_refused_by_the_command_and_in_a_notebook(target, quick_run, tmp_path):
    checkpoint = read_checkpoint(quick_run / "checkpoints/best.ckpt")
    checkpoint["config"]["model"] = PLANTED[target]
    torch.save(checkpoint, tmp_path / "theirs.ckpt")
    ended = train_ended(["stages=[test]", "ckpt_path=theirs.ckpt"], tmp_path)
    assert ended.status == 1 and ended.stderr.count("\n") == 1, ended.stderr
    assert f"'theirs.ckpt' asks to run {target}" in ended.stderr
    with pytest.raises(UsageError, match=target):
        load_run(tmp_path / "theirs.ckpt")


@pytest.mark.parametrize("choice", ["../../theirs", "{_target_:os.system}", "a,b", "gone", None])
def test_a_checkpoints_choices_are_names_of_this_project(choice, quick_run, tmp_path):
    checkpoint = read_checkpoint(quick_run / "checkpoints/best.ckpt")
    checkpoint["config"]["choices"]["data"] = choice
    torch.save(checkpoint, tmp_path / "theirs.ckpt")
    ended = train_ended(["stages=[test]", "ckpt_path=theirs.ckpt"], tmp_path)
    assert ended == (1, f"'theirs.ckpt' was trained with data={choice}, which this checkout does not have.\n")


@pytest.mark.parametrize("form", ["zip", "old zip", "plain pickle", "numpy"])
def test_a_pickled_payload_does_not_run(form, quick_run, tmp_path):
    flag, path = tmp_path / "it_ran", tmp_path / "theirs.ckpt"
    payload = {**read_checkpoint(quick_run / "checkpoints/best.ckpt"), "metrics": Payload(flag)}
    if form == "plain pickle":
        path.write_bytes(pickle.dumps(payload))
    elif form == "numpy":
        with path.open("wb") as file:
            np.savez(file, x=np.array([Payload(flag)], dtype=object))
    else:
        torch.save(payload, path, _use_new_zipfile_serialization=form == "zip")
    ended = train_ended(["stages=[test]", "ckpt_path=theirs.ckpt"], tmp_path)
    assert ended.status == 1 and ended.stderr.count("\n") == 1, ended.stderr
    assert "'theirs.ckpt' cannot be read as a checkpoint" in ended.stderr and not flag.exists()
    if form == "zip":
        assert "it asks for posix.system, which is code" in ended.stderr


def test_pickled_objects_in_predictions_do_not_run(quick_run, tmp_path):
    flag, theirs = tmp_path / "it_ran", Path(shutil.copytree(quick_run, tmp_path / "theirs"))
    np.savez(theirs / "predictions.npz", pixel_nats=np.array([Payload(flag)], dtype=object), label=np.arange(3))
    with pytest.raises(UsageError, match=r"predictions\.npz' is damaged, or no file of predictions"):
        compare([str(quick_run), str(theirs), "--output", str(tmp_path / "page.html")])
    ended = train_ended(["stages=[report]", "ckpt_path=theirs", "hydra.run.dir=theirs"], tmp_path)
    assert ended.status == 1 and ended.stderr.count("\n") == 1, ended.stderr
    assert "predictions.npz' is damaged" in ended.stderr and not flag.exists()


def test_a_runs_folder_does_not_choose_code_outside_conf(quick_run, tmp_path):
    (tmp_path / "task.yaml").write_text("task: {module: {_target_: antigravity.main}}\n")
    runs = [Path(shutil.copytree(quick_run, tmp_path / name)) for name in "ab"]
    for run in runs:
        config = OmegaConf.load(run / "config.yaml")
        config.choices.task = os.path.relpath(tmp_path / "task", targets.CONF / "task")
        OmegaConf.save(config, run / "config.yaml")
    with pytest.raises(UsageError, match="which this checkout does not have"):
        compare([*map(str, runs), "--output", str(tmp_path / "page.html")])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model._target_=torch.hub.load"], "The configuration asks to run torch.hub.load"),
        (["+trainer.x={_target_:os.system,command:'touch it_ran'}"], "The configuration asks to run os.system"),
        (["+optimizer._args_=[1]"], "The configuration calls torch.optim.RMSprop with _args_"),
        (["scheduler._partial_=false"], "as no file of conf/ does: refused."),
        (["+x='${oc.create:{a:1}}'"], "refused"),
        (["+hydra.callbacks.x={_target_:os.system,command:'touch it_ran'}"], "asks Hydra to run os.system"),
        (["+hydra.job_logging.handlers.x={class:os.system,command:'touch it_ran'}"], "asks Hydra to run os.system"),
        (["hydra.sweeper._target_=os.system", "-m"], "asks Hydra to run os.system"),
        (["--config-dir=theirs"], "--config-dir cannot be used"),
        (["--experimental-rerun=theirs.pickle"], "--experimental-rerun cannot be used"),
    ],
)
def test_a_command_calls_nothing_else_either(words, said, tmp_path):
    ended = train_ended(words, tmp_path)
    assert ended.status == 1 and ended.stderr.count("\n") == 1 and said in ended.stderr, ended.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture
def no_network(monkeypatch):
    """Every attempt to reach another machine fails the test, also where the error is caught."""
    tried = []

    def refuse(*words: object, **options: object) -> None:
        tried.append(words)
        raise OSError("no network in this test")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    yield
    assert not tried


@pytest.mark.parametrize("task", TASKS)
def test_nothing_reaches_for_the_network(task, no_network, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    quick = [f"task={task}", "debug=quick", *SMALLEST[task].words]
    run_here(quick, tmp_path / "run")
    run_here(["stages=[test,report]", f"ckpt_path={tmp_path / 'run'}"], tmp_path / "again")
    load_run(tmp_path / "run")


def test_a_data_set_that_is_asked_for_may_reach_for_it(tmp_path, monkeypatch):
    """Or the test above would show nothing."""
    from datamodules import shakespeare, sources

    tried = []
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(
        sources.socket, "create_connection", lambda address, *_: tried.append(address[0]) or nullcontext()
    )
    monkeypatch.setattr(shakespeare, "urlopen", lambda *_, **__: (_ for _ in ()).throw(OSError("refused")))
    with pytest.raises(UsageError, match="Tiny Shakespeare was not found"):
        run_here(
            [*QUICK[:1], "task=char_lm", "data=shakespeare", f"paths.data={tmp_path}", f"paths.cache={tmp_path}"],
            tmp_path / "run",
        )
    assert tried


def test_nothing_is_loaded_as_a_pickle():
    found = subprocess.run(
        ["grep", "-rnE", r"allow_pickle=True|weights_only=False|pickle\.loads?\(|torch\.jit\.load", "--include=*.py",
         *("datamodules", "lightning_modules", "reporting", "running", "train.py", "benchmarks")],
        cwd=targets.REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    lines = [
        line for line in found.stdout.splitlines() if "save_checkpoint(" not in line
    ]  # where it says what is saved
    assert lines == []
