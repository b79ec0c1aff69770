"""Plug-ins of other packages that are broken: named with their package, and only when they are used."""

from __future__ import annotations

from pathlib import Path

import pytest

from mist_ext import cli, data, methods, registry, tuners
from mist_ext.config import Config

MODULES = {
    "whole": "import torch\nfrom mist_ext.tuners.none import Frozen\nclass Mine(Frozen): ...\n",
    "crashing": "raise RuntimeError('no licence')\n",
    "unfinished": "def half(:\n",
    "importing": "import a_package_that_is_not_there\n",
    "ending": "import sys\nsys.exit(3)\n",
    "older": "from mist_ext.methods.method import Method\nclass Thing(Method):\n    def _learn(self): ...\n",
    "pausing": "from mist_ext.tuners.tuner import never\n",
    "other": "def function(root):\n    return 5\nNUMBER = 5\nclass Unrelated: ...\n",
}
BROKEN = {
    "no_module": ("absent:Thing", "ModuleNotFoundError: No module named 'absent'"),
    "no_attribute": ("whole:Absent", "AttributeError: module 'whole' has no attribute 'Absent'"),
    "crash": ("crashing:Thing", "RuntimeError: no licence"),
    "syntax": ("unfinished:Thing", "SyntaxError"),
    "needs": ("importing:Thing", "No module named 'a_package_that_is_not_there'"),
    "exit": ("ending:Thing", "SystemExit: 3"),
    "old_method": ("older:Thing", "Thing defines '_learn', which is called 'update' now; rename it"),
    "old_import": ("pausing:Thing", "mist_ext.tuners.tuner has no 'never' any more"),
    "number": ("other:NUMBER", "is 5, expected"),
}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that declares everything under every kind."""
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    entries = {name: place for name, (place, _) in BROKEN.items()} | {"unrelated": "other:Unrelated"}
    entries |= {"function": "other:function", "mine": "whole:Mine"}
    lines = [
        line
        for kind in ("tuners", "methods", "data")
        for line in (f"[mist_ext.{kind}]", *(f"{name} = {place}" for name, place in entries.items()))
    ]
    info = tmp_path / "lab_tools-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-tools\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for known in (registry.TUNERS, registry.METHODS, registry.SOURCES):
        for name, place in registry.declared(known.group).items():
            if name not in known:
                monkeypatch.setitem(known, name, place)


@pytest.mark.parametrize(("name", "why"), [(name, why) for name, (_, why) in BROKEN.items()])
@pytest.mark.parametrize("use", [tuners.named, methods.named, data.load], ids=["tuner", "method", "data"])
def test_a_broken_plug_in_is_named_with_its_package(use, name: str, why: str, installed: None) -> None:
    with pytest.raises(ValueError, match=rf"'{name}' of the package lab-tools 1\.2 \(\w+: {BROKEN[name][0]}\)") as told:
        use(name)
    assert why in str(told.value)


@pytest.mark.parametrize("name", ["unrelated", "function"])
def test_what_is_no_tuner_or_method_is_refused(name: str, installed: None) -> None:
    with pytest.raises(ValueError, match=r"expected a class derived from mist_ext\.tuners\.tuner\.Tuner"):
        tuners.named(name)
    with pytest.raises(ValueError, match=r"expected a class derived from mist_ext\.methods\.method\.Method"):
        methods.named(name)


def test_a_data_set_that_is_no_source_is_refused(installed: None) -> None:
    with pytest.raises(ValueError, match=r"data set 'function' \(other:function\) is 5, expected a .*Source"):
        data.load("function")


def test_a_whole_plug_in_and_the_package_s_own_are_used_beside_broken_ones(installed: None) -> None:
    assert tuners.named("mine").__name__ == "Mine"
    assert tuners.named("mist").__name__ == "MIST"
    Config(tuner=["none", "mine"], method=["simplecil"], data="digits").check()


def test_the_command_answers_with_a_sentence(
    installed: None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["run", "--tuner", "crash", "--out", str(tmp_path / "out")])
    errors = capsys.readouterr().err
    assert errors.startswith("mist: 'crash' of the package lab-tools 1.2 (tuners: crashing:Thing) cannot be imported")
    assert errors.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_a_program_names_itself_is_said_to_be_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tuners.TUNERS, "lost", "nowhere:Lost")
    with pytest.raises(ValueError, match=r"'lost' of this program \(tuners: nowhere:Lost\) cannot be imported"):
        tuners.named("lost")
