"""Files of any origin, read within limits: nothing in one can hang the reader or fill its memory."""

from __future__ import annotations

import os
import re
from typing import Any, TypeVar

import msgspec
import yaml

from mist_ext.system.regular_files import opened as opened
from mist_ext.system.regular_files import utf8_path as utf8_path

T = TypeVar("T")
MOST_YAML_BYTES = 2**20
MOST_YAML_NODES = 100_000


def read_bytes(path: str | os.PathLike[str], most: int) -> bytes:
    """Read a regular file of at most ``most`` bytes; OSError or ValueError, each naming it, where it is not that."""
    with opened(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{os.fspath(path)} is larger than {most / 2**20:.0f} MiB, the most that is read of its kind")
    return content


def read_text(path: str | os.PathLike[str], most: int = 64 * 2**20) -> str:
    """Read a file of UTF-8, as `read_bytes`; ValueError, too, where it is no UTF-8."""
    try:
        return read_bytes(path, most).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{os.fspath(path)} is no text in UTF-8: {error}") from error


def read_json(path: str | os.PathLike[str], kind: type[T], most: int = 64 * 2**20) -> T:
    """Read a JSON file into a type: a dataclass, a TypedDict or a type of containers.

    Raises
    ------
    OSError
        If it cannot be read, or is no regular file.
    ValueError
        If it is too large, no valid JSON, or not of that type; the message names the file, and the place in it.
    """
    return decode_json(read_bytes(path, most), kind, os.fspath(path))


def decode_json(content: bytes | str, kind: type[T], name: str) -> T:
    """Decode JSON into a type; ValueError as in `read_json`, caused by msgspec's own."""
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{name} is damaged, or of another version of mist_ext: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        text = content if isinstance(content, str) else content.decode("utf-8", "replace")
        found = re.search(r"[:,\[]\s*(-?(?:NaN|Infinity))", text)
        reason = f"it holds {found[1]}, which is no number of JSON" if found else error
        raise ValueError(f"{name} is damaged: {reason}") from error
    except RecursionError as error:
        raise ValueError(f"{name} is damaged: it is nested too deeply") from error


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """Read a YAML file of plain values; None where it is empty.

    Raises
    ------
    OSError
        If it cannot be read, or is no regular file.
    ValueError
        If it is no valid YAML, larger than 1 MiB, or nested too deeply, or if its aliases expand to too much.
    """
    name = os.fspath(path)
    try:
        text = read_bytes(path, MOST_YAML_BYTES).decode("utf-8")
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _expanded(node, {}) > MOST_YAML_NODES:
            raise ValueError(f"{name} expands to more than {MOST_YAML_NODES:,} values through its aliases")
        return loader.construct_document(node)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        told = " ".join(str(error).split()).replace("<unicode string>", name)  # as yaml calls what it was given as text
        raise ValueError(f"{name} is no valid YAML: {told}") from error
    except RecursionError as error:
        raise ValueError(f"{name} is nested too deeply") from error


def _expanded(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many values a node has once its aliases are expanded; RecursionError if it contains itself."""
    if id(node) not in known:
        children = []
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            _refuse_twins(node)
            children = [child for pair in node.value for child in pair]
        known[id(node)] = 1 + sum(_expanded(child, known) for child in children)
    return known[id(node)]


def _refuse_twins(node: yaml.MappingNode) -> None:
    """Raise YAMLError for a key that stands twice: the first of its values would be lost without a word."""
    seen = set()
    for key in [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]:
        if key.value in seen:
            raise yaml.MarkedYAMLError(
                problem=f"{key.value!r} stands twice; leave one out", problem_mark=key.start_mark
            )
        seen.add(key.value)
