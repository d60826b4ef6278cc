"""How far the stage is: a line every half minute, inside a batch too."""

from __future__ import annotations

import logging
import time

from torch import Tensor

from lightning_modules.attacks.crafting import Forward

log = logging.getLogger(__name__)
EVERY = 30  # seconds between two lines


class Progress:
    """Counts the images that pass through a network, and says from time to time what they are for and how fast.

    Args:
        every: seconds between two lines.
    """

    def __init__(self, every: float = EVERY):
        self.every, self.what, self.most, self.passed = every, "", None, 0
        self.begun = self.said = time.perf_counter()

    def begins(self, what: str, most: int | None = None) -> None:
        """Another attack: which one on what, and how many images it passes at most; None: not known."""
        self.what, self.most, self.passed, self.begun = what, most, 0, time.perf_counter()

    def watched(self, forward: Forward) -> Forward:
        """The same function, counted."""

        def counted(images: Tensor) -> Tensor:
            self.passed += len(images)
            now = time.perf_counter()
            if now - self.said > self.every:
                self.said = now
                most = f" of at most {self.most:,}" if self.most else ""
                speed = self.passed / (now - self.begun)
                log.info("attack: %s: %s%s passes, %.1f images a second", self.what, f"{self.passed:,}", most, speed)
            return forward(images)

        return counted
