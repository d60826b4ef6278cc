"""Domain adaptation: digits of one look, labelled, teach a classifier of digits of another, unlabelled."""

from lightning_modules.adaptation.cycada import CyCADA
from lightning_modules.adaptation.cyclegan import CycleGAN
from lightning_modules.adaptation.module import Adaptation
from lightning_modules.adaptation.network import DANN, SourceOnly, TargetTrained
from lightning_modules.adaptation.translation import SemanticTranslation, Translation
from lightning_modules.adaptation.two_domains import TwoDomains

__all__ = [
    "DANN",
    "Adaptation",
    "CyCADA",
    "CycleGAN",
    "SemanticTranslation",
    "SourceOnly",
    "TargetTrained",
    "Translation",
    "TwoDomains",
]
