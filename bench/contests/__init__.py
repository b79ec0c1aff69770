"""The ops with their rivals, one a file."""

from contests.accumulate import Accumulate
from contests.contest import Contest
from contests.drop_apply import SGD, AdamW
from contests.mask import Mask
from contests.select import Select
from contests.weight_gradient import SampledWeightGrad

# Those that need the scores first.
CONTESTS: list[type[Contest]] = [Accumulate, Select, SGD, AdamW, Mask, SampledWeightGrad]
