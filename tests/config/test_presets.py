"""Presets: the published settings, and expectations for exactly the published protocols."""

from __future__ import annotations

import itertools
from dataclasses import asdict, replace
from statistics import fmean

import preset_kinds
import pytest

from mist_ext.config import Config, presets, unused
from mist_ext.data import published_splits
from mist_ext.methods import create
from mist_ext.methods.options import options_by_method
from mist_ext.results import authors_logs, published

OFFICIAL = published_splits.SPLITS["cifar100"][0].words
DATA = ("cifar100", "imagenet_r", "imagenet_a", "cub200", "cars196")


@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_preset_is_a_valid_configuration(name: str) -> None:
    Config(**presets.preset(name)).check()


@pytest.mark.parametrize("names", preset_kinds.kinds().values(), ids=preset_kinds.kinds())
def test_presets_of_a_kind_differ_in_their_data_alone(names: list[str]) -> None:
    """So that one of them speaks for all in tests/runs/test_presets_run.py."""
    own = {"data": "", "classes_per_task": 1, "preset": None}
    assert len({repr(replace(Config(**presets.preset(name)), **own)) for name in names}) == 1


def test_the_main_job_lies_below_options_that_name_neither_data_nor_preset() -> None:
    assert presets.above_preset({}) == presets.preset(presets.MAIN_JOB)
    assert presets.above_preset({"lr": 0.1}) == {**presets.preset(presets.MAIN_JOB), "lr": 0.1}
    for given in ({"data": "digits"}, {"preset": None}, {"data": "glyphs", "preset": None, "lr": 0.1}):
        assert presets.above_preset(given) == given
    assert presets.above_preset({"preset": "mist/cub200"}) == presets.preset("mist/cub200")


def test_all_ten_published_configurations_are_there_and_their_exact_counterparts() -> None:
    for data in DATA:
        ranpac, simplecil = (Config(**presets.preset(f"mist/{data}{method}")) for method in ("", "-simplecil"))
        for options in (ranpac, simplecil):
            assert (options.data, options.dynamics, options.rate, options.keep) == (data, "published", 0.1, 0.1)
            assert (options.epochs, options.lr, options.weight_decay) == (20, 1e-4, 5e-4)
            assert (options.seeds, options.class_order_seed) == ([1], 1993)
        assert (ranpac.method, ranpac.batch_size, ranpac.method_options) == (["ranpac"], 56, ["ranpac.width=10000"])
        assert (simplecil.method, simplecil.batch_size) == (["simplecil"], 32)
        for name in (f"mist/{data}", f"mist/{data}-simplecil"):
            exact = Config(**presets.preset(f"{name}-exact"))
            assert exact == replace(Config(**presets.preset(name)), dynamics="exact", rate=0.05, preset=f"{name}-exact")
            paper = Config(**presets.preset(f"{name}-paper"))
            assert paper == replace(exact, strike_factor=1.0, freeze_rate=0.0, preset=f"{name}-paper")


def test_other_hosts_have_their_rows_without_and_with_mist_as_before_simplecil() -> None:
    for data, host in itertools.product(DATA, ("l2p", "dualprompt", "ease", "slca")):
        options, simplecil = (Config(**presets.preset(f"mist/{data}-{method}")) for method in (host, "simplecil"))
        assert options == replace(simplecil, method=[host], preset=f"mist/{data}-{host}")
        assert options.tuner == ["none", "mist"]
    for data in DATA:
        phase1, without = (Config(**presets.preset(f"mist/{data}{name}")) for name in ("-ranpac_adapter", ""))
        assert (phase1.tuner, phase1.method) == (["none"], ["ranpac_adapter"])
        assert phase1.method_options == ["ranpac_adapter.width=10000"]
        assert (phase1.backbone, phase1.class_order_seed) == (without.backbone, without.class_order_seed)


