"""The configuration of a run: every option with its default and its explanation. Nothing heavy is imported."""

from mist_ext.config.config import Config as Config
from mist_ext.config.config import TuningOptions as TuningOptions
from mist_ext.config.config import differing as differing
from mist_ext.config.config import seconds as seconds
from mist_ext.config.config import to_yaml as to_yaml
