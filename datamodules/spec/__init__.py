"""What a dataset is, in the few numbers a network needs: all that passes between data and network."""

from datamodules.spec.captions import END, PAD, UNKNOWN, CaptionSpec, require_captions, start_word
from datamodules.spec.images import ImageSpec, require_images
from datamodules.spec.kinds import Spec, spec_from_dict, spec_to_dict
from datamodules.spec.scenes import SceneSpec, require_boxes, require_masks, require_scenes
from datamodules.spec.series import SeriesSpec, require_series
from datamodules.spec.shared import kind_of
from datamodules.spec.sketches import SketchSpec, require_sketches
from datamodules.spec.text import TextSpec, require_text

__all__ = [
    "END", "PAD", "UNKNOWN", "CaptionSpec", "ImageSpec", "SceneSpec", "SeriesSpec", "SketchSpec", "Spec", "TextSpec",
    "kind_of", "require_boxes", "require_captions", "require_images", "require_masks", "require_scenes",
    "require_series", "require_sketches", "require_text", "spec_from_dict", "spec_to_dict", "start_word",
]  # fmt: skip
