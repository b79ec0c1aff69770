"""Every kind of file that is read: how a whole one is made, how it is damaged, and what reads it."""

from __future__ import annotations

import hashlib
import json
import pickle
import random
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import damaged_deltas
import mutations
import numpy as np
import torch
import yaml
from hand_made import results, task_record
from jax_weights import write_jax
from mutations import Mutation
from PIL import Image
from safetensors.torch import save_file
from scipy.io import savemat
from timm.models.vision_transformer import VisionTransformer

from mist_ext import backbones, config, methods, report
from mist_ext.backbones import weights
from mist_ext.config import Config, TuningOptions, option
from mist_ext.data import cifar100, matlab, split_lists
from mist_ext.data.image_sets import Images
from mist_ext.deltas.digests import digest_of
from mist_ext.distributed import shard_files
from mist_ext.distributed.shard import Shard
from mist_ext.results import manifest
from mist_ext.runs import checkpoint, classifier_paths, classifiers, run_folder
from mist_ext.runs.seed_run import SeedRun
from mist_ext.sweep import grid
from mist_ext.system.callbacks import Callbacks
from mist_ext.tuners.mist import MIST


@dataclass
class Kind:
    """One kind of file.

    Attributes
    ----------
    file : str
        Its path in the folder.
    make : callable
        Writes a whole one, and what is read with it.
    damage : callable
        Of the key's random numbers and the content.
    read : callable
        Of the folder; an error is to name the file or the folder.
    fit : callable
        Makes checksums fit a damaged file.
    every : int
        One of how many cases is tried, where reading takes a process of its own.
    """

    file: str
    make: Callable[[Path], object]
    damage: Mutation
    read: Callable[[Path], object]
    fit: Callable[[Path], object] = lambda _folder: None
    every: int = 1


def make_results(folder: Path) -> None:
    tensors = [{"name": name, "entries": 9, "selected": 3, "score_share": 0.5} for name in ("blocks.0.w", "head.w")]
    records = [
        task_record(
            [2 * task, 2 * task + 1],
            [90.0] * (task + 1),
            accuracy_per_class=[90.0] * (2 * task + 2),
            seconds={"score": 1.0, "select": None, "tune": 3.0},
            peak_memory_bytes={"tune": 1 << 30, "learn": None},
            selected_fraction=0.05,
            kept_fraction={"mean": 0.1, "max": 0.2},
            selection=tensors,
            backbone={"drift": 0.9, "letters": 50.0, "plasticity": 60.0},
        )
        for task in range(2)
    ]
    backbone = {"name": "none", "tasks": 2, "rate": 0.5}
    published = {"last_accuracy": 90.0, "source": "a table"}
    content = results({1: records, 2: records}, backbone=backbone, expected=published)
    content |= {"environment": {"torch": "2", "threads": 2}, "summary": {"forgetting": {"mean": 0.0, "std": 0.0}}}
    (folder / "results.json").write_text(json.dumps(content))


def read_results(folder: Path) -> None:
    experiments = report.read_experiments([folder])
    for form in report.FORMS:
        report.as_text(experiments, form)


def small_vit() -> Any:
    torch.manual_seed(0)
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=0)


OPTIONS = TuningOptions(epochs=2, batch_size=4, freeze_rate=0.01)
IMAGES = Images(torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8), torch.arange(8) % 2)


class Stop(Exception):
    """A task is to end here."""


def new_seed_run() -> SeedRun:
    backbone = small_vit()
    learner = methods.create("ranpac", width=8)
    stream: Any = SimpleNamespace(tasks=[None, None])
    return SeedRun(1, "mist", stream, backbone, MIST(backbone, OPTIONS, 1), {"ranpac": learner})


def make_checkpoint(folder: Path) -> None:
    seed_run = new_seed_run()
    seed_run.learners["ranpac"].learn(torch.randn(6, 16), torch.arange(6) % 2)
    seed_run.tuner.tune(IMAGES)
    steps = iter(range(100))

    def stop() -> None:
        if next(steps) == 2:
            raise Stop

    try:
        seed_run.tuner.callbacks = Callbacks(checkpoint_if_due=stop)
        seed_run.tuner.tune(IMAGES)
    except Stop:
        checkpoint.save(folder, {"version": "0", "state": seed_run.state_dict()})


