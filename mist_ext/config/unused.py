"""Options that are given and change nothing, or leave a tuner idle: nothing uses them, or what they need is missing.

They are told, not refused: one file of options serves several tuners, and a flag may lie above a preset. Compilers do
the same with arguments that they do not use.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

from mist_ext.config.option import about
from mist_ext.config.presets import preset
from mist_ext.config.run import Config
from mist_ext.config.tuning import OWN, SPARSE, TuningOptions

NOTHING: Mapping[str, Collection[str]] = MappingProxyType({})


def unused_by(tuner: str, options: type = TuningOptions) -> list[str]:
    """Return the options that change nothing for a tuner of this package; none for a plug-in, which may use any."""
    if tuner not in OWN:
        return []
    return [name for name, what in about(options).items() if what.tuners is not None and tuner not in what.tuners]


def given(options: Config) -> set[str]:
    """Return the names of options that differ from their defaults, or from the preset's values if one is given."""
    below = Config(**preset(options.preset)) if options.preset else Config()
    return {name for name in about(Config) if getattr(options, name) != getattr(below, name)}


def unused(
    options: Config, names: Collection[str], processes: int = 1, of_methods: Mapping[str, Collection[str]] = NOTHING
) -> dict[str, str]:
    """Say which options change nothing in a run or leave it untuned, who would use them, and what to give instead.

    Parameters
    ----------
    options : Config
        Of the run.
    names : collection of str
        The options to look at: those that were given.
    processes : int
        How many work on the run.
    of_methods : mapping, optional
        The names of each method's own options, which may be called the same.

    Returns
    -------
    dict of str to str
        By the option's name a sentence.
    """
    told = {}
    by_every_tuner = set.intersection(*(set(unused_by(tuner, Config)) for tuner in options.tuner))
    for name, what in about(Config).items():
        if name not in names:
            continue
        if name in by_every_tuner:
            users = f"it is used by {_listed(what.tuners or ())}, not by {_listed(options.tuner)}"
            others = _instead(what.role, options.tuner)
            others += [
                f"{method} has method_options {method}.{name}=VALUE"
                for method, own in of_methods.items()
                if name in own
            ]
            told[name] = "; ".join([f"{name} changes nothing: {users}", *others])
        elif what.group == "several processes" and processes == 1:
            told[name] = f"{name} changes nothing in a single process; start several by torchrun, or leave it out"
        elif what.needs is not None and not what.needs[1](options):
            told[name] = f"{name} changes nothing: it needs {what.needs[0]}"
    untuned = [tuner for tuner in options.tuner if tuner in SPARSE]
    first = options.first_task_epochs
    for name, where in (("epochs", "after the first task " if first else ""), ("first_task_epochs", "in that task ")):
        if name in names and getattr(options, name) == 1 and untuned:
            told[name] = (
                f"{name} 1 tunes nothing {where}by {_listed(untuned)}: the first epoch belongs to the selection; "
                "give 2 or more"
            )
    return told


def _instead(role: str, tuners: Collection[str]) -> list[str]:
    """Say what the chosen tuners have in the same role."""
    same = {name: what.tuners or () for name, what in about(Config).items() if role and what.role == role}
    return [f"{tuner} has {name}" for tuner in tuners for name, users in same.items() if tuner in users]


def _listed(names: Collection[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
