"""Options from flags, YAML files and Python: the same values, and the same sentences about wrong ones."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mist_ext import cli, methods
from mist_ext.cli import parsers
from mist_ext.config import Config, TuningOptions, presets, to_yaml
from mist_ext.config.option import GROUPS, kinds, read_options
from mist_ext.config.typed import typed
from mist_ext.runs import benchmark, run_folder
from mist_ext.sweep import grid
from mist_ext.system.bounded_files import read_yaml
from mist_ext.system.suggest import unknown

FLOATS = [name for name, kind in kinds(Config).items() if kind is float]
INTERNAL = ("Parser key", "argument ", "typing.", "<class", "Literal", "msgspec", "Traceback", "object does not")


class Stop(Exception):
    """Takes the place of a run."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """The options that a command line asks `mist run` for."""

    def main(*arguments: str) -> Config:
        found = []

        def run(options: Config, *_: object) -> None:
            options.check()
            found.append(options)
            raise Stop

        monkeypatch.setattr(benchmark, "run", run)
        with pytest.raises(Stop):
            cli.main(["run", *arguments])
        return found[0]

    return main


@pytest.fixture
def mistake(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The sentence that answers a command line."""

    def main(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 2
        output, errors = capsys.readouterr()
        assert output == ""
        assert errors.startswith("mist: ")
        assert errors.count("\n") == 1
        assert not any(words in errors for words in INTERNAL), errors
        return errors

    return main


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tuner: mist", {"tuner": ["mist"]}),
        ("tuner: [none, mist]", {"tuner": ["none", "mist"]}),
        ("seeds: 1", {"seeds": [1]}),
        ('seeds: "1"', {"seeds": [1]}),
        ('seeds: ["1", 2]', {"seeds": [1, 2]}),
        ("method_options: {epochs: 1}", {"method_options": ["epochs=1"]}),
        (
            "{method: [l2p, slca], method_options: {epochs: 2, l2p: {length: 3, head_type: token}}}",
            {"method_options": ["epochs=2", "l2p.length=3", "l2p.head_type=token"]},
        ),
        ("lr: 1e-3", {"lr": 0.001}),
        ('lr: "1e-3"', {"lr": 0.001}),
        ('lr: ".5"', {"lr": 0.5}),
        ("lr: 1", {"lr": 1.0}),
        ('compile: "true"', {"compile": True}),
        ("compile: yes", {"compile": True}),
        ("in_backward: null", {"in_backward": None}),
        ("weights: null", {"weights": "none"}),
        ('workers: "2"', {"workers": 2}),
        ("", {}),
        ("# all defaults\n", {}),
        ("null", {}),
    ],
)
def test_a_value_in_yaml_works_as_the_flag_does(
    text: str, expected: dict[str, Any], asked: Callable[..., Config], tmp_path: Path
) -> None:
    (tmp_path / "my.yaml").write_text(text)
    assert asked(str(tmp_path / "my.yaml"), "--data", "digits") == dataclasses.replace(
        Config(**yaml.safe_load(text) or {}), **expected
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("whole: null", "whole of FILE is None, expected text"),
        ("tuner: []", "tuner is [], expected one or more different names of: none, mist"),
        ("tuner: {mist: 1}", "unknown tuner 'mist=1'; did you mean 'mist'"),
        ("method: simplecil,ranpac", "expected names, as --method a b, or in YAML method: [a, b]"),
        ("seeds: [1, a]", "seeds of FILE is 'a', expected a whole number"),
        ("seeds: true", "seeds of FILE is True, expected a whole number"),
        ("seeds: [1, 1]", "seeds is [1, 1], expected one or more different numbers"),
        ("epochs: 2.5", "epochs of FILE is 2.5, expected a whole number"),
        ("epochs: true", "epochs of FILE is True, expected a whole number"),
        ("workers: [1]", "workers of FILE is [1], expected a whole number or null"),
        ("compile: maybe", "compile of FILE is 'maybe', expected true or false"),
        ("lr: fast", "lr of FILE is 'fast', expected a finite number"),
        ("lr: .inf", "lr of FILE is inf, expected a finite number"),
        ("lr: 1e400", "lr of FILE is '1e400', expected a finite number"),
        ("lr: 1.0e+400", "lr of FILE is inf, expected a finite number"),
        ("dynamics: exat", "unknown dynamics of FILE 'exat'; did you mean 'exact'"),
        ("data: 5", "data of FILE is 5, expected text"),
        ("sedes: 1", "unknown option of FILE 'sedes'; did you mean 'seeds'"),
        ("1: 2", "unknown option of FILE 1"),
        ("resume: x", "unknown option of FILE 'resume'"),
        ("config: x", "unknown option of FILE 'config'"),
        ("lr: 1\nlr: 2", "'lr' stands twice"),
        ("tuner: none\nmethod_options: {a: 1, a: 2}", "'a' stands twice"),
        ("- 1", "FILE is [1], expected options with their values"),
        ("hello", "FILE is 'hello', expected options with their values"),
        ("method_options: {a: {b: {c: 1}}}", "nested more than twice"),
        ("whole: (", "whole is '(', which is no regular expression"),
        ("whole: a{99999999999}", "whole is 'a{99999999999}', which is no regular expression"),
        ("data: [", "FILE is no valid YAML"),
        ("preset: 5", "preset of FILE is 5, expected text or null"),
        ("preset: mist/cifar10", "unknown preset 'mist/cifar10'; did you mean 'mist/cifar100"),
    ],
)
def test_a_wrong_value_in_yaml_is_answered_by_one_sentence(
    text: str, message: str, mistake: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "my.yaml").write_text(text)
    assert message.replace("FILE", str(tmp_path / "my.yaml")) in mistake("run", str(tmp_path / "my.yaml"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "mist needs a command: run, sweep, predict, cost, report, compare, data, delta, info"),
        (["rnu"], "unknown command 'rnu'; did you mean 'run'?"),
        (["data"], "mist data needs a command: check"),
        (["data", "chek"], "unknown command 'chek'; did you mean 'check'?"),
        (["predict"], "mist predict needs RUN, IMAGE; see mist predict --help"),
        (["report"], "mist report needs FOLDER; see mist report --help"),
        (["run", "--epoch", "3"], "unknown option '--epoch'; did you mean '--epochs'?"),
        (["run", "--rat=3"], "unknown option '--rat'; did you mean '--rate'?"),
        (["run", "--lr"], "--lr needs a value"),
        (["run", "--seeds"], "--seeds needs a value"),
        (["run", "--preset"], "--preset needs a value"),
        (["run", "--compile", "yes"], "'yes' belongs to no option; switches take no value"),
        (["run", "--compile=yes"], "--compile is a switch and takes no value"),
        (["run", "--method", "simplecil", "--method-options", "x.y=1"], "unknown method in 'x.y=1'"),
        (["run", "--lr", "fast"], "lr is 'fast', expected a finite number"),
        (["run", "--lr", "1e400"], "lr is '1e400', expected a finite number"),
        (["run", "--epochs", "2.5"], "epochs is '2.5', expected a whole number"),
        (["run", "--seeds", "1", "a"], "seeds is 'a', expected a whole number"),
        (["run", "--seeds", "1,2"], "seeds is '1,2', expected a whole number; several are given as --seeds A B, or in"),
        (["run", "--workers", "x"], "workers is 'x', expected a whole number or null"),
        (["run", "--in-backward", "x"], "in_backward is 'x', expected true or false or null"),
        (["run", "--dynamics", "foo"], "unknown dynamics 'foo'; choose one of: exact, published"),
        (["run", "--checkpoint-every", "9" * 400 + "s"], "expected a duration such as 30s"),
        (["run", "--image-memory", "1e10"], "image_memory is 10000000000.0, expected at most 1e+09"),
        (["run", "--image-memory", "1e308"], "image_memory is '1e308', expected at most 3e+38"),
        (["run", "--bitfit-lr", "1e39"], "bitfit_lr is '1e39', expected at most 3e+38"),
        (["run", "--epochs", "9" * 20], "epochs is '99999999999999999999', expected at most 9.22337e+18"),
        (
            ["run", "--method", "ease", "--method-options", "lr=1e308"],
            "lr of method 'ease' is 1e+308, expected at most",
        ),
        (["run", "--method", "ranpac", "--method-options", f"width={'9' * 20}"], "width of method 'ranpac' is 9999"),
        (["run", "missing.yaml"], "missing.yaml: No such file or directory"),
        (["report", "x", "--format", "txt"], "unknown format 'txt'; did you mean 'text'?"),
        (["report", "x", "--figure"], "unknown option '--figure'"),
        (["predict", "a", "b", "--top", "x"], "top is 'x', expected a whole number"),
        (["predict", "a", "b", "--seed", "1.5"], "seed is '1.5', expected a whole number or null"),
        (["data", "check", "digits", "--test-fraction", "nan"], "test_fraction is 'nan', expected a finite number"),
    ],
)
def test_a_mistake_in_a_command_line_is_answered_by_one_sentence(
    arguments: list[str], message: str, mistake: Callable[..., str]
) -> None:
    assert message in mistake(*arguments)


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e400"])
@pytest.mark.parametrize("name", FLOATS)
def test_a_number_that_is_not_finite_is_refused_wherever_it_comes_from(
    name: str, value: str, mistake: Callable[..., str], tmp_path: Path
) -> None:
    said = "expected a finite number"
    assert f"{name} is {value!r}, {said}" in mistake("run", f"--{name.replace('_', '-')}={value}")
    number = float(value)
    with pytest.raises(ValueError, match=f"{name} is {number}, {said}"):
        Config(**{name: number})
    changed = Config()
    setattr(changed, name, number)
    with pytest.raises(ValueError, match=f"{name} is {number}, {said}"):
        changed.check()
    with pytest.raises(ValueError, match=f"has {number}, {said} for {name}"):
        grid.make_grid({"axes": {name: [number]}})
    (tmp_path / "my.yaml").write_text(yaml.safe_dump({name: number}))
    with pytest.raises(ValueError, match=said):
        read_options(tmp_path / "my.yaml", Config)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, "1e400"])
