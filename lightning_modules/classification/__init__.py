"""Image classification: networks, their training, and what is shown of a run."""

from lightning_modules.classification.module import Classification
from lightning_modules.classification.networks import (
    CNN,
    VGG16,
    AlexNet,
    CovidCNN,
    EfficientNetLite,
    LeNet5,
    MobileNetV2,
    ResNet,
    ResNet50,
    ViT,
)

__all__ = [
    "CNN",
    "VGG16",
    "AlexNet",
    "Classification",
    "CovidCNN",
    "EfficientNetLite",
    "LeNet5",
    "MobileNetV2",
    "ResNet",
    "ResNet50",
    "ViT",
]
