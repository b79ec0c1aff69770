"""No tuning: the backbone stays frozen, as in the freeze-based methods alone."""

from mist_ext.tuners.tuner import Tuner


class Frozen(Tuner):
    """The backbone is never changed."""

    shardable = True
