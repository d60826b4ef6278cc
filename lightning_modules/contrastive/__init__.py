"""Two towers that put images beside sentences (CLIP), their names under attack, and what defends them."""

from lightning_modules.contrastive.module import Contrastive
from lightning_modules.contrastive.open_clip_towers import OpenCLIP
from lightning_modules.contrastive.tiny_clip import TinyCLIP

__all__ = ["Contrastive", "OpenCLIP", "TinyCLIP"]
