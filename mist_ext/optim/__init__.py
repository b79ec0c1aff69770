"""Optimisers that update only the selected entries that a step keeps; they know nothing of tasks."""

from mist_ext.optim.adamw import SparseAdamW as SparseAdamW
from mist_ext.optim.exchange import SparseExchange as SparseExchange
from mist_ext.optim.in_backward import InBackward as InBackward
from mist_ext.optim.largest import LargestGradientSGD as LargestGradientSGD
from mist_ext.optim.masked import MaskedGradient as MaskedGradient
from mist_ext.optim.sampled import SampledGradients as SampledGradients
from mist_ext.optim.sgd import SparseSGD as SparseSGD
