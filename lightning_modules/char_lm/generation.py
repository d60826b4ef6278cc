"""Text drawn from a network, code by code on its recurrent state, many texts at once."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_modules.char_lm.recurrent import RecurrentLM


@torch.no_grad()
def generate(
    network: RecurrentLM,
    prompts: Tensor,
    length: int,
    temperature: float | Tensor = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Codes (B, length) that follow the prompts (B, P), P ≥ 1.

    Args:
        temperature: divides the logits; one, or one for each row (B,).
        top_k: draw only from so many most probable codes; None: from all.
        top_p: draw only from the nucleus, see `probabilities`; None: from all.
        generator: of the random numbers.
    """
    training = network.training
    network.eval()
    logits, state = network(prompts)
    drawn: list[Tensor] = []
    while len(drawn) < length:
        chances = probabilities(logits[:, -1].float(), temperature, top_k, top_p)
        drawn.append(torch.multinomial(chances, 1, generator=generator))
        if len(drawn) < length:
            logits, state = network(drawn[-1], state)
    network.train(training)
    return torch.cat(drawn, 1) if drawn else prompts[:, :0]


def probabilities(
    logits: Tensor, temperature: float | Tensor = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """What the next code (B, V) is drawn from.

    After the temperature the `top_k` most probable codes stay; of these the nucleus (Holtzman et al. 2020, arXiv
    1904.09751): the fewest most probable ones that together have a probability of at least `top_p`. What stays is
    scaled to 1. Of codes that are equally probable at the border, those with the smaller numbers stay.
    """
    if isinstance(temperature, Tensor):
        temperature = temperature[:, None]
    chances = (logits / temperature).softmax(-1)
    if top_k is None and top_p is None:
        return chances
    ordered, places = torch.sort(chances, stable=True, dim=-1, descending=True)
    if top_k is not None:
        ordered[:, top_k:] = 0
        ordered = ordered / ordered.sum(-1, keepdim=True)
    if top_p is not None:
        before = ordered.cumsum(-1) - ordered
        ordered = ordered.masked_fill(before >= top_p, 0)
        ordered = ordered / ordered.sum(-1, keepdim=True)
    return torch.zeros_like(chances).scatter(-1, places, ordered)
