"""Image classification: a convolutional network, its training, and what is shown of a run."""

from lightning_modules.classification.cnn import CNN
from lightning_modules.classification.module import Classification

__all__ = ["CNN", "Classification"]