SEED_RUNS: list[SeedRun] = []


def read_checkpoint(folder: Path) -> None:
    state = checkpoint.load_latest(folder, print)
    assert state is not None
    if not SEED_RUNS:
        SEED_RUNS.append(new_seed_run())
    seed_run = SEED_RUNS[0]
    if not isinstance(state.get("state"), dict):  # which a run refuses by its type
        return
    seed_run.load_state_dict(state["state"])
    # What was restored is used, so that an index beyond its tensor shows.
    if isinstance(seed_run.tuner, MIST) and seed_run.tuner.selection is not None:
        with seed_run.tuner._steps(seed_run.tuner.selection)[0] as take_step:
            take_step(seed_run.tuner.network(torch.zeros(2, 3, 32, 32)).square().sum())


def fit_checkpoint(folder: Path) -> None:
    (newest,) = folder.glob("0*")
    names = ("tensors.safetensors", "state.json")
    sums = {name: hashlib.sha256((newest / name).read_bytes()).hexdigest() for name in names}
    (newest / "checksums.json").write_text(json.dumps(sums))


CLASSIFIER = classifier_paths.name(1, None)


def make_classifier(folder: Path) -> None:
    method = methods.create("ease", epochs=1)
    assert isinstance(method, methods.named("ease"))
    backbone = backbones.create("vit_nano")
    method.attach(backbone)
    method._extend(range(3))
    method.learn(torch.randn(6, method.features(torch.rand(6, 3, 32, 32)).shape[1]), torch.arange(6) % 3)
    description = {
        "backbone": "vit_nano", "weights": "pretrained", "method": "ease", "method_options": {"epochs": 1},
        "class_names": ["a", "b", "c"], "transform": "AsStored", "size": 32, "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0), "as_shown": False,
    }  # fmt: skip
    classifiers.save_classifier(folder, 1, None, method, description)


def fit_classifier(folder: Path) -> None:
    """Make the digests of a damaged header fit, where it still is one."""
    content = (folder / CLASSIFIER).read_bytes()
    try:
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        description = header["__metadata__"]["classifier"].partition(" ")[2]
        header["__metadata__"]["classifier"] = f"{digest_of(description.encode())} {description}"
        text = json.dumps(header).encode()
    except (ValueError, TypeError, KeyError, AttributeError, struct.error, RecursionError):
        return
    (folder / CLASSIFIER).write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def damage_classifier(draw: random.Random, content: bytes) -> bytes:
    """Half of the times, what the file's description says."""
    if draw.randrange(2):
        return mutations.of_safetensors(draw, content)
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    digest, _, description = header["__metadata__"]["classifier"].partition(" ")
    damaged = mutations.of_json(draw, description.encode()).decode("utf-8", "replace")
    header["__metadata__"]["classifier"] = f"{digest} {damaged}"
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def make_weights(folder: Path) -> None:
    state = small_vit().state_dict()
    save_file(state, folder / "w.safetensors")
    torch.save({"state_dict": state}, folder / "w.pth")
    torch.save(state, folder / "w.bin", _use_new_zipfile_serialization=False)
    write_jax(small_vit(), folder / "w.npz")


def read_weights(name: str) -> Callable[[Path], None]:
    backbone = small_vit()
    return lambda folder: weights.load(backbone, folder / name, "small")


def make_run(folder: Path) -> None:
    (folder / "run.yaml").write_text(config.to_yaml(Config(method_options=["epochs=1"], seeds=[1, 2])))
    manifest.Manifest("0", ["run.yaml", "*/results.json"], "digits", "x").write(folder)


def make_grid(folder: Path) -> None:
    axes = {"data": ["digits", {"data": "glyphs", "projector_lr": 0.5}], "tuner": ["none", "mist"], "seeds": [1, 2]}
    content = {"fixed": {"epochs": 6, "method": ["simplecil"], "whole": "norm"}, "axes": axes}
    (folder / "grid.yaml").write_text(yaml.safe_dump(content))


def make_list(folder: Path) -> None:
    lines = []
    for label in ("n00000001", "n00000002"):
        (folder / label).mkdir()
        for row in range(3):
            Image.new("RGB", (8, 8)).save(folder / label / f"image_{row}.jpg")
        lines += [f"{label}/image_{row}.jpg 0" for row in range(2)]
    (folder / "x_train.txt").write_text("\n".join(lines))


