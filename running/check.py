"""Finds a command's mistakes before anything heavy is imported, and says each in one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from datamodules.errors import UsageError
from reporting.folder import CONF, find_checkpoint
from reporting.targets import check_calls, check_hydra
from running.composed import compose_config, default_config, sentence
from running.jobs import check_job_folder, jobs_of, sweeper_of, words_of_search, words_of_sweep_file
from running.limits import KINDS, LIMITS, NULL_KINDS, NULLABLE, OPTIONAL

RESERVED = ("barebones", "callbacks", "default_root_dir", "enable_checkpointing", "enable_progress_bar",
            "fast_dev_run", "logger", "plugins")  # fmt: skip
ONE_OR_MORE = ("data.size", "task.module.temperature", "stages")  # lists that have a say of their own on what is none
PUBLISHED = {"source", "data", "split", "figures"}


def shown(value: Any) -> str:
    """A value in a sentence, as a command would write it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


def check_kinds(config: DictConfig, words: Sequence[str]) -> None:
    """Raises UsageError when a word gives a value of another kind than its default."""
    overrides = OverridesParser.create().parse_overrides(list(words))
    groups = [override.input_line for override in overrides if (CONF / override.key_or_group).is_dir()]
    default = default_config(tuple(groups))
    for override in overrides:
        key = override.key_or_group
        usual, given = OmegaConf.select(default, key), OmegaConf.select(config, key)
        if key.startswith("hydra.") or key in LIMITS or (given is None and key in NULLABLE):
            continue
        if OmegaConf.is_dict(usual) and not OmegaConf.is_dict(given):
            raise UsageError(
                f"{key} is {shown(given)}, but it has options of its own: give {key}.{next(iter(usual))}=…."
            )
        if OmegaConf.is_list(usual) and not OmegaConf.is_list(given) and key not in ONE_OR_MORE:
            raise UsageError(f"{key} is {shown(given)}, but it must be a list, such as {key}=[].")
        kind = NULL_KINDS.get(key) if usual is None else type(usual)
        if kind not in KINDS or (given is None and usual is None):
            continue
        kinds, name = KINDS[kind]
        example = usual if isinstance(usual, str) else shown(usual)
        if isinstance(given, float) and not math.isfinite(given):
            raise UsageError(f"{key} is {given}, but it must be {name} that is finite.")
        if not isinstance(given, kinds) or (isinstance(given, bool) and kind is not bool):
            raise UsageError(f"{key} is {shown(given)}, but it must be {name}, such as {example}.")


def check_config(config: DictConfig, model: str, task: str) -> None:
    """Raises UsageError when the model is not the task's, a stage does not exist or has nothing to run on, or a number
    is outside its limits."""
    own = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
    check_calls(OmegaConf.to_container(own), "The configuration")
    for key, (possible, name) in LIMITS.items():
        group, _, option = key.rpartition(".")
        if group in OPTIONAL and option not in (OmegaConf.select(config, group) or {}):
            continue
        if not possible(value := OmegaConf.select(config, key)):
            raise UsageError(f"{key} is {shown(value)}, but it must be {name}.")
    for key in RESERVED:
        if key in config.trainer:
            raise UsageError(f"trainer.{key} is the run's own to set: leave it out.")
    for entry in config.published:
        if not OmegaConf.is_dict(entry) or not entry.keys() >= PUBLISHED or not OmegaConf.is_dict(entry.figures):
            raise UsageError(f"published holds {entry}, but each entry must have {', '.join(sorted(PUBLISHED))}.")
    if model not in (known_models := [*config.task.models, *config.task.get("large_models", [])]):
        models = ", ".join(known_models)
        raise UsageError(f"model={model} is no network of task={task}: choose one of {models}.")
    stages, known = config.stages, [*config.task.stages, *config.task.get("other_stages", [])]
    if not OmegaConf.is_list(stages) or not stages:
        raise UsageError(f"stages is {shown(stages)}, but it must be a list, such as stages=[{known[0]}].")
    for stage in stages:
        if stage not in known:
            raise UsageError(f"There is no stage '{stage}' in task={task}: choose from {', '.join(known)}.")
    if len(set(stages)) < len(stages):
        raise UsageError(f"stages=[{','.join(stages)}] names a stage twice: leave one out.")
    if config.ckpt_path is None and not can_begin(stages, config.task):
        raise UsageError(f"stages=[{','.join(stages)}] need a trained network: give ckpt_path=…, or put fit first.")
    if config.ckpt_path is not None:
        find_checkpoint(config.ckpt_path, to_resume="fit" in stages)


def can_begin(stages: Sequence[str], task: DictConfig) -> bool:
    """Does every stage find what it needs without a checkpoint: a network that `fit` trained before, or none at all?

    A report may follow stages that need no network.
    """
    before_fit = stages[: list(stages).index("fit")] if "fit" in stages else stages
    able = task.get("without_network", [])
    return all(stage in able or (stage == "report" and number > 0) for number, stage in enumerate(before_fit))


