"""Pickles of any origin that hold numbers, text, lists, dictionaries and NumPy arrays: nothing in them is called.

Neither are NumPy's own functions, which would allocate whatever a file asks for.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import pickletools
import re
from typing import Any

import numpy as np

from mist_ext.system.bounded_files import read_bytes
from mist_ext.system.names import printable

# What plain values and arrays are written with; sets and the like are not.
_OPCODES = re.compile(
    "PROTO|FRAME|STOP|MARK|NONE|NEWTRUE|NEWFALSE|INT|BININT[12]?|LONG1?|(BIN|SHORT_BIN)?STRING|(BIN|SHORT_BIN)?UNICODE|"
    "BINUNICODE8|(SHORT_)?BINBYTES|BINBYTES8|(EMPTY_)?LIST|APPENDS?|(EMPTY_)?DICT|SETITEMS?|(EMPTY_)?TUPLE|TUPLE[123]|"
    "(BIN|LONG_BIN)?(PUT|GET)|MEMOIZE|(STACK_)?GLOBAL|REDUCE|BUILD"
)
_MOST_OPCODES = 2_000_000
_MOST_TUPLES = 100  # which may be keys: hashing deeply nested ones overflows the stack
# What reading a pickle that is cut or altered may raise.
_DAMAGED = (
    pickle.UnpicklingError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    MemoryError,
    OverflowError,
)


class _DType:
    def __init__(self, code: str, *_options: object) -> None:
        self.code, self.order = code, "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def dtype(self) -> np.dtype:
        """Return the dtype, which must be of whole numbers."""
        if not re.fullmatch("[<>=|][ui][1248]", text := f"{self.order}{self.code}"):
            raise ValueError(f"it has an array of {text!r}, expected whole numbers")
        return np.dtype(text)


class _Array:
    values: np.ndarray

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, by_columns, content = state
        raw = content.encode("latin1") if isinstance(content, str) else content
        self.values = np.frombuffer(raw, kind.dtype()).reshape(shape, order="F" if by_columns else "C")


def _encode(text: str, encoding: str) -> bytes:
    """Stand in for ``_codecs.encode``, by which Python 3 pickles bytes for Python 2."""
    if encoding != "latin1":
        raise ValueError(f"it asks for the encoding {encoding!r}, expected latin1")
    return text.encode("latin1")


# What arrays are pickled with, by old and new versions of NumPy, and what takes its place.
_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(),
    ("numpy._core.multiarray", "_reconstruct"): lambda *_: _Array(),
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for what a pickle asks for; UnpicklingError for anything else."""
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {printable(f'{module}.{name}'[:100])}, which is not allowed")
        return _STAND_INS[module, name]


def read(path: str | os.PathLike[str], most: int) -> dict[str, Any]:
    """Read a pickled dictionary.

    Parameters
    ----------
    path : path-like
    most : int
        Bytes that the file may have.

    Returns
    -------
    dict
        Keys that were bytes are text, and arrays have been made of whole numbers alone.

    Raises
    ------
    OSError
        If it is no regular file, or cannot be read.
    ValueError
        If it is too large or damaged, or asks for anything but arrays; the message says why.
    """
    content = read_bytes(path, most)
    try:
        _check(content)
        # Latin-1 as torchvision does it: Python 2's strings of bytes, and arrays made of them, come out whole.
        made = _Unpickler(io.BytesIO(content), encoding="latin1").load()
        if not isinstance(made, dict):
            raise ValueError(f"it holds a {type(made).__name__}, expected a dictionary")
        text = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in made.items()}
        return {key: value.values if isinstance(value, _Array) else value for key, value in text.items()}
    except _DAMAGED as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _check(content: bytes) -> None:
    """Refuse what would fill the memory or overflow the stack."""
    tuples = 0
    for number, (opcode, argument, _) in enumerate(pickletools.genops(content), 1):
        if not _OPCODES.fullmatch(opcode.name):
            raise ValueError(f"it has the opcode {opcode.name}, which numbers, text and arrays do not need")
        tuples += opcode.name.startswith("TUPLE")
        if tuples > _MOST_TUPLES or number > _MOST_OPCODES:
            raise ValueError("it holds too much")
        most = number if opcode.name.endswith("PUT") else len(content) if opcode.name == "FRAME" else math.inf
        if isinstance(argument, int) and argument > most:
            raise ValueError(f"its {opcode.name} has the argument {argument:,}")
