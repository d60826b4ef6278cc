"""Any two image data sets as source and target."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import OmegaConf

from datamodules.domains.pairs import DOMAINS, KINDS, PairDataModule
from datamodules.errors import UsageError, did_you_mean
from datamodules.images.shared.image import ImageDataModule, Split
from datamodules.spec import ImageSpec

CHOICES = Path(__file__).resolve().parents[2] / "conf" / "data"


class Pair(PairDataModule):
    """`data=pair data.source=NAME data.target=NAME`: two data sets of conf/data with the same shape and classes.

    Args:
        source, target: their names.
        source_options, target_options: settings of each, such as `{binarize: none}`.
        path, cache: `paths.data` and `paths.cache`.

    Raises:
        UsageError: a name is no data set of images with labels, or the two do not fit.
    """

    def __init__(
        self,
        source: str,
        target: str,
        path: str,
        cache: str,
        source_options: Mapping[str, Any] | None = None,
        target_options: Mapping[str, Any] | None = None,
        batch_size: int = 64,
        eval_batch_size: int = 250,
        seed: int = 0,
    ):
        super().__init__(batch_size, eval_batch_size, seed)
        self.domains = source, target
        common = {"batch_size": batch_size, "eval_batch_size": eval_batch_size, "seed": seed}
        options = {"source": source_options or {}, "target": target_options or {}}
        self.sets = {
            domain: make(name, domain, {"data": path, "cache": cache}, {**options[domain], **common})
            for domain, name in zip(DOMAINS, self.domains, strict=True)
        }

    @property
    def spec(self) -> ImageSpec:
        return self.sets["source"].spec

    @property
    def class_names(self) -> list[str]:
        return self.sets["source"].class_names

    @property
    def note(self) -> str:
        return "; ".join(filter(None, (inner.note for inner in self.sets.values())))

    def load_splits(self) -> dict[str, Split]:
        for inner in self.sets.values():
            inner.prepare_data()
        check_alike(self.domains, *(inner.spec for inner in self.sets.values()))
        return {f"{domain}_{kind}": self.sets[domain].splits[kind] for domain in DOMAINS for kind in KINDS}


def make(name: str, domain: str, paths: Mapping[str, str], options: Mapping[str, Any]) -> ImageDataModule:
    """The data set that conf/data names so.

    Raises:
        UsageError: there is none, an option is not one of its, or it is no data of single images.
    """
    known = sorted(path.stem for path in CHOICES.glob("*.yaml"))
    if name not in known:
        raise UsageError(
            f"data.{domain} is {name!r}{did_you_mean(str(name), known)}: choose one of {', '.join(known)}."
        )
    root = OmegaConf.create({"paths": dict(paths), "seed": 0, "data": OmegaConf.load(CHOICES / f"{name}.yaml")})
    for key, value in options.items():
        if key not in root.data:
            raise UsageError(f"data.{domain}_options names {key}, but data={name} has no such option.")
        root.data[key] = value
    made = instantiate(root.data)
    if not isinstance(made, ImageDataModule) or isinstance(made, PairDataModule):
        raise UsageError(f"data.{domain}={name} is no set of single images: choose image data, such as digits.")
    return made


def check_alike(names: tuple[str, str], source: Any, target: Any) -> None:
    """Raises UsageError when the two domains' images or classes do not fit."""
    if not (isinstance(source, ImageSpec) and isinstance(target, ImageSpec)) or not source.classes:
        raise UsageError(f"data.source={names[0]} and data.target={names[1]} must both be images with classes.")
    for what, ours, theirs in (
        ("images of", (source.shape, source.levels), (target.shape, target.levels)),
        ("classes:", source.classes, target.classes),
    ):
        if ours != theirs:
            told = [
                f"{'×'.join(map(str, v[0]))} with {v[1]} levels" if isinstance(v, tuple) else v for v in (ours, theirs)
            ]
            raise UsageError(
                f"The domains do not fit: {names[0]} has {what} {told[0]}, {names[1]} {told[1]}; choose two of the "
                "same shape and classes."
            )
