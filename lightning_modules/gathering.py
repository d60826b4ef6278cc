"""What the processes of one run have, put together; every process must call these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

Rows = Tensor | list[Tensor]  # (N, …), or a tensor of each of N items where they differ in length


def gathered(own: Any) -> list[Any]:
    """What each process has, in the order of their ranks."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return [own]
    parts = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, own)
    return parts


def in_order(batches: Sequence[Mapping[str, Rows]], dealt: bool) -> dict[str, Rows]:
    """The rows of a split's items in its order, from this process's batches of them.

    Args:
        batches: of each batch its rows by name.
        dealt: of `world` processes each has every world-th item, as the loaders deal them; else each has all.
    """
    own = {name: joined([batch[name] for batch in batches]) for name in (batches[0] if batches else {})}
    if not dealt:
        return own
    parts = [part for part in gathered(own) if part]  # with fewer items than processes the last have none
    found = {}
    for name in parts[0] if parts else {}:
        rows = joined([part[name] for part in parts])
        order = torch.cat([torch.arange(len(part[name])) * len(parts) + n for n, part in enumerate(parts)]).argsort()
        found[name] = [rows[place] for place in order] if isinstance(rows, list) else rows[order]
    return found


def joined(pieces: Sequence[Rows]) -> Rows:
    """The rows of several batches, or processes, one after the other."""
    return list(chain(*pieces)) if isinstance(pieces[0], list) else torch.cat(list(pieces))