def make_cifar(folder: Path) -> None:
    content = {b"data": np.zeros((6, 3072), np.uint8), b"fine_labels": [0, 1, 2] * 2}
    for name in ("train", "test"):
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    (folder / "meta").write_bytes(pickle.dumps({b"fine_label_names": [b"a", b"b", b"c"]}, protocol=2))


def make_options(folder: Path) -> None:
    content = {"tuner": "mist", "seeds": [1, 2], "rate": 0.1, "method_options": {"epochs": 1, "l2p": {"length": 3}}}
    (folder / "my.yaml").write_text(yaml.safe_dump(content))


def read_options(folder: Path) -> None:
    file = folder / "my.yaml"
    given = option.read_options(file, Config)
    try:
        Config(**given).check()
    except ValueError as error:  # which names the option
        raise ValueError(f"{file}: {error}") from error


def make_matlab(folder: Path) -> None:
    names = np.array([(1, "00001.jpg"), (2, "00002.jpg")], dtype=[("class", object), ("fname", object)])
    savemat(folder / "annotations.mat", {"annotations": names})


def read_matlab(folder: Path) -> None:
    matlab.read(folder / "annotations.mat", "annotations", ("class", "fname"))


SHARDS = "shards/shard-00001-model-00001-of-00001.safetensors"


def make_shards(folder: Path) -> None:
    values = {"momentum": torch.randn(40), "index": torch.arange(40, dtype=torch.int32)}
    shard_files.write(folder / "shards", {name: Shard(value, 0, 40) for name, value in values.items()})


def read_shards(folder: Path) -> None:
    shards = shard_files.ShardReader(folder / "shards")
    for name, total in shards.totals.items():
        shard_files.TensorOnDisk(shards, name, min(total, 40), torch.float32)[:]


def make(folder: Path, kind: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    KINDS[kind].make(folder)


KINDS = {
    "results": Kind("results.json", make_results, mutations.of_json, read_results),
    "state": Kind("000001/state.json", make_checkpoint, mutations.of_json, read_checkpoint, fit_checkpoint),
    "tensors": Kind(
        "000001/tensors.safetensors", make_checkpoint, mutations.of_safetensors, read_checkpoint, fit_checkpoint
    ),
    "checksums": Kind("000001/checksums.json", make_checkpoint, mutations.of_json, read_checkpoint),
    "classifier": Kind(CLASSIFIER, make_classifier, damage_classifier, classifiers.load, fit_classifier),
    "run": Kind("run.yaml", make_run, mutations.of_yaml, run_folder.read_config),
    "manifest": Kind(
        "manifest.json", make_run, mutations.of_json, lambda folder: (manifest.read(folder), run_folder.used(folder))
    ),
    "grid": Kind("grid.yaml", make_grid, mutations.of_yaml, lambda folder: grid.read_grid(folder / "grid.yaml")),
    "safetensors": Kind("w.safetensors", make_weights, mutations.of_safetensors, read_weights("w.safetensors")),
    "pth": Kind("w.pth", make_weights, mutations.of_bytes, read_weights("w.pth")),
    "legacy_pth": Kind("w.bin", make_weights, mutations.of_bytes, read_weights("w.bin")),
    "npz": Kind("w.npz", make_weights, mutations.of_bytes, read_weights("w.npz")),
    "list": Kind("x_train.txt", make_list, mutations.of_bytes, lambda folder: split_lists.listed_parts(folder, "x")),
    "cifar": Kind("train", make_cifar, mutations.of_bytes, cifar100.read),
    "cifar_names": Kind("meta", make_cifar, mutations.of_bytes, cifar100.read),
    "options": Kind("my.yaml", make_options, mutations.of_yaml, read_options),
    "delta": Kind(damaged_deltas.FILE, damaged_deltas.make, damaged_deltas.damage, damaged_deltas.read),
    "mended_delta": Kind(
        damaged_deltas.FILE, damaged_deltas.make, damaged_deltas.damage, damaged_deltas.use, damaged_deltas.fit
    ),
    "shards": Kind(SHARDS, make_shards, mutations.of_safetensors, read_shards),
    "matlab": Kind("annotations.mat", make_matlab, mutations.of_bytes, read_matlab, every=10),
}
