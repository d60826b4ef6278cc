"""Transfer: features of networks, and classifiers on features."""

# By these names the configurations of older checkpoints ask for the networks.
from lightning_modules.classification.networks import (
    VGG16,
    AlexNet,
    CovidCNN,
    EfficientNetLite,
    MobileNetV2,
    ResNet50,
)

__all__ = ["VGG16", "AlexNet", "CovidCNN", "EfficientNetLite", "MobileNetV2", "ResNet50"]