def check_new_folder(folder: Path, ckpt_path: str | None) -> None:
    """Raises UsageError when a run that begins anew would mix its files with an earlier run's."""
    if ckpt_path is None and (folder / "checkpoints" / "last.ckpt").exists():
        raise UsageError(f"'{folder}' holds a run: give another hydra.run.dir, or go on with ckpt_path={folder}.")


def misread(message: str) -> NoReturn:
    """What Hydra's parser calls on an unknown flag."""
    raise UsageError(f"The command cannot be read: {message}; `python train.py --help` shows how.")


def check_command(argv: Sequence[str]) -> list[str]:
    """Checks the command's words; returns the words to add to them.

    A sweep is checked job by job before its first one runs: its words, a sweep file's parameters, and the job's folder,
    if the sweep goes on in one. The added words take from a sweep file what the command line gives itself. With
    `ckpt_path=` they choose the checkpoint's own task, model and data, and to go on training, its own run folder.

    Raises:
        UsageError: a mistake found without running anything.
    """
    parser = get_args_parser()
    parser.error = misread
    args = parser.parse_args(list(argv))
    for name in ("config_dir", "config_path", "config_name", "experimental_rerun"):
        if getattr(args, name, None) is not None:
            raise UsageError(f"--{name.replace('_', '-')} cannot be used: put your files into {CONF}, a group each.")
    if args.help or args.hydra_help or args.cfg or args.info:
        return []
    try:
        overrides = OverridesParser.create().parse_overrides(args.overrides)
    except HydraException as error:
        raise UsageError(sentence(error)) from error
    multirun = args.multirun or any(override.key_or_group == "sweep" for override in overrides)
    for override in overrides:
        if override.is_sweep_override() and (not multirun or override.key_or_group == "ckpt_path"):
            advice = "give one checkpoint" if multirun else "add -m to run them all, or quote the value"
            raise UsageError(f"'{override.input_line}' names several values: {advice}.")
    added: list[str] = []
    given, replaced = words_of_sweep_file(overrides) if multirun else ([], [])
    if given or replaced:
        overrides = OverridesParser.create().parse_overrides([*given, *args.overrides, *replaced])
    own_folder = any(override.key_or_group == "hydra.sweep.dir" for override in overrides)
    basic = not multirun or sweeper_of(overrides).endswith("BasicSweeper")
    for number, words in enumerate(jobs_of(overrides, basic, multirun and own_folder)):
        if number == 0 and any(word.startswith("ckpt_path=") for word in words):
            # First these two alone: an option of the checkpoint's task exists only once that task is chosen.
            first = compose_config([word for word in words if word.startswith(("ckpt_path=", "stages="))])
            added = [] if first.ckpt_path is None else words_of_checkpoint(first, args.overrides, multirun)
        config = compose_config([*added, *words])
        check_hydra(OmegaConf.to_container(config.hydra), "The configuration")
        check_kinds(config, [*added, *words])
        check_config(config, config.hydra.runtime.choices.model, config.hydra.runtime.choices.task)
        if not basic and (config.trainer.devices != 1 or "ddp" in config.trainer.strategy):
            raise UsageError(
                "A sweep that chooses its next job by the results so far has one process a job: leave out trainer=ddp "
                "and trainer.devices."
            )
        if own_folder and multirun and basic and config.ckpt_path is None:
            check_job_folder(config, number)
        if not multirun and config.ckpt_path is None and any(word.startswith("hydra.run.dir=") for word in words):
            check_new_folder(Path(config.hydra.run.dir), None)  # before Hydra writes into it
    over_tasks = any(override.key_or_group == "task" and override.is_sweep_override() for override in overrides)
    if over_tasks and not own_folder:
        added.append("hydra.sweep.dir='multiruns/tasks/${oc.env:ETUDES_STAMP}'")  # one folder for all of it
    return [*replaced, *added, *words_of_search(config, overrides)]


def words_of_checkpoint(config: DictConfig, words: Sequence[str], multirun: bool) -> list[str]:
    """The words that choose what the checkpoint of `config` was trained with, where the user's do not."""
    to_resume = OmegaConf.is_list(config.stages) and "fit" in config.stages
    path = find_checkpoint(config.ckpt_path, to_resume)
    from reporting.load import read_checkpoint

    choices = read_checkpoint(path)["config"]["choices"]
    named = {word.split("=", 1)[0] for word in words}
    added = [f"{group}={choices[group]}" for group in ("task", "model", "data") if group not in named]
    run_folder = path.resolve().parent.parent
    if to_resume and not multirun and (run_folder / "config.yaml").exists() and "hydra.run.dir" not in named:
        quoted = str(run_folder).replace("'", "\\'")
        added += [f"hydra.run.dir='{quoted}'", "hydra.output_subdir=null"]
    return added
