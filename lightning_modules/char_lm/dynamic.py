"""Dynamic evaluation: the weights go on learning from the text that has been scored (Krause et al. 2018)."""

from __future__ import annotations

from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.text.loader import Stretch
from lightning_modules.char_lm.recurrent import RecurrentLM, detached


class Scores(NamedTuple):
    """Of each code of a stretch, in order: its nats, and whether it was the most probable one, both (N,)."""

    nats: Tensor
    hits: Tensor


def dynamic_scores(network: RecurrentLM, stretch: Stretch, lr: float, window: int) -> Scores:
    """Scores a stretch, the state carried; after each window one step of plain gradient descent on its mean loss.

    No code is predicted by weights that have seen it, or anything after it: the product of the probabilities is that
    of the whole stretch, as of any model. With `lr` 0 it is the carried scoring. Gradients reach back to the window's
    beginning. The network itself stays as it is.

    Args:
        network: trained; it adapts without dropout, as it is scored.
        stretch: what to score, its first code from the one before it.
        lr: of the descent.
        window: codes between two steps.

    Source: Krause, Kahembwe, Murray & Renals 2018, "Dynamic Evaluation of Neural Sequence Models", arXiv 1709.07432,
    in its simplest form: without their second moments and decay towards the trained weights.
    """
    device = next(network.parameters()).device
    inputs, targets = (torch.cat(parts, 1).to(device) for parts in zip(*(batch[:2] for batch in stretch), strict=True))
    adapted = deepcopy(network).eval()
    optimizer = torch.optim.SGD(adapted.parameters(), lr)
    state, scores = None, []
    with torch.backends.cudnn.flags(enabled=False):  # whose recurrences go back in training mode only
        for start in range(0, inputs.shape[1], window):
            there = slice(start, start + window)
            logits, state = adapted(inputs[:, there], state)
            state = detached(state)
            nats = F.cross_entropy(logits[0].float(), targets[0, there], reduction="none")
            scores.append(Scores(nats.detach(), logits[0].argmax(-1) == targets[0, there]))
            optimizer.zero_grad()
            nats.mean().backward()
            optimizer.step()
    return Scores(*(torch.cat(parts).cpu() for parts in zip(*scores, strict=True)))
