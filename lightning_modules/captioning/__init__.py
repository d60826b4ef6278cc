"""Images described in sentences: attention that looks where it speaks, and two languages in one model."""

from lightning_modules.captioning.caption_transformer import CaptionTransformer
from lightning_modules.captioning.module import Captioning
from lightning_modules.captioning.show_attend_tell import ShowAttendTell

__all__ = ["CaptionTransformer", "Captioning", "ShowAttendTell"]
