"""What an examination of a data set notes: of one image, and in all."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Inspected:
    """One image.

    Attributes
    ----------
    row : int
    fingerprint : bytes
        Equal for equal pixels; empty where the image cannot be decoded.
    problem : str
        Why it cannot be decoded, with its name; else empty.
    changes : tuple of str
        What decoding has changed (`decode.decode`).
    """

    row: int
    fingerprint: bytes = b""
    problem: str = ""
    changes: tuple[str, ...] = ()


@dataclass
class Findings:
    """What an examination has found.

    Attributes
    ----------
    problems : list of str
        What makes results wrong, or stops a run.
    remarks : list of str
        What is worth knowing.
    """

    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
