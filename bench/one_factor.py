"""From full tuning to MIST, one factor at a time, on one task of shifted images: where is the gain lost?

    python bench/one_factor.py ladder --lr 1e-3 3e-3 --seeds 1 --json bench/results/one_factor.json

A backbone first stores the class means of 30 classes, as it is; then it is tuned on 20 others. All of them are letters
of ``renditions_dev`` in renditions that the backbone was not pre-trained on. Every trial tells, in percent of the test
images, by nearest class means:

- own: the tuned classes among themselves,
- others: the 30 that it was not tuned on, among themselves, with means made anew: what tuning did for later tasks,
- stale: all 50 with the stored means, as SimpleCIL has them after two tasks,
- fresh: all 50 with means made anew, which no method may do: the difference is what stored means lose,
- drift: how far features of the 30 moved, relative to their length.

A learning rate is chosen for each row by ``fresh`` on images of their own. Trials that the file has are not repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import machine
import torch
import torch.nn.functional as F
from progress import Progress, markdown
from torch import Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur

from mist_ext import backbones, tuners
from mist_ext.config import TuningOptions
from mist_ext.data import renditions
from mist_ext.data.image_sets import Images
from mist_ext.data.source import Source
from mist_ext.data.stream import Stream, views_of
from mist_ext.system.files import write_atomically

OWN, OTHERS = 20, 30  # classes
EVALUATED = 20  # images a class
MEANS = 40  # images that a class mean is made of, at most
OPTIONS = [field.name for field in dataclasses.fields(TuningOptions)]
WORLD = ("tuner", "backbone", "images", "blur", "seed")
FOUND = ("own", "others", "stale", "fresh", "drift")
COMMON: dict[str, Any] = {"epochs": 10, "batch_size": 64, "projector_lr": 0.5}
NO_VECTORS = r"^(?!.*(bias|norm))"  # matrices alone

Trial = dict[str, Any]
"""A tuner, its options, and what the world is made of: images of a class, their blur, backbone, seed."""

STUDIES: dict[str, list[Trial]] = {
    "ladder": [
        {"what": "frozen", "tuner": "none"},
        {"what": "full tuning", "tuner": "full"},
        {"what": "matrices alone", "tuner": "full", "layers": NO_VECTORS},
        {"what": "all entries, SparseSGD", "tuner": "mist", "rate": 1.0, "keep": 1.0},
        {"what": "5 % by score", "tuner": "mist", "keep": 1.0},
        {"what": "5 % at random", "tuner": "random", "keep": 1.0},
        {"what": "all entries, 90 % dropped", "tuner": "mist", "rate": 1.0},
        {"what": "MIST: 5 % by score, 90 % dropped", "tuner": "mist"},
        {"what": "5 % at random, 90 % dropped", "tuner": "random"},
        {"what": "5 % by score, 90 % of updates dropped", "tuner": "mist", "drop": "updates"},
        {"what": "5 % at random, 90 % of updates dropped", "tuner": "random", "drop": "updates"},
        {"what": "MIST, matrices alone", "tuner": "mist", "layers": NO_VECTORS},
        {"what": "MIST, published dynamics", "tuner": "mist", "dynamics": "published"},
        {"what": "MIST, no momentum", "tuner": "mist", "momentum": 0.0},
        {"what": "MIST, cross-entropy", "tuner": "mist", "tune_objective": "ce", "classifier_lr": 0.5},
    ],
    "projector": [
        {"what": f"{tuner}, projector at {lr:g}", "tuner": tuner, "projector_lr": lr}
        for tuner in ("full", "mist")
        for lr in (0.01, 0.1, 0.5, 2.0)
    ],
    "steps": [
        {"what": f"{tuner}, {epochs} epochs of {images} images", "tuner": tuner, "epochs": epochs, "images": images}
        for tuner in ("full", "mist")
        for epochs, images in ((6, 40), (20, 40), (40, 40), (65, 40), (10, 160))  # 62 to 800 steps that update
    ],
    "batch": [
        {"what": f"{tuner}, batches of {size}", "tuner": tuner, "batch_size": size}
        for tuner in ("full", "mist")
        for size in (16, 32, 128)
    ],
    "blur": [
        {"what": f"{what}, blurred by {blur:g}", "tuner": tuner, "blur": blur, **options}
        for blur in (0.5, 1.0)
        for what, tuner, options in (
            ("frozen", "none", {}),
            ("full tuning", "full", {}),
            ("5 % by score, 90 % of updates dropped", "mist", {"drop": "updates"}),
        )
    ],
}


def world(seed: int, images: int, blur: float = 0.0) -> tuple[Images, ...]:
    """Draw classes, and return images to tune on, to make class means of, to choose by, and to test on.

    Labels from 0 are of the classes to tune on, labels from ``OWN`` of the others. All images are blurred by a Gaussian
    of a standard deviation of so many pixels, 0 for none.
    """
    letters, _ = renditions.bitmaps_of("renditions_dev")
    some = letters[torch.randperm(len(letters), generator=torch.Generator().manual_seed(seed))[: OWN + OTHERS]]
    own = renditions.make(some[:OWN], seed, 0, images)
    train = renditions.make(some, seed, 0, min(images, MEANS))
    parts = (own, train, *(renditions.make(some, seed, part, EVALUATED) for part in (2, 1)))
    if blur == 0:
        return parts
    return tuple(Images(gaussian_blur(part.pixels, [7, 7], [blur, blur]), part.labels) for part in parts)


@torch.inference_mode()
def features(backbone: nn.Module, images: Images) -> Tensor:
    """Return features of unit length."""
    backbone.eval()
    return F.normalize(torch.cat([backbone(part / 255) for part in images.pixels.split(500)]), dim=1)


def class_means(features: Tensor, labels: Tensor) -> Tensor:
    """Return each class's mean."""
    return torch.stack([features[labels == label].mean(dim=0) for label in labels.unique()])


