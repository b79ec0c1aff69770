"""Options that change nothing are told, with who uses them and what to give instead; nothing else is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mist_ext import methods
from mist_ext.config import Config, presets
from mist_ext.config.option import about, read_options
from mist_ext.config.tuning import UNTRAINED
from mist_ext.config.unused import given, unused
from mist_ext.registry import METHODS, TUNERS
from mist_ext.sweep.grid import make_grid


@pytest.mark.parametrize(
    ("options", "name", "sentence"),
    [
        ({"tuner": ["full"]}, "lr", "published_magnitude and published_gradient, not by full; full has full_lr"),
        (
            {"tuner": ["mist", "bitfit"]},
            "full_lr",
            "full_lr changes nothing: it is used by full, not by mist and bitfit; mist has lr; bitfit has bitfit_lr",
        ),
        ({"tuner": ["none"]}, "keep", "it is used by mist, random, magnitude and gradient, not by none"),
        ({"tuner": ["none"]}, "momentum", "full, bitfit and lora, not by none"),
        ({"tuner": ["random"]}, "freeze_rate", "it is used by mist, not by random"),
        ({"tuner": ["random"]}, "score_objective", "it is used by mist, not by random"),
        ({"tuner": ["full"]}, "dynamics", "not by full"),
        ({"tuner": ["mist"], "score_objective": "ce"}, "classifier_lr", "it needs tune_objective ce"),
        ({"tuner": ["mist"], "tune_objective": "ce"}, "projector_lr", "it needs tune_objective mi"),
        ({"tune_objective": "ce", "tuner": ["full"]}, "projector_lr", "it needs tune_objective mi"),
        ({"epochs": 1}, "epochs", "epochs 1 tunes nothing by mist: the first epoch belongs to the selection; give 2"),
        ({"epochs": 1, "first_task_epochs": 9}, "epochs", "epochs 1 tunes nothing after the first task by mist: the"),
        ({"first_task_epochs": 1}, "first_task_epochs", "first_task_epochs 1 tunes nothing in that task by mist"),
        ({"epochs": 1, "tuner": ["random", "full", "gradient"]}, "epochs", "tunes nothing by random and gradient"),
        ({"dynamics": "published", "drop": "updates"}, "drop", "it needs dynamics exact, and momentum"),
        ({"momentum": 0.0, "drop": "updates"}, "drop", "it needs dynamics exact, and momentum"),
        ({"dynamics": "published", "in_backward": False}, "in_backward", "it needs dynamics exact"),
        (
            {"tuner": ["none"], "method": ["ranpac"], "checkpointing": True},
            "checkpointing",
            "it needs a tuner or a method that trains",
        ),
        ({"tuner": ["none"], "precision": "bf16"}, "precision", "it needs a tuner that trains, or bf16-pure"),
        ({}, "data_root", "it needs a data set that is looked for below data_root"),
        ({"data": "folder:x"}, "download", "it needs a data set that is looked for below data_root"),
        ({}, "skip_broken", "it needs a data set of image files"),
        ({}, "image_memory", "it needs a data set of image files"),
        ({"data": "cub200"}, "test_fraction", "it needs data folder:PATH"),
        ({}, "overwrite", "it needs out"),
        ({"tuner": ["none"], "deltas": True}, "deltas", "it needs a tuner that changes the backbone"),
        ({}, "wire", "wire changes nothing in a single process; start several by torchrun, or leave it out"),
    ],
)
def test_an_option_that_changes_nothing_is_told(options: dict[str, Any], name: str, sentence: str) -> None:
    assert sentence in unused(Config(**options), [name])[name]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"tuner": ["none", "mist"]}, "lr"),
        ({"tuner": ["mist"], "tune_objective": "ce"}, "classifier_lr"),
        ({"epochs": 1, "tuner": ["none", "full"]}, "epochs"),
        ({"epochs": 2, "tuner": ["mist"]}, "epochs"),
        ({"tuner": ["mist"], "in_backward": False}, "in_backward"),
        ({"tuner": ["mist"], "drop": "updates", "momentum": 0.0}, "weight_gradients"),  # drop changes nothing
        ({"tuner": ["none"], "method": ["ranpac", "l2p"]}, "checkpointing"),
        ({"tuner": ["full"]}, "checkpointing"),
        ({"tuner": ["mist"], "score_objective": "ce"}, "projector_lr"),
        ({"tuner": ["none"], "precision": "bf16-pure"}, "precision"),
        ({"data": "cub200"}, "data_root"),
        ({"data": "folder:x"}, "test_fraction"),
        ({"out": "x"}, "overwrite"),
    ],
)
def test_an_option_that_counts_is_not_told(options: dict[str, Any], name: str) -> None:
    assert not unused(Config(**options), [name])


@pytest.mark.parametrize("options", [{"tuner": ["full"]}, {"dynamics": "published"}, {"drop": "updates"}])
def test_several_processes_exchange_what_a_selection_keeps_alone(options: dict[str, Any]) -> None:
    assert (
        "mist, random or magnitude, dynamics exact, and drop gradients"
        in unused(Config(**{"tuner": ["mist"], **options}), ["wire"], 2)["wire"]
    )
    assert not unused(Config(tuner=["mist"]), ["wire"], 2)


def test_every_method_that_does_not_train_on_images_is_known() -> None:
    own = [name for name, place in METHODS.items() if place.startswith("mist_ext.")]
    assert {name for name in own if not methods.named(name).trains} == set(UNTRAINED)


def test_nothing_is_known_of_the_tuners_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TUNERS, "own", "own:Own")
    names = [name for name, what in about(Config).items() if what.group in ("tuner", "MIST")]
    assert set(unused(Config(tuner=["own"]), names)) == set()


def test_a_method_s_own_option_of_that_name_is_named() -> None:
    told = unused(Config(tuner=["none"], method=["ease"]), ["epochs"], of_methods={"ease": ["epochs", "alpha"]})
    assert told["epochs"].endswith("not by none; ease has method_options ease.epochs=VALUE")


def test_what_a_preset_sets_was_not_given() -> None:
    options = Config(**presets.preset("mist/cifar100", {"tuner": ["none"], "keep": 0.3}))
    assert given(options) == {"tuner", "keep"}
    assert given(Config(lr=0.1)) == {"lr"}
    assert given(Config()) == set()


def test_a_sweep_tells_what_no_point_uses() -> None:
    axes = {"tuner": ["none", "full"], "lr": [0.1, 0.2], "full_lr": [0.1, 0.2], "seeds": [1]}
    grid = make_grid({"fixed": {"keep": 0.5, "batch_size": 4}, "axes": axes})
    assert [told.split()[0] for told in grid.unused] == ["lr", "keep"]
    assert all("is used by mist, random, magnitude" in told and "not by none and full" in told for told in grid.unused)
    assert not make_grid({"axes": {"tuner": ["none", "mist"], "lr": [0.1, 0.2]}}).unused


def test_an_option_that_became_a_method_s_own_is_told(tmp_path: Path) -> None:
    said = r"'ranpac_width'; width is an option of the methods ranpac .* in YAML method_options: \[width=N\]"
    (tmp_path / "my.yaml").write_text("ranpac_width: 500")
    with pytest.raises(ValueError, match=said):
        read_options(tmp_path / "my.yaml", Config)
    with pytest.raises(ValueError, match=said):
        make_grid({"axes": {"ranpac_width": [500]}})
    with pytest.raises(ValueError, match=said):
        Config(**{"ranpac_width": 500})
    for part in ({"axes": {"method_options": ["width=500"]}}, {"fixed": {"method_options": ["width=500"]}}):
        points = make_grid({"axes": {"tuner": ["none"]}} | part).points
        assert points[0].options.method_options == ["width=500"]
