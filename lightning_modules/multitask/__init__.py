"""One backbone, three heads: fine classes, superclasses and groups at once, mistakes weighted by their severity."""

from lightning_modules.multitask.cnn import MultitaskCNN
from lightning_modules.multitask.module import Multitask

__all__ = ["Multitask", "MultitaskCNN"]
