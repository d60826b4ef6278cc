"""README.md, RESULTS.md and the tasks' pages: what each holds, and the commands it gives, composed."""

from __future__ import annotations

import ast
import re
import shlex
from functools import cache
from pathlib import Path
from typing import NamedTuple

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, open_dict

from datamodules.errors import UsageError
from running.check import check_config
from running.composed import compose_config
from tests.conftest import REPOSITORY

README = REPOSITORY / "README.md"
PAGES = {"": README} | {path.parent.name: path for path in sorted(REPOSITORY.glob("lightning_modules/*/README.md"))}
LINKING = {
    **PAGES,
    "results": REPOSITORY / "RESULTS.md",
    "lightning_modules": REPOSITORY / "lightning_modules" / "README.md",  # test_add_a_task.py follows it to the letter
}


def text_of(page: str) -> str:
    return LINKING[page].read_text(encoding="utf-8")


# What a page holds


def without_blocks(text: str) -> str:
    """The prose and tables: no fenced and no indented code."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    return re.sub(r"(?:^ {4}.*\n)+", "\n", text, flags=re.M)


def headings(text: str) -> list[str]:
    """The anchors that GitHub gives the headings."""
    titles = re.findall(r"^#+ (.+)$", without_blocks(text), re.M)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


def names_in(path: Path) -> set[str]:
    """The functions and classes that a file defines at its top, and the classes' methods as `Class.method`."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    top = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, kinds)]
    methods = {f"{node.name}.{own.name}" for node in top for own in node.body if isinstance(own, kinds)}
    return {node.name for node in top} | methods


@cache
def code(page: str) -> list[str]:
    """A page's inline code, which may go on in the next line, and the lines of its indented blocks, in its order."""
    text = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.M | re.S)
    text = re.sub(r"\\\n\s*", "", text)
    text = re.sub(r"^ {4}(.*)$", r"`\1`", text, flags=re.M)
    return [" ".join(piece.split()) for piece in re.findall(r"`([^`]+)`", text)]


# Commands


def commands(page: str) -> list[tuple[str, ...]]:
    """The words after `train.py` of the page's commands, in its order, each command once."""
    pieces = [piece for piece in code(page) if re.search(r"\b(python|torchrun) .*train\.py\b", piece)]
    lines = [shlex.split(piece, comments=True) for piece in pieces]
    found = {tuple(words[words.index("train.py") + 1 :]): None for words in lines}
    return [words for words in found if words and set(words) != {"…"}]


def fragments(page: str) -> list[tuple[str, ...]]:
    """Words of a command given without its beginning, such as `experiment=cnn_record budget.minutes=25`."""
    pieces = [piece for piece in code(page) if re.fullmatch(r"[\w./]+=[^\s…]+(?: [\w./]+=[^\s…]+)*", piece)]
    return [tuple(piece.split()) for piece in dict.fromkeys(pieces) if re.search(r"\b(experiment|sweep)=\w", piece)]


class Job(NamedTuple):
    """One configuration that a command runs: its words, and what they compose to."""

    words: list[str]
    config: DictConfig
    task: str
    model: str


@cache
def jobs(page: str, given: tuple[str, ...], checkpoint: Path) -> list[Job]:
    """A command's configurations, composed and checked; of a sweep so many that each value occurs once.

    Args:
        page: that gives the command.
        given: its words.
        checkpoint: stands for the one of a run that the reader has made.
    """
    args = get_args_parser().parse_args(list(given))
    if args.help:
        return []
    words = [word for word in args.overrides if word != "…"]
    if place := next((word for word in words if word.startswith("ckpt_path=")), None):
        words = on_checkpoint(words, place, checkpoint, page)
    assert not [word for word in words if "…" in word], "nobody can tell what stands there"
    if any(word.startswith("sweep=") for word in words):
        words += parameters(words)
    overrides = OverridesParser.create().parse_overrides(words)
    values = [(override.get_key_element(), values_of(override)) for override in overrides]
    most = max((len(own) for _, own in values), default=1)
    assert most == 1 or args.multirun or any(key == "sweep" for key, _ in values), "several values, and no -m"
    return [composed(*(f"{key}={own[min(row, len(own) - 1)]}" for key, own in values)) for row in range(most)]


def parameters(words: list[str]) -> list[str]:
    """What a sweep's file varies, without what the command gives itself."""
    given = dict(word.split("=", 1) for word in words)
    own = compose_config([f"sweep={given['sweep']}"]).hydra.sweeper.params
    return [f"{key}={values}" for key, values in own.items() if key not in given]


def values_of(override: Override) -> list[str]:
    """A word's values as texts; of an interval its ends."""
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    if override.is_discrete_sweep():
        return list(override.sweep_string_iterator())
    return [str(override.value().start), str(override.value().end)]


def on_checkpoint(words: list[str], place: str, checkpoint: Path, page: str) -> list[str]:
    """The words with a checkpoint that exists, and, as the command adds them, with the task and model it is of."""
    path = place.removeprefix("ckpt_path=")
    kept = path.startswith("results/")
    assert not kept or (REPOSITORY / path).is_file(), f"there is no {path}"
    named = re.match(r"runs/(\w+)/(\w+)/|results/(\w+)/", path)
    task = next(filter(None, named.group(1, 3))) if named else page
    model = named[2] if named else None
    own = [f"task={task}"] * bool(task) + [f"model={model}"] * bool(model)
    rest = [word for word in words if word != place]
    return [*own, *rest, f"ckpt_path={REPOSITORY / path if kept else checkpoint}"]


@cache
def composed(*words: str) -> Job:
    try:
        config = compose_config(words)
    except UsageError as error:
        if "needs more packages: pip install" not in str(error):
            raise
        config = compose_config([word for word in words if not re.match(r"hydra[./]", word)])
    choices = config.hydra.runtime.choices
    with open_dict(config):
        del config["hydra"]
        config.choices = {group: choices[group] for group in ("task", "model", "data")}
    check_config(config, choices.model, choices.task)
    return Job(list(words), config, choices.task, choices.model)
