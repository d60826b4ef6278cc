"""What a configuration may call: exact classes and functions, so that one from someone else runs no code of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from omegaconf import OmegaConf

from datamodules.errors import UsageError
from reporting.folder import CONF, REPOSITORY

# Of other packages these alone. Not a prefix: all of torch would admit torch.hub.load.
FOREIGN = frozenset(
    {
        "lightning.Trainer",
        "torch.optim.Adam",
        "torch.optim.AdamW",
        "torch.optim.RMSprop",
        "torch.optim.SGD",
    }
)
OWN = ("lightning_modules", "datamodules")  # packages whose own classes and functions a file of conf/ may name
# What Hydra's part of a configuration may call: its plugins, its logging, and this project's callback.
HYDRAS = ("hydra._internal.core_plugins.", "hydra_plugins.", "optuna.samplers.", "logging.", "colorlog.")
CALLBACK = re.compile(r"running\.sweep\.[A-Z]\w+")
HYDRA_CALLS = ("_target_", "()", "class")  # the latter two are logging's
# A resolver can make a node out of text, which would hide a call; and read any variable of the environment.
ALLOWED_RESOLVER = re.compile(r"\$\{oc\.env:ETUDES_\w+,[^${}:]*\}")

Call = frozenset[tuple[str, str]]  # Hydra's keys of one node, _target_ and _partial_ and so on, with their values


def check_calls(config: Any, where: str) -> None:
    """Checks every node of nested containers, interpolations left as they are; Hydra's own part aside.

    Raises:
        UsageError: one names what may not be called, or has Hydra's keys otherwise than any file of conf/.
    """
    for node in nodes(config):
        if isinstance(node, str):
            if "${" in node and ":" in node and not ALLOWED_RESOLVER.fullmatch(node):
                raise UsageError(f"{where} has {node!r}, but only ${{key}} and ${{oc.env:ETUDES_…,…}} may be: refused.")
        elif (call := call_of(node)) and call not in allowed_calls():
            target = node.get("_target_", "nothing")
            if any(target == dict(known).get("_target_") for known in allowed_calls()):
                keys = ", ".join(sorted(key for key, _ in call))
                raise UsageError(f"{where} calls {target} with {keys} as no file of conf/ does: refused.")
            raise UsageError(
                f"{where} asks to run {target}, which is none of this project's classes: refused; if you trust it, "
                "name it in a file of conf/ and in FOREIGN of reporting/targets.py."
            )


def check_hydra(config: Any, where: str) -> None:
    """Raises UsageError when Hydra's own part of a configuration calls what is neither Hydra's nor the project's."""
    for node in nodes(config):
        for key in HYDRA_CALLS if isinstance(node, dict) else ():
            target = str(node.get(key, HYDRAS[0]))
            if not CALLBACK.fullmatch(target) and not target.startswith(HYDRAS):
                raise UsageError(
                    f"{where} asks Hydra to run {target}, which is neither its own nor the project's: refused."
                )


def nodes(config: Any) -> Iterator[Any]:
    """Every dict and every text in nested containers."""
    if isinstance(config, dict):
        yield config
        for key, value in config.items():
            yield from nodes(key)
            yield from nodes(value)
    elif isinstance(config, (list, tuple, set, frozenset)):
        for value in config:
            yield from nodes(value)
    elif isinstance(config, str):
        yield config


def call_of(node: dict[Any, Any]) -> Call:
    """Hydra's keys of a node; empty where it is plain."""
    return frozenset(
        (key, str(value)) for key, value in node.items() if isinstance(key, str) and re.fullmatch(r"_[a-z]+_", key)
    )


@cache
def allowed_calls() -> frozenset[Call]:
    """What the files of conf/ call, as they call it, of FOREIGN and of what this project defines."""
    found = set()
    for file in CONF.rglob("*.yaml"):
        for node in nodes(OmegaConf.to_container(OmegaConf.load(file))):
            target = node.get("_target_") if isinstance(node, dict) else None
            if target is not None and (target in FOREIGN or is_defined_here(str(target))):
                found.add(call_of(node))
    return frozenset(found)


def moved(config: Any) -> Any:
    """A configuration of an earlier version, whose names are where the project has them now.

    What a file of conf/ calls has a name of its own in its package, wherever in the package it lies.
    """
    if isinstance(config, dict):
        return {key: name_now(value) if key == "_target_" else moved(value) for key, value in config.items()}
    return [moved(value) for value in config] if isinstance(config, list) else config


def name_now(target: Any) -> Any:
    """The one allowed name of the same package that ends alike; `target` itself where there is none."""
    package, _, rest = str(target).partition(".")
    alike = re.compile(rf"{re.escape(package)}\..*\b{re.escape(rest.rpartition('.')[2])}")
    known = {dict(call).get("_target_") for call in allowed_calls()} if package in OWN else set()
    found = [name for name in known if alike.fullmatch(name)]
    return found[0] if target not in known and len(found) == 1 else target


def is_defined_here(target: str) -> bool:
    """Does a module of OWN, or a module in a package of OWN, define this name? (Imported ones do not count.)"""
    *packages, name = target.split(".")
    if not packages or packages[0] not in OWN or not all(part.isidentifier() for part in (*packages, name)):
        return False
    place = REPOSITORY.joinpath(*packages)
    files = place.glob("*.py") if place.is_dir() else [place.with_suffix(".py")]
    definition = re.compile(rf"^(class|def) {name}\b", re.MULTILINE)
    return any(file.is_file() and definition.search(file.read_text(encoding="utf-8")) for file in files)
