"""Transfer: backbones with published weights, their features, and classifiers on features."""

from lightning_modules.classification.transfer.covid_cnn import CovidCNN
from lightning_modules.classification.transfer.efficientnet_lite import EfficientNetLite
from lightning_modules.classification.transfer.torchvision_networks import VGG16, AlexNet, MobileNetV2, ResNet50

__all__ = ["VGG16", "AlexNet", "CovidCNN", "EfficientNetLite", "MobileNetV2", "ResNet50"]
