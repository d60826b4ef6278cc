"""The configuration a run works with: what Hydra composed, or a checkpoint's own with the user's words on top."""

from __future__ import annotations

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from datamodules.errors import UsageError
from reporting.folder import find_checkpoint
from reporting.load import read_checkpoint

CHOSEN = ("task", "model", "data", "optimizer", "adversary_optimizer", "scheduler", "trainer", "attack", "experiment",
          "sweep", "debug")  # fmt: skip
FIXED = ("task", "model", "experiment", "sweep", "debug")  # a checkpoint's own, or not at all


def final_config(composed: DictConfig, hydra_config: DictConfig) -> DictConfig:
    """With `choices` added: the groups' names; with `ckpt_path` the checkpoint's, changed as the command says.

    Raises:
        UsageError: the command asks for another task, model or preset than the checkpoint's.
    """
    choices = {group: hydra_config.runtime.choices[group] for group in CHOSEN}
    with open_dict(composed):
        composed.choices = choices
    if composed.ckpt_path is None:
        return composed
    path = find_checkpoint(composed.ckpt_path, to_resume="fit" in composed.stages)
    config = OmegaConf.create(read_checkpoint(path)["config"])
    for group in CHOSEN:  # a checkpoint older than a group gets today's default of it
        if group not in config.choices:
            config.choices[group], config[group] = choices[group], composed.get(group)
    config.paths, config.ckpt_path, config.stages = composed.paths, composed.ckpt_path, composed.stages
    for override in OverridesParser.create().parse_overrides(list(hydra_config.overrides.task)):
        key = override.key_or_group
        if key in FIXED:
            if choices[key] != config.choices[key]:
                raise UsageError(
                    f"'{path}' was trained with {key}={config.choices[key]}, and {key}={choices[key]} cannot be put "
                    f"on it: leave the word out, or train from the start."
                )
        elif key in CHOSEN:
            if choices[key] != config.choices[key]:  # the same choice keeps the checkpoint's own settings of it
                config[key], config.choices[key] = composed.get(key), choices[key]
        elif override.is_delete():
            OmegaConf.update(config, key, None)
        else:
            OmegaConf.update(config, key, OmegaConf.select(composed, key), force_add=True)
    return config
