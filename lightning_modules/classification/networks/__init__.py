"""The task's networks: images → logits."""

from lightning_modules.classification.networks.cnn import CNN
from lightning_modules.classification.networks.covid_cnn import CovidCNN
from lightning_modules.classification.networks.efficientnet_lite import EfficientNetLite
from lightning_modules.classification.networks.lenet5 import LeNet5
from lightning_modules.classification.networks.resnet import ResNet
from lightning_modules.classification.networks.torchvision_networks import VGG16, AlexNet, MobileNetV2, ResNet50
from lightning_modules.classification.networks.vit import ViT

__all__ = [
    "CNN",
    "VGG16",
    "AlexNet",
    "CovidCNN",
    "EfficientNetLite",
    "LeNet5",
    "MobileNetV2",
    "ResNet",
    "ResNet50",
    "ViT",
]
