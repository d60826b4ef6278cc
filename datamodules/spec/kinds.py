"""Every kind of spec, and specs as plain records."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from datamodules.spec.captions import CaptionSpec
from datamodules.spec.images import ImageSpec
from datamodules.spec.scenes import SceneSpec
from datamodules.spec.series import SeriesSpec
from datamodules.spec.sketches import SketchSpec
from datamodules.spec.text import TextSpec

Spec = ImageSpec | TextSpec | CaptionSpec | SeriesSpec | SketchSpec | SceneSpec
KINDS: dict[str, type] = {
    "images": ImageSpec,
    "text": TextSpec,
    "captions": CaptionSpec,
    "series": SeriesSpec,
    "sketches": SketchSpec,
    "scenes": SceneSpec,
}


def spec_to_dict(spec: Spec) -> dict[str, Any]:
    """Plain containers only, so that a checkpoint loads with `weights_only=True`."""
    kind = next(name for name, cls in KINDS.items() if isinstance(spec, cls))
    return {"kind": kind, **asdict(spec)}


def spec_from_dict(record: dict[str, Any]) -> Spec:
    fields = dict(record)
    return KINDS[fields.pop("kind")](**fields)
