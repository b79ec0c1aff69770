"""Sweeps: the product of any options, each point of it a run in a process of its own, joined in one table."""

from __future__ import annotations

from mist_ext.sweep.grid import Grid, read_grid
from mist_ext.sweep.part import Part
from mist_ext.sweep.point import Point
from mist_ext.sweep.run import sweep

__all__ = ["Grid", "Part", "Point", "read_grid", "sweep"]
