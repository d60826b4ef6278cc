"""Forecasting with uncertainty: recurrences with dropout tied over time, linear maps, calibrated intervals."""

from lightning_modules.forecasting.linear import DLinear, NLinear
from lightning_modules.forecasting.module import Forecasting
from lightning_modules.forecasting.recurrent import BiGRU, BiLSTM

__all__ = ["BiGRU", "BiLSTM", "DLinear", "Forecasting", "NLinear"]
