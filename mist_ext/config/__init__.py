"""The configuration of a run: every option with its default and its explanation. Nothing heavy is imported."""

from mist_ext.config.run import Config as Config
from mist_ext.config.run import differing as differing
from mist_ext.config.run import seconds as seconds
from mist_ext.config.run import to_yaml as to_yaml
from mist_ext.config.tuning import TuningOptions as TuningOptions
