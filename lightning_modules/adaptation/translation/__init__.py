"""Translations from one domain to the other: CycleGAN and CyCADA, their players, losses, stages and pictures."""

from lightning_modules.adaptation.translation.cycada import CyCADA
from lightning_modules.adaptation.translation.cyclegan import CycleGAN
from lightning_modules.adaptation.translation.module import SemanticTranslation, Translation

__all__ = ["CyCADA", "CycleGAN", "SemanticTranslation", "Translation"]
