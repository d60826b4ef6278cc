"""Sketch-RNN: drawings, stroke by stroke, from a mixture density, with and without a latent code."""

from lightning_modules.sketch.module import Sketch
from lightning_modules.sketch.network import SketchDecoder, SketchRNN

__all__ = ["Sketch", "SketchDecoder", "SketchRNN"]
