"""A class for every pixel, in real time: Fast-SCNN, mean IoU, frames a second."""

from lightning_modules.segmentation.fast_scnn import FastSCNN
from lightning_modules.segmentation.module import Segmentation

__all__ = ["FastSCNN", "Segmentation"]
