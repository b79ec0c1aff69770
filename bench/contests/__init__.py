"""The ops with their rivals, one a file."""

from contests.accumulate import Accumulate
from contests.contest import Contest
from contests.drop_apply import SGD, AdamW
from contests.mask import Mask
from contests.select import Select

CONTESTS: list[type[Contest]] = [Accumulate, Select, SGD, AdamW, Mask]  # those that need the scores first