@pytest.mark.parametrize(("host", "batch_size", "rate"), [("", 56, 0.05), ("-simplecil", 32, 0.005)])
def test_the_ablations_are_those_of_the_code(host: str, batch_size: int, rate: float) -> None:
    published = Config(**presets.preset(f"mist/imagenet_r{host}"))
    tuners = {"random": "published_random", "magnitude": "published_magnitude", "gradient": "published_gradient"}
    for name, tuner in {**tuners, "full-ce": "full"}.items():
        options = Config(**presets.preset(f"mist/imagenet_r{host}-ablation-{name}"))
        assert (options.tuner, options.method) == ([tuner], published.method)
        assert (options.tune_objective, options.batch_size, options.classes_per_task) == ("ce_cosine", batch_size, 20)
        assert (options.epochs, options.momentum, options.weight_decay) == (20, 0.9, 5e-4)
        assert (options.lr, options.rate) == (1e-4, rate) if tuner != "full" else options.full_lr == 1e-4
        assert options.classifier_lr == 1e-2
        assert not unused.unused(options, unused.given(replace(options, preset=None)))


def test_the_embedded_data_have_settings_that_the_methods_know() -> None:
    for method in ("ease", "l2p", "dualprompt", "coda_prompt"):
        options = Config(**presets.preset(f"embedded/glyphs-{method}"))
        assert (options.data, options.tuner, options.method) == ("glyphs", ["none"], [method])
        given = options_by_method(options.method_options, options.method)[method]
        assert given
        assert create(method, **given)


def test_an_expectation_holds_for_its_exact_protocol_alone() -> None:
    options = Config(**presets.preset("zhou/simplecil-cifar100"))
    assert options.classes_per_task == 5
    found = published.expected(options, OFFICIAL)
    assert found is not None
    assert (found["average_accuracy"], found["last_accuracy"]) == (87.57, 81.26)
    assert "EASE" in found["source"]
    for change in (
        {"classes_per_task": 10},
        {"backbone": "vit_nano"},
        {"tuner": ["mist"]},
        {"method": ["ranpac"]},
        {"class_order_seed": 1},
        {"normalize": "model"},
        {"evaluate_on": "validation"},
        {"precision": "bf16-pure"},
        {"skip_broken": True},
        {"augmentation": "none"},
        {"method_options": ["epochs=1"]},
        {"preset": None},
    ):
        assert published.expected(replace(options, **change), OFFICIAL) is None
    assert published.expected(replace(options, batch_size=7, workers=3), OFFICIAL) == found  # does not depend on these
    assert published.expected(options, "") is None  # a part of the images
    assert published.expected(Config(**presets.preset("mist/cifar100", {"tuner": ["mist"]})), OFFICIAL) is None


@pytest.mark.parametrize("method", authors_logs.methods())
def test_the_authors_logs_stand_beside_mist_in_their_protocol_alone(method: str) -> None:
    name = authors_logs.log_of(method).preset
    (split,) = published_splits.SPLITS["imagenet_r"]
    options = Config(**presets.preset(name))
    own = [text.removeprefix(f"{method}.") for text in options.method_options]  # as an experiment's are
    options = replace(options, tuner=["mist"], method_options=own)
    found = published.expected(options, split.words)
    assert found is not None
    log = authors_logs.log_of(method)
    assert (found["average_accuracy"], found["last_accuracy"]) == (log.A_avg, log.A_last)
    assert (found["learning_accuracy"], found["accuracy_seen"]) == (log.A_tt, log.accuracy_seen_per_task)
    assert "not the paper's tables" in found["source"]
    assert published.expected(replace(options, seeds=[1, 2]), split.words) == found
    for change in (
        {"tuner": ["none"]},
        {"tuner": ["random"]},
        {"lr": 1e-3},
        {"dynamics": "exact"},
        {"rate": 0.05},
        {"freeze_rate": 0.1},
        {"batch_size": 48},
        {"method_options": ["width=7"]},
        {"classes_per_task": 10},
        {"preset": f"{name}-exact"},
    ):
        assert published.expected(replace(options, **change), split.words) is None
    assert published.expected(options, "") is None


