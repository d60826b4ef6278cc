"""Character language models: networks, loss and scoring, generation."""

from lightning_modules.char_lm.module import CharLM
from lightning_modules.char_lm.recurrent import CharGRU, CharLSTM

__all__ = ["CharGRU", "CharLM", "CharLSTM"]
