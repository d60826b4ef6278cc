"""The configuration that a command's words make, or one sentence that says what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from datamodules.errors import UsageError, did_you_mean
from reporting.folder import CONF

# What choices of Hydra's groups are installed by.
EXTRAS = {
    ("hydra/sweeper", "optuna"): "search",
    ("hydra/launcher", "joblib"): "parallel",
    ("hydra/launcher", "submitit_local"): "parallel",
    ("hydra/launcher", "submitit_slurm"): "parallel",
}


def compose_config(words: Sequence[str]) -> DictConfig:
    """The configuration that these command-line words make, with Hydra's own part.

    Raises:
        UsageError: a word is no option, or a choice does not exist.
    """
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            return compose("config", list(words), return_hydra_config=True)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise UsageError(sentence(error, sorted(keys_of(compose("config"))))) from error


@lru_cache
def default_config(groups: tuple[str, ...]) -> DictConfig:
    """What these groups' choices are by themselves; not to be changed. The jobs of a sweep ask for few."""
    return compose_config(groups)


def keys_of(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """Every dotted key of a configuration."""
    for key in config:
        yield f"{prefix}{key}"
        node = config._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none():
            yield from keys_of(node, f"{prefix}{key}.")


def sentence(error: Exception, known_keys: Sequence[str] = ()) -> str:
    """What Hydra or OmegaConf found wrong, in one sentence that says what to do."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        options = sorted(error.options)
        if extra := EXTRAS.get((group, choice)):
            return f"{group}={choice} needs more packages: pip install -e '.[{extra}]'."
        return f"There is no {group}={choice}{did_you_mean(choice, options)}: choose one of {', '.join(options)}."
    if unknown := re.search(r"Could not override '([^']+)'", text):
        key = unknown[1]
        return (
            f"There is no option '{key}'{did_you_mean(key, known_keys)}: "
            f"`python train.py --help` lists them all, and +{key}=… would add it."
        )
    if isinstance(error, OmegaConfBaseException) and "is not in struct" in text:
        return f"The option '{error.full_key or error.key}' is missing, and a run needs it: do not take it away with ~."
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return f"The option '{error.full_key}' is wrong: {text.splitlines()[0]}."
    return f"The command cannot be read: {text.splitlines()[0].rstrip('.')}; `python train.py --help` shows how."
