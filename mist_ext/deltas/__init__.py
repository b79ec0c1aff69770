"""Task deltas: what a task changed in a model, applied, undone, and kept in a small file."""

from mist_ext.deltas.chains import compose as compose
from mist_ext.deltas.chains import rebase as rebase
from mist_ext.deltas.change import Change as Change
from mist_ext.deltas.delta import TaskDelta as TaskDelta
from mist_ext.deltas.digests import state_digest as state_digest
from mist_ext.deltas.merging import merge as merge
