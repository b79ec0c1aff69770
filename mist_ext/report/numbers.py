"""How numbers are written, the same in every kind of table and figure."""

from __future__ import annotations

from mist_ext.report.table import DASH
from mist_ext.results.metrics import Gain, Spread


def spread(value: Spread | None, seeds: int, digits: int = 2) -> str:
    """Write mean and standard deviation, the latter only where there is more than one seed."""
    if value is None:
        return DASH
    mean, std = f"{value.mean:.{digits}f}", f"{value.std:.{digits}f}"
    return f"{mean} ± {std}" if seeds > 1 else mean


def gain(value: Gain | None) -> str:
    """Write a signed `spread`, with the number of paired seeds."""
    if value is None:
        return DASH
    return f"{'+' if value.mean >= 0 else ''}{spread(Spread(value.mean, value.std), value.n)} ({value.n})"


def accuracy(value: float | None) -> str:
    """Write a percentage of images."""
    return DASH if value is None else f"{value:.2f}"


def percent(fraction: float | None) -> str:
    """Write a fraction in percent."""
    return DASH if fraction is None else f"{100 * fraction:.2f}"


def seconds(value: float | None) -> str:
    """Write seconds to three digits or so."""
    if value is None:
        return DASH
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def duration(seconds: float) -> str:
    """Write a span of time to two digits or so: ``0.4 s``, ``12 s``, ``12 min``, ``3.4 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def memory(value: float | None) -> str:
    """Write bytes in MiB."""
    return DASH if value is None else f"{value / 2**20:,.0f}"


def p_value(p: float | None) -> str:
    """Write three digits, where there are as many."""
    return DASH if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def plural(number: int, noun: str) -> str:
    """Write ``1 seed``, ``2 seeds``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
