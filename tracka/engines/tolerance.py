"""How far actions of fast mode may differ from those of exact mode: by rounding, and no further.

The sizes of differences are relative to the mean size of the exact actions' numbers. A policy in bfloat16 keeps 8 bits
of each number. Of a full-size pi0 on an H200, actions of fast mode differed by 0.8% in the mean at batch 10, by 1.0% at
batch 1, and by 3.2% at most. The limits are two and eight steps of bfloat16, so that a call that rounds as these did is
never refused by chance. Where the policy computes in float32, and so at best with TF32's 11 bits, they are an eighth.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

MEAN = {"bfloat16": 2**-6, "float32": 2**-9}  # of the mean difference
LARGEST = {"bfloat16": 2**-4, "float32": 2**-7}
LEAST_SIZE = 1e-6  # actions that are all zeros have no size to hold a difference against


@dataclass(frozen=True)
class ActionDifference:
    """The difference of two arrays of actions: its mean and largest size, and the mean size of the exact actions."""

    mean: float
    largest: float
    size: float

    def excess(self, kind: str) -> str:
        """Returns in what the difference is beyond the limits of computing in the type `kind`; empty where it is not.

        A difference that is no number is beyond all limits.
        """
        scale = max(self.size, LEAST_SIZE)
        mean, largest = self.mean / scale, self.largest / scale
        if not mean <= MEAN[kind]:
            return f"actions differ by {mean:.2%} of their size in the mean, more than {MEAN[kind]:.2%}"
        if not largest <= LARGEST[kind]:
            return f"an action differs by {largest:.2%} of the actions' size, more than {LARGEST[kind]:.2%}"
        return ""


def difference(exact: "NDArray[Any]", other: "NDArray[Any]") -> ActionDifference:
    """Returns the difference of `other` from `exact`, arrays of the same shape."""
    import numpy as np

    sizes = np.abs(other.astype(np.float64) - exact.astype(np.float64))
    return ActionDifference(float(sizes.mean()), float(sizes.max()), float(np.abs(exact.astype(np.float64)).mean()))
