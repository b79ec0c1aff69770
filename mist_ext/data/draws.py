"""Random numbers of an embedded image, by its place in the data set."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def image_draws(seed: int, part: int, label: int, sample: int, count: int) -> NDArray[np.float32]:
    """Return one image's random numbers: float32 ``[count]``, uniform in [0, 1).

    numpy promises that a bit generator's ``random_raw`` stays the same in every version, but not that
    ``Generator``'s methods do. 24 bits fill a float32.
    """
    raw = np.random.Philox(key=[seed, part], counter=[0, sample, label, 0]).random_raw(count)
    draws: NDArray[np.float32] = (raw >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)
    return draws
