"""Transfer: backbones with published weights, their features, and classifiers on features."""

from lightning_modules.classification.transfer.efficientnet_lite import EfficientNetLite

__all__ = ["EfficientNetLite"]
