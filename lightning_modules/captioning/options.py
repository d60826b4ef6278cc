"""What the task refuses of its options."""

from __future__ import annotations

import math
from collections.abc import Mapping

from datamodules.errors import UsageError
from lightning_modules.captioning.network import Captioner
from lightning_modules.captioning.show_attend_tell import ShowAttendTell

LEAST_WORDS = 10


def check_options(
    network: Captioner,
    *,
    above: Mapping[str, float],
    shares: Mapping[str, float],
    scheduled_sampling: float | None,
    beam: int,
    length_penalty: float,
) -> None:
    """Raises UsageError when a number is impossible, or the network is not made for it.

    Args:
        above: options of `task.module` that are 0 or more.
        shares: options of it that are from 0 to, not including, 1.
        others: see `Captioning`.
    """
    if (words := len(network.spec.vocabulary)) < LEAST_WORDS:
        raise UsageError(
            f"The captions have {words} words in all, but at least {LEAST_WORDS} are needed to say anything: give more "
            "captions, or a smaller data.least_count."
        )
    for name, value in above.items():
        if not 0 <= value < math.inf:
            raise UsageError(f"task.module.{name} is {value}, but it must be a number, 0 or more.")
    for name, value in shares.items():
        if not 0 <= value < 1:
            raise UsageError(f"task.module.{name} is {value}, but it must be from 0 up to, not including, 1.")
    if not isinstance(beam, int) or not 1 <= beam <= 100:
        raise UsageError(f"beam is {beam}, but it must be a whole number from 1 to 100.")
    if not 0 <= length_penalty < math.inf:
        raise UsageError(f"length_penalty is {length_penalty}, but it must be a number, 0 or more.")
    if scheduled_sampling is None:
        return
    if not 0 < scheduled_sampling < math.inf:
        raise UsageError(f"task.module.scheduled_sampling is {scheduled_sampling}, but it must be above 0, or null.")
    if not isinstance(network, ShowAttendTell):
        raise UsageError(
            "task.module.scheduled_sampling needs words one after the other, which a transformer is not trained by: "
            "leave it null, or choose model=show_attend_tell."
        )
