"""Domain adaptation: digits of one look, labelled, teach a classifier of digits of another, unlabelled."""

from lightning_modules.adaptation.module import Adaptation
from lightning_modules.adaptation.network import DANN, SourceOnly, TargetTrained
from lightning_modules.adaptation.two_domains import TwoDomains

__all__ = ["DANN", "Adaptation", "SourceOnly", "TargetTrained", "TwoDomains"]