@pytest.mark.parametrize("name", presets.PRESETS)
def test_a_preset_run_as_it_is_has_an_expectation_or_none(name: str) -> None:
    options = Config(**presets.preset(name))
    for tuner in options.tuner:
        for method in options.method:
            own = [text.removeprefix(f"{method}.") for text in options.method_options]
            one = replace(options, tuner=[tuner], method=[method], method_options=own)
            split = published_splits.SPLITS[options.data][0].words if options.data in published_splits.SPLITS else ""
            found = published.expected(one, split)
            logged = method in authors_logs.methods() and authors_logs.log_of(method).preset == name
            assert (found is not None) == (name.startswith("zhou/") or (logged and tuner == "mist"))


def test_the_logs_are_consistent_with_themselves() -> None:
    for method in authors_logs.methods():
        log = authors_logs.log_of(method)
        assert fmean(log.accuracy_seen_per_task) == pytest.approx(log.A_avg, abs=0.006)
        assert log.accuracy_seen_per_task[-1] == log.A_last
        assert fmean(log.accuracy_new_classes_per_task) == pytest.approx(log.A_tt, abs=0.006)
        assert [len(epochs) for epochs in log.loss_per_task_and_epoch] == [20] * 10


@pytest.mark.parametrize("name", presets.PRESETS)
def test_a_preset_that_is_run_as_it_is_has_nothing_changed(name: str) -> None:
    options = Config(**presets.preset(name))
    for tuner, method in itertools.product(options.tuner, options.method):
        given = options_by_method(options.method_options, options.method)[method]
        own = [f"{option}={value!r}" for option, value in given.items()]  # as an experiment's are
        one = replace(options, tuner=[tuner], method=[method], method_options=own)
        for normalize in (options.normalize, "published"):  # as it is given, and as a run resolves it
            assert published.changes(replace(one, normalize=normalize)) == {}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"lr": 0.01}, {"lr": "0.01 (preset: 0.0001)"}),
        ({"seeds": [1, 2], "workers": 3, "out": "x"}, {}),
        ({"full_lr": 1.0}, {}),  # which MIST does not use
        ({"tuner": ["full"], "keep": 0.5}, {"tuner": "'full' (preset: 'none', 'mist')"}),
        ({"tuner": ["none"], "lr": 0.01, "batch_size": 7}, {}),
        ({"method": ["fecam"], "method_options": []}, {"method": "'fecam' (preset: 'ranpac')"}),
        ({"method_options": ["width=500"]}, {"ranpac.width": "500 (preset: 10000)"}),
        ({"method_options": []}, {"ranpac.width": "its default (preset: 10000)"}),
        ({"method_options": ["width=10000", "fit_fraction=0.5"]}, {"ranpac.fit_fraction": "0.5 (preset: its default)"}),
        ({"normalize": "published"}, {}),  # which auto stands for
        ({"normalize": "model"}, {"normalize": "'model' (preset: 'auto')"}),
        ({"data": "folder:x", "normalize": "model"}, {"data": "'folder:x' (preset: 'cub200')"}),  # auto's choice there
        (
            {"images_per_class": 5, "skip_broken": True},
            {"images_per_class": "5 (preset: None)", "skip_broken": "True (preset: False)"},
        ),
        ({"preset": None, "lr": 0.01}, {}),
    ],
)
def test_what_contradicts_a_preset_is_told_with_both_values(change: dict, told: dict[str, str]) -> None:
    options = Config(**presets.preset("mist/cub200", {"tuner": ["mist"]}))
    options = replace(options, method_options=["width=10000"])
    assert published.changes(replace(options, **change)) == told