def test_a_method_s_option_must_be_finite(value: Any) -> None:
    with pytest.raises(ValueError, match=r"alpha of method 'ease' is .*, expected a finite number"):
        methods.create("ease", alpha=value)
    with pytest.raises(ValueError, match=r"expected a finite number"):
        typed([1.0, float(value)], list[float], "options are")


def test_every_option_stands_in_one_group_of_a_help_text_that_fits(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for columns in (80, 100, 250):
        monkeypatch.setenv("COLUMNS", str(columns))
        with pytest.raises(SystemExit):
            parsers.make().parse_args(["run", "--help"])
        text = capsys.readouterr().out
        assert max(map(len, text.splitlines())) <= min(columns, 100)
    headings = [line.removesuffix(":") for line in text.splitlines() if line.endswith(":") and line[0] != " "]
    assert headings == ["options", *GROUPS]
    flags = [line.split()[0] for line in text.splitlines() if line.startswith("  --")]
    assert sorted(flags) == sorted(set(flags))
    assert {f"--{name.replace('_', '-')}" for name in kinds(Config)} <= {flag.rstrip(",") for flag in flags}
    assert "several processes:" in text.split("--shard")[0]
    assert text.index("\nMIST:") < text.index("--rate X") < text.index("\nmethod:")


def test_options_that_are_printed_are_those_that_would_be_used(
    asked: Callable[..., Config], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "my.yaml").write_text("preset: mist/cifar100\nepochs: 3\nkeep: 0.3\n")
    arguments = [str(tmp_path / "my.yaml"), "--keep", "0.2", "--workers", "null"]
    used = asked(*arguments)
    assert (used.epochs, used.keep, used.data, used.dynamics, used.workers) == (3, 0.2, "cifar100", "published", None)
    for flag in ("--print-config", "--print_config"):
        assert cli.main(["run", *arguments, flag]) == 0
        assert capsys.readouterr().out == to_yaml(used)


def test_a_run_without_data_is_the_main_job(asked: Callable[..., Config], tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("keep: 0.2\n")
    main_job = Config(**presets.preset(presets.MAIN_JOB))
    assert asked() == asked("--preset", presets.MAIN_JOB) == main_job
    assert asked(str(tmp_path / "my.yaml"), "--lr", "0.1") == dataclasses.replace(main_job, keep=0.2, lr=0.1)
    assert asked("--data", "digits") == asked("--preset", "null") == Config()


def test_several_files_lie_one_above_the_other(asked: Callable[..., Config], tmp_path: Path) -> None:
    for name, text in (("a", "{epochs: 1, keep: 0.2}"), ("b", "epochs: 2")):
        (tmp_path / name).write_text(text)
    used = asked("--config", str(tmp_path / "a"), "--config", str(tmp_path / "b"))
    assert (used.epochs, used.keep) == (2, 0.2)


@pytest.mark.parametrize(
    ("name", "known", "suggested"),
    [
        ("--epoch", ["--epochs", "--keep", "--exchange"], "'--epochs'?"),
        ("--lora", ["--lora-rank", "--lora-lr", "--lr", "--rate"], "'--lora-lr' or '--lora-rank'?"),
        ("LORA_r", ["lora-rank", "lr"], "'lora-rank'?"),
        ("mits", ["mist", "lora"], "'mist'?"),
        ("x", ["mist", "lora"], "choose one of: lora, mist"),
        (["a"], ["mist", "lora"], "choose one of: lora, mist"),
    ],
)
def test_suggestions_fit(name: object, known: list[str], suggested: str) -> None:
    assert str(unknown("name", name, known)).endswith(suggested)


def test_a_long_name_takes_neither_time_nor_room() -> None:
    assert len(str(unknown("name", "ab" * 100_000, [f"{number}ab" * 10 for number in range(50)]))) < 1000


def test_tuning_options_alone_are_typed_too() -> None:
    assert TuningOptions(lr=1, whole="norm", compile="false") == TuningOptions(lr=1.0, whole="norm", compile=False)
    with pytest.raises(ValueError, match=r"epochs is '3\.5', expected a whole number"):
        TuningOptions(epochs=typing.cast(int, "3.5"))


def test_a_key_that_stands_twice_is_named_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("fixed:\n  rate: 1\n  rate: 2\n")
    with pytest.raises(ValueError, match="'rate' stands twice"):
        read_yaml(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty"),
        ("nope: 5", "unknown option of .*run.yaml 'nope'"),
        ("[1]", "expected options with their"),
        ("class_order: [gone]", "No such file or directory: 'gone'"),
    ],
)
def test_a_damaged_configuration_of_a_run_is_told_in_words(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"run\.yaml is damaged or of another version of mist_ext \(.*{message}"):
        run_folder.read_config(tmp_path)
