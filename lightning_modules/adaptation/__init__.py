"""Domain adaptation: digits of one look, labelled, teach a classifier of digits of another, unlabelled."""

from lightning_modules.adaptation.module import Adaptation
from lightning_modules.adaptation.network import DANN, SourceOnly, TargetTrained

__all__ = ["DANN", "Adaptation", "SourceOnly", "TargetTrained"]
