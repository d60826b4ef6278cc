"""README.md, RESULTS.md and the tasks' pages: links, equations, options and commands lead where they say."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from unittest import mock

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf

from datamodules.errors import UsageError
from reporting.folder import CONF
from running.composed import compose_config, keys_of
from tests.commands import train_ended
from tests.conftest import PAIRS, REPOSITORY, SMALLEST, TASKS, run_here
from tests.pages import (
    LINKING,
    PAGES,
    Job,
    code,
    commands,
    composed,
    fragments,
    headings,
    jobs,
    names_in,
    text_of,
    without_blocks,
)

EMBEDDED = {  # data that ship with the packages
    "digits", "photos", "digit_shapes", "digit_captions", "digit_names", "digit_scenes", "digit_boxes", "digits_m",
    "digits_one_class", "pydocs", "waves", "doodles", "glyphs",
}  # fmt: skip
LINK = re.compile(r"!?\[((?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*)\]\(([^)\s]+)\)")
EQUATION = re.compile(r"\[`([\w.]+)`\]\(([^)#\s]+\.py)\)")

page_of_each = pytest.mark.parametrize("page", PAGES, ids=lambda name: name or "README")
page_of_each_task = pytest.mark.parametrize("page", ["", *TASKS], ids=lambda name: name or "README")


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "stand_in.ckpt"
    path.touch()
    return path


# Links and equations


@pytest.mark.parametrize("page", LINKING, ids=lambda name: name or "README")
def test_every_link_leads_to_a_file_and_every_anchor_to_a_heading(page):
    missing = []
    for _, target in LINK.findall(without_blocks(text_of(page))):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (LINKING[page].parent / path).resolve() if path else LINKING[page]
        there = file.exists() and REPOSITORY in file.parents
        if not there or (anchor and anchor not in headings(file.read_text(encoding="utf-8"))):
            missing.append(target)
    assert not missing


@pytest.mark.parametrize("task", TASKS)
def test_every_equation_leads_to_the_function_that_computes_it(task):
    found = EQUATION.findall(text_of(task))
    missing = [name for name, path in found if name not in names_in((PAGES[task].parent / path).resolve())]
    assert not missing
    rows = re.search(r"^## Equations.*?\n\|.*?\n\|[-|]+\n(.*?)\n\n", text_of(task), re.M | re.S)[1].splitlines()
    assert all(EQUATION.search(row) for row in rows), "an equation without its function"


# What the pages tell of


def test_readme_is_short_and_the_pages_lines_fit():
    assert len(text_of("").splitlines()) < 200
    for page in PAGES:
        prose = [line for line in text_of(page).splitlines() if not re.match(r"\||!\[", line)]
        assert max(map(len, prose)) <= 120


def test_every_task_has_a_page_and_stands_in_readmes_table():
    table = re.search(r"^## Every system\n\n(\|.*?)\n\n", text_of(""), re.M | re.S)[1]
    for task, node in TASKS.items():
        assert task in PAGES, f"lightning_modules/{task}/README.md is not there"
        assert f"](lightning_modules/{task}/README.md)" in table
        assert all(f"`model={model}`" in text_of(task) for model in node.models)


@pytest.mark.parametrize("group", ["task", "model", "data", "experiment", "optimizer", "scheduler", "trainer", "sweep"])
def test_readme_names_every_choice(group):
    for path in (CONF / group).glob("*.yaml"):
        assert re.search(rf"\b{path.stem}\b", text_of("")), f"{group}={path.stem}"
        if group in ("experiment", "sweep"):
            assert any(re.search(rf"\b{path.stem}\b", text_of(task)) for task in TASKS), f"{path.stem} is on no page"


OPTION = re.compile(r"((?:model|data|task|optimizer|scheduler|trainer|budget|paths)\.[\w.]+)(=.*)?")


@cache
def known_keys() -> dict[str, set[str]]:
    """Every option of each task, whatever its model; under '' those of all data and of several processes."""
    found = {task: set() for task in TASKS}
    for task, model in PAIRS:
        found[task] |= set(keys_of(compose_config([f"task={task}", f"model={model}"])))
    data = {f"data.{key}" for path in (CONF / "data").glob("*.yaml") for key in OmegaConf.load(path)}
    ddp = {f"trainer.{key}" for key in OmegaConf.load(CONF / "trainer" / "ddp.yaml")}
    return found | {"": data | ddp}


@page_of_each
def test_every_option_that_a_page_names_is_one(page):
    known = known_keys()
    keys = known[""].union(*(known[task] for task in TASKS if page in ("", task)))
    pieces = [piece for piece in code(page) if not piece.startswith("make ")]  # whose variables are no options
    for word in (word for piece in pieces for word in piece.split()):
        if option := OPTION.fullmatch(word):
            assert option[1] in keys, word
        elif choice := re.fullmatch(r"(\w+)=(\w*)", word):
            group = CONF / choice[1]
            assert group.is_dir() or choice[1] in keys, word
            assert not (group.is_dir() and choice[2]) or (group / f"{choice[2]}.yaml").exists(), word


# Commands are composed, and run where they can be


@page_of_each_task
def test_every_command_composes(page, stand_in):
    assert commands(page), "a page without a command"
    for words in [*commands(page), *fragments(page)]:
        try:
            jobs(page, words, stand_in) if words in commands(page) else composed(*words)
        except (UsageError, HydraException, AssertionError) as error:
            raise AssertionError(f"python train.py {shlex.join(words)}: {error}") from error


class Parsed(Exception):
    """A tool has read its arguments, and goes no further."""


@page_of_each
def test_every_tool_exists_and_takes_its_arguments(page):
    parse = argparse.ArgumentParser.parse_args

    def parse_only(self, args=None, namespace=None):
        parse(self, args, namespace)
        raise Parsed

    for piece in code(page):
        if not (tool := re.search(r"python3? -m ((?!venv|pytest)[\w.]+)(.*)", piece)):
            continue
        module, words = tool[1], [word for word in shlex.split(tool[2], comments=True) if word != "…"]
        spec = find_spec(module)
        assert spec, f"there is no module {module}"
        main = import_module(f"{module}.__main__" if spec.submodule_search_locations else module).main
        with (
            mock.patch.object(argparse.ArgumentParser, "parse_args", parse_only),
            mock.patch.object(sys, "argv", [module, *words]),
            pytest.raises((Parsed, UsageError)),  # one without a parser finds no such folder
        ):
            main(words) if signature(main).parameters else main()


@page_of_each
def test_every_make_target_test_file_and_extra_exists(page):
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    for piece in code(page):
        if target := re.match(r"make (\w+)", piece):
            assert re.search(rf"^{target[1]}:", makefile, re.M), piece
        if piece.startswith("pytest "):
            assert all((REPOSITORY / path).exists() for path in piece.split()[1:]), piece
        for extra in re.findall(r"'\.\[(\w+)\]'", piece):
            assert re.search(rf"^{extra} = \[", project, re.M), piece


# What makes any run small: these words take the place of the command's own.
FEW = {
    "pixelrnn": ["task.module.compressed=2"],
    "char_lm": ["task.module.adapt_lr=[0.1]", "task.module.adapt_window=4000"],
    "classification": [
        "attack.items=6",
        "attack.steps=2",
        "attack.attacks=[pgd,apgd_ce,apgd_t,square]",
        "attack.curve=[]",
        "attack.queries=4",
    ],
    "contrastive": ["attack.items=6", "attack.steps=2", "attack.attacks=[pgd]", "attack.curve=[]"],
}
LONG = re.compile(r"(trainer\.(max|limit|val_check)\w*|budget\.minutes|ckpt_path|seed|hydra[./][\w./]+)=")
trained: dict[str, Path] = {}  # each task's last run here
ran: set[tuple] = set()


def small(job: Job) -> list[str]:
    """The words of the job's training, as small as the task's tests know it."""
    smallest = ["debug=quick", *SMALLEST[job.task].words_of(job.model), *FEW.get(job.task, [])]
    if job.config.budget.minutes is not None:
        smallest.append("budget.minutes=0.005")
    keys = {word.split("=")[0] for word in smallest}
    return [word for word in job.words if word.split("=")[0] not in keys and not LONG.match(word)] + smallest


def kind_of(job: Job) -> tuple:
    """What tells one run from another: task, network, stages, what they begin from, and what is switched on."""
    switches = frozenset(word for word in job.words if re.search(r"=(true|false)$", word, re.I))
    return job.task, job.model, tuple(job.config.stages), job.config.ckpt_path, switches


def runs_here(job: Job) -> bool:
    """In this process, and without data that the packages do not bring; of kept networks those that draw in seconds."""
    if "images=FOLDER" in job.words:  # the reader's own
        return False
    if is_kept(job):
        return set(job.config.stages) <= set(job.config.task.without_data) and "mnist" in job.config.ckpt_path
    return job.config.trainer.strategy == "auto" and job.config.choices.data in EMBEDDED


def is_kept(job: Job) -> bool:
    path = job.config.ckpt_path
    return path is not None and Path(path).is_relative_to(REPOSITORY / "results")


@page_of_each_task
def test_every_command_on_embedded_data_runs(page, stand_in, tmp_path):
    """Each kind of run once; a checkpoint that is asked for is that of the task's last run before."""
    for job in (job for words in commands(page) for job in jobs(page, words, stand_in)):
        if kind_of(job) in ran or not runs_here(job):
            continue
        folder = tmp_path / str(len(ran))
        if job.config.ckpt_path is None:
            run_here(small(job), folder)
            trained[job.task] = folder
        else:
            run_on_checkpoint(job, folder)
        ran.add(kind_of(job))
    assert not page or any(kind[0] == page for kind in ran), "no command of the page ran"


def run_on_checkpoint(job: Job, folder: Path) -> None:
    """As a user runs it: the checkpoint says which task, model and data it is of."""
    assert is_kept(job) or job.task in trained, f"{job.task}: a checkpoint is asked for before anything is trained"
    checkpoint = job.config.ckpt_path if is_kept(job) else trained[job.task]
    words = [*SMALLEST[job.task].words, *FEW.get(job.task, [])]
    few = [word for word in words if word.startswith(("task.module.", "attack."))]
    keys = {word.split("=")[0] for word in few} | {"task", "model", "ckpt_path"}
    words = [word for word in job.words if word.split("=")[0] not in keys]
    folder.mkdir()
    ended = train_ended([*words, *few, f"ckpt_path={checkpoint}"], folder)
    assert ended.status == 0, f"python train.py {shlex.join(job.words)}: {ended.stderr}"
