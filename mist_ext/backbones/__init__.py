"""Backbones: models by name, what their input is, their blocks."""

from mist_ext.backbones.embedded import EMBEDDED as EMBEDDED
from mist_ext.backbones.inputs import InputSpec as InputSpec
from mist_ext.backbones.inputs import input_spec as input_spec
from mist_ext.backbones.models import create as create
from mist_ext.backbones.recomputing import recomputed as recomputed
from mist_ext.backbones.structure import blocks as blocks
from mist_ext.backbones.structure import check_options as check_options
from mist_ext.backbones.structure import compile_blocks as compile_blocks
from mist_ext.backbones.structure import set_checkpointing as set_checkpointing
from mist_ext.backbones.structure import train_mode as train_mode