def accuracy(features: Tensor, labels: Tensor, means: Tensor, first: int = 0) -> float:
    """Return the percentage that is nearest, by angle, to the mean of its class; means are of labels from ``first``."""
    nearest = (features @ F.normalize(means, dim=1).T).argmax(dim=1) + first
    return round(100 * (nearest == labels).double().mean().item(), 2)


def measure(trial: Trial) -> Trial:
    """Tune as a trial says; return it with what was found."""
    options = TuningOptions(**{name: value for name, value in trial.items() if name in OPTIONS})
    own_images, train, *evaluated = world(trial["seed"], trial["images"], trial.get("blur", 0.0))
    backbone = backbones.create(trial["backbone"])
    stored = class_means(features(backbone, train), train.labels)
    before = [features(backbone, images) for images in evaluated]

    source = Source(trial["what"], tuple(map(str, range(OWN))), own_images, own_images, 1)
    (task,) = Stream(source, OWN, 0, views_of(source))
    start = time.perf_counter()
    tuned = tuners.create(trial["tuner"], backbone, options, trial["seed"]).tune(task.train)
    found: Trial = {"seconds": round(time.perf_counter() - start, 1)}
    found["losses"] = [round(loss, 3) for loss in tuned.losses.get("tune", [])]

    fresh = class_means(features(backbone, train), train.labels)
    for part, images, past in zip(("validation", "test"), evaluated, before, strict=True):
        now, labels = features(backbone, images), images.labels
        own = labels < OWN
        found[part] = {
            "own": accuracy(now[own], labels[own], fresh[:OWN]),
            "others": accuracy(now[~own], labels[~own], fresh[OWN:], OWN),
            "stale": accuracy(now, labels, torch.cat([fresh[:OWN], stored[OWN:]])),
            "fresh": accuracy(now, labels, fresh),
            "drift": round((now - past)[~own].norm(dim=1).mean().item(), 4),
        }
    return trial | found


def planned(arguments: argparse.Namespace) -> list[Trial]:
    """Return every trial of the studies: each row with every learning rate and seed."""
    trials = []
    for row in [row for name in arguments.studies for row in STUDIES[name]]:
        rate = "full_lr" if row["tuner"] == "full" else "lr"
        rates = [{}] if row["tuner"] == "none" else [{**COMMON, rate: lr} for lr in getattr(arguments, rate)]
        for options in rates:
            trials += [
                {"backbone": arguments.backbone, "images": 40, **options, **row, "seed": seed}
                for seed in arguments.seeds
            ]
    return trials


def key(trial: Trial) -> str:
    """Return a trial's settings as text."""
    return json.dumps({name: trial[name] for name in sorted(trial) if name in (*OPTIONS, *WORLD)})


def table(trials: list[Trial], found: dict[str, Trial]) -> str:
    """Return a row for each line of a study: its best learning rate, and means over the seeds with that rate.

    Where rates have different numbers of seeds, those with the most count.
    """
    rows = []
    for what in dict.fromkeys(trial["what"] for trial in trials):
        by_rate: dict[float | None, list[Trial]] = {}
        for trial in trials:
            if trial["what"] == what and key(trial) in found:
                by_rate.setdefault(trial.get("full_lr", trial.get("lr")), []).append(found[key(trial)])
        if by_rate:
            most = max(map(len, by_rate.values()))
            by_rate = {rate: seeds for rate, seeds in by_rate.items() if len(seeds) == most}
            best = max(by_rate, key=lambda rate: mean(by_rate[rate], "validation", "fresh"))
            figures = [mean(by_rate[best], "test", name) for name in FOUND]
            rows.append(
                [
                    what,
                    "" if best is None else f"{best:g}",
                    *(f"{value:.1f}" for value in figures[:-1]),
                    f"{figures[-1]:.2f}",
                ]
            )
    return markdown(["", "lr", *FOUND], rows)


def mean(trials: list[Trial], part: str, name: str) -> float:
    return sum(trial[part][name] for trial in trials) / len(trials)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", choices=STUDIES)
    parser.add_argument("--backbone", default="vit_nano.scripts")
    parser.add_argument("--lr", type=float, nargs="+", default=[1e-3, 3e-3, 1e-2], help="of the sparse tuners")
    parser.add_argument("--full-lr", type=float, nargs="+", default=[5e-4, 2e-3], help="of full tuning")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="trials at once, of one thread each")
    parser.add_argument("--json", type=Path, required=True, help="trials are added to it as they end")
    arguments = parser.parse_args()
    trials = planned(arguments)
    known = json.loads(arguments.json.read_text(encoding="utf-8"))["trials"] if arguments.json.is_file() else []
    found = {key(trial): trial for trial in known}
    missing = list({key(trial): trial for trial in trials if key(trial) not in found}.values())
    progress = Progress(len(missing))
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        for done in as_completed([pool.submit(measure, trial) for trial in missing]):
            trial = done.result()
            found[key(trial)] = trial
            content = {"machine": machine.facts(torch.device("cpu")), "trials": list(found.values())}
            write_atomically(arguments.json, json.dumps(content, indent=1) + "\n")
            progress.what = f"{trial['what']}, lr {trial.get('full_lr', trial.get('lr'))}, seed {trial['seed']}"
            progress.advance(", ".join(f"{name} {value}" for name, value in trial["test"].items()))
    for name in arguments.studies:
        rows = {row["what"] for row in STUDIES[name]}
        print(f"\n**{name}**\n\n{table([trial for trial in trials if trial['what'] in rows], found)}")


if __name__ == "__main__":
    main()
