"""Image classification: networks, their training, and what is shown of a run."""

from lightning_modules.classification.cnn import CNN
from lightning_modules.classification.lenet5 import LeNet5
from lightning_modules.classification.module import Classification
from lightning_modules.classification.resnet import ResNet
from lightning_modules.classification.vit import ViT

__all__ = ["CNN", "Classification", "LeNet5", "ResNet", "ViT"]