def test_no_preset_that_is_contradicted_has_a_published_figure() -> None:
    for name in presets.PRESETS:
        options = Config(**presets.preset(name, {"class_order_seed": 7}))
        one = replace(options, tuner=options.tuner[-1:], method=options.method[:1], method_options=[])
        assert published.changes(one)["class_order_seed"].startswith("7 (preset: ")
        split = published_splits.SPLITS[options.data][0].words if options.data in published_splits.SPLITS else ""
        assert published.expected(one, split) is None


def test_no_expectation_stands_beside_the_official_birds() -> None:
    options = Config(**presets.preset("zhou/ease-cub200"))
    resampled, official = (split.words for split in published_splits.SPLITS["cub200"])
    found = published.expected(options, resampled)
    assert found is not None
    assert (found["average_accuracy"], found["last_accuracy"]) == (92.23, 86.81)
    assert published.expected(options, official) is None


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        ({}, ["ranpac.width=10000"]),
        ({"method": ["simplecil"], "tuner": ["none"]}, []),
        ({"method": ["ranpac", "ranpac_ssf"]}, ["ranpac.width=10000", "ranpac_ssf.width=10000"]),
        ({"method_options": ["width=500"]}, ["width=500"]),
        ({"method_options": ["ranpac.width=500"]}, ["ranpac.width=500"]),
        ({"method_options": ["fit_fraction=0.5"]}, ["ranpac.width=10000", "fit_fraction=0.5"]),
    ],
)
def test_a_preset_s_options_of_methods_stand_below_those_that_are_given(given: dict, chosen: list[str]) -> None:
    options = Config(**presets.preset("mist/cifar100", given))
    assert options.method_options == chosen
    assert Config(**presets.preset("mist/cifar100", asdict(options))) == options  # as a run's config.yaml gives them


@pytest.mark.parametrize(
    ("name", "methods", "message"),
    [
        (
            "mist/cub200",
            ["ranpac", "simplecil"],
            "has batch_size 56, freeze_rate 0.0005, but simplecil was published with batch_size 32, freeze_rate 1e-09; "
            "run it by itself with --preset mist/cub200-simplecil, or give these options",
        ),
        ("mist/cub200", ["simplecil"], "--preset mist/cub200-simplecil,"),
        ("mist/imagenet_r-simplecil-exact", ["simplecil", "ranpac"], "--preset mist/imagenet_r-exact,"),
        ("mist/imagenet_r-paper", ["simplecil", "ranpac"], "--preset mist/imagenet_r-simplecil-paper,"),
    ],
)
def test_no_method_runs_with_what_was_published_for_another(name: str, methods: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        presets.preset(name, {"method": methods})
    own = {"method": methods, "batch_size": 56, "freeze_rate": 5e-4}  # given, whatever they are
    for given in (own, {"method": methods, "tuner": ["none"]}, {"method": methods, "data": "digits"}):
        presets.preset(name, given)


def test_only_what_a_chosen_tuner_uses_counts() -> None:
    methods = ["ranpac", "simplecil"]
    with pytest.raises(ValueError, match="has batch_size 56, but simplecil was published with batch_size 32; run"):
        presets.preset("mist/cub200", {"method": methods, "tuner": ["full"]})
    presets.preset("mist/cub200", {"method": methods, "tuner": ["full"], "batch_size": 56})
    presets.preset("mist/cub200-simplecil", {"method": "ranpac_ssf"})  # a single one, as YAML may have it
    with pytest.raises(ValueError, match="simplecil was published with batch_size 32, freeze_rate"):
        presets.preset("mist/cub200", {"method": "simplecil", "tuner": "mist"})


@pytest.mark.parametrize("methods", [["ranpac"], ["ranpac", "fecam"], ["ranpac", "ranpac_adapter"]])
def test_methods_without_published_settings_take_those_of_the_preset(methods: list[str]) -> None:
    Config(**presets.preset("mist/cub200", {"method": methods})).check()
