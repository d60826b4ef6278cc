"""The embedded digits with three labels each: the digit, its kind of shape, and whether it has a closed loop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from datamodules.images.digits import Digits
from datamodules.images.shared.hierarchy import balancing_weights, check_balance, make_hierarchy
from datamodules.spec import ImageSpec

SUPERCLASSES = {
    "loops only": ["0", "8"],
    "loop and tail": ["6", "9"],
    "straight strokes": ["1", "4", "7"],
    "curved strokes": ["2", "3", "5"],
}
GROUPS = {"closed": ["loops only", "loop and tail"], "open": ["straight strokes", "curved strokes"]}


class DigitShapes(Digits):
    """`data=digit_shapes`: `Digits` whose ten classes lie in four superclasses and two groups, by their usual shape.

    Args:
        balance: draw training images so that all labels of this level (`fine`, `super`, `group`) come equally often;
            `none`: each image once an epoch.
        options: see `Digits`.
    """

    def __init__(self, balance: str = "group", **options: Any):
        super().__init__(**options)
        check_balance(balance)
        self.balance, self.hierarchy = balance, make_hierarchy(SUPERCLASSES, GROUPS)

    @property
    def spec(self) -> ImageSpec:
        return replace(super().spec, supers=self.hierarchy.supers, groups=self.hierarchy.groups)

    @property
    def note(self) -> str:
        return "digits grouped by shape, a made-up hierarchy that shows the task without a download"

    def weights(self) -> np.ndarray | None:
        return balancing_weights(self.hierarchy, self.splits["train"], self.balance)
