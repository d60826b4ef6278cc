"""PixelRNN and its family (van den Oord et al. 2016, arXiv 1601.06759): networks, loss, sampling."""

from lightning_modules.pixelrnn.diag_bilstm import DiagonalBiLSTM
from lightning_modules.pixelrnn.module import PixelRNN
from lightning_modules.pixelrnn.pixelcnn import PixelCNN
from lightning_modules.pixelrnn.pixelnet import PixelNet
from lightning_modules.pixelrnn.row_lstm import RowLSTM

__all__ = ["DiagonalBiLSTM", "PixelCNN", "PixelNet", "PixelRNN", "RowLSTM"]
