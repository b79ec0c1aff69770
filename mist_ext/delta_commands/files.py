"""What the commands read and write: checkpoints, deltas, and outputs that replace nothing unasked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from mist_ext import backbones
from mist_ext.backbones import weights as weight_files
from mist_ext.deltas import TaskDelta
from mist_ext.deltas.tensors import check_names
from mist_ext.results import delta_names
from mist_ext.system.files import write_atomically

DELTA_ENDINGS = (".safetensors", ".delta")


def checkpoint(given: str, backbone: str | None = None) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name.

    Parameters
    ----------
    given : str
        A ``.safetensors``, ``.pth``, ``.pt`` or ``.bin`` file, or the name of a backbone, for its pre-trained weights.
    backbone : str, optional
        The name of a backbone, for a file that is read as `mist run` reads it: in the model's dtype, under its names,
        without a classifier; ``.npz`` too.

    Raises
    ------
    FileNotFoundError
        If it is neither.
    ValueError
        If it cannot be read, or is no checkpoint of the backbone; the message names it.
    """
    if backbone is not None:
        return dict(backbones.create(backbone, given).state_dict())
    if not Path(given).exists():
        if not _is_backbone(given):
            raise FileNotFoundError(
                f"{given} is neither a file nor the name of a backbone; give the path of a checkpoint"
            )
        return dict(backbones.create(given).state_dict())
    file = weight_files.checked_file(given)
    if file.suffix == ".npz":
        raise ValueError(f"{given} has the arrays of another library; give --backbone with the model's name too")
    tensors = weight_files.tensors(file)
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{given} holds {name!r} as {type(value).__name__}, expected tensors alone: save those")
    return dict(tensors)


def check_backbone(base: str | None, backbone: str | None) -> None:
    """Raise ValueError for the name of a backbone without a base that is read as it."""
    if backbone is not None and base is None:
        raise ValueError(f"backbone is {backbone!r}, but there is no base to read as it; give --base, or leave it out")


def _is_backbone(name: str) -> bool:
    import timm

    return name in backbones.EMBEDDED or timm.is_model(name)


def deltas(given: Sequence[str], seed: int | None = None, out: Path | None = None) -> dict[str, TaskDelta]:
    """Return deltas by the paths of their files.

    Parameters
    ----------
    given : sequence of str
        Files; or folders of experiments, which stand for the deltas of all tasks of a seed, in order.
    seed : int, optional
        Whose deltas are taken from folders; by default the only one's that has any.
    out : Path, optional
        Where the command writes, which must not be one of them.

    Raises
    ------
    FileNotFoundError
        If one is not there, or a folder has none.
    ValueError
        If one is damaged or given twice, or would be replaced by the output, or a folder has the deltas of several
        seeds and none is given.
    """
    paths = [path for each in given for path in (_of_folder(Path(each), seed) if Path(each).is_dir() else [Path(each)])]
    if twice := [path for path in paths if paths.count(path) > 1]:
        raise ValueError(f"{twice[0]} is given twice; give each delta once")
    check_apart(out, paths)
    return {str(path): TaskDelta.load(path) for path in paths}


def _of_folder(folder: Path, seed: int | None) -> list[Path]:
    found = delta_names.of_seeds(folder)
    if not (found if seed is None else found.get(seed)):
        below = [str(path) for path in sorted(folder.glob("*/")) if delta_names.of_seeds(path)]
        hint = f"give one of {', '.join(below)}" if below else "mist run --deltas writes them"
        raise FileNotFoundError(f"{folder} has no delta{'' if seed is None else f' of seed {seed}'}; {hint}")
    if seed is None and len(found) > 1:
        seeds = ", ".join(map(str, found))
        raise ValueError(f"{folder} has the deltas of the seeds {seeds}; choose one with --seed-of-run")
    return list(found[next(iter(found)) if seed is None else seed].values())


def check_output(out: str, overwrite: bool, endings: Sequence[str] = (".safetensors",)) -> Path:
    """Return the path of an output, which can be written, before any work.

    Raises
    ------
    FileExistsError
        If it is there and ``overwrite`` is not given, or is a folder.
    FileNotFoundError
        If its folder is not there.
    ValueError
        If it has another ending.
    """
    path = Path(out)
    if path.suffix not in endings:
        raise ValueError(f"the output {out!r} ends in {path.suffix!r}, expected {' or '.join(endings)}")
    if path.is_dir():
        raise FileExistsError(f"the output {out} is a folder; give the path of a file")
    if path.exists() and not overwrite:
        raise FileExistsError(f"the output {out} is there already; give another path, or --overwrite to replace it")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the output {out} cannot be written: {path.parent} is no folder; create it first")
    return path


def check_apart(out: Path | None, read: Sequence[Path]) -> None:
    """Raise ValueError where an output would replace one of the files that it is made of."""
    for path in read:
        if out is not None and out.exists() and path.exists() and out.samefile(path):
            raise ValueError(f"the output {out} would replace {path}, which it is made of; give another path")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors: whole, or not at all. ValueError for a name that no such file can hold."""
    check_names(tensors)
    write_atomically(path, save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}))


@contextmanager
def named(name: str) -> Iterator[None]:
    """Name a delta's file in the errors of a block."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
