"""Every command and every Python block of every page is run; what takes too long is checked by what would run it.

A page is a story: its blocks are run from top to bottom in one folder (`conftest.py`) and one Python namespace. A
command that ``RUN`` does not know, or a block in another language than those below, fails: nothing is skipped in
silence.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from forked import Forked
from hypothesis import settings
from processes import environment, free_port
from setuptools.command.build_ext import build_ext

from mist_ext.cli import main, parsers
from mist_ext.config import Config
from mist_ext.sweep.grid import read_grid

ROOT = Path(__file__).parents[2]
PAGES = {
    page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8")
    for page in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
        *sorted((ROOT / "docs").glob("*.md")),
    )
}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Pages whose Python needs more than a namespace have tests of their own.
OWN_TESTS = {
    "docs/extending.md": "test_extending_page.py",
    "docs/saving.md": "test_saving_page.py",
    "docs/deltas.md": "test_deltas_page.py",
}

# What is smaller here than on a page.
SMALLER = [
    (r"vit_base_patch16_224\.augreg_in21k|vit_small_patch14_dinov2", "vit_nano"),  # which nobody has to download
    (r"--nproc-per-node \d+", "--nproc-per-node 2"),
    (r"^mist run$|--data glyphs|--preset mist/(cub200|cifar100)\S*", r"\g<0> --classes-per-task 50"),
    (r"(--preset mist/\S+)", r"\1 --method-options ranpac.width=50"),
    (r"^mist run(?!.*(--(preset|method|resume|help)\b|yaml)).*", r"\g<0> --method-options ranpac.width=50"),
    (r"(--preset mist/\S+)(?!\S|.*--backbone)", r"\1 --backbone vit_nano"),
]
FEW = ["--seeds", "1", "--first-task-epochs", "2", "--epochs", "2", "--workers", "0", "--device", "cpu"]
# What takes a minute or so, for `pytest -m slow`.
SLOW = r"torchrun|mist sweep|mist run (--preset (?!.* --data folder)|--data glyphs)|mist data check cub200|mkdocs build"
# What a command on a page is to be refused for: it shows what a misspelt name is answered with.
REFUSED = {"mist run --tuner lst_block": "did you mean 'last_block'"}
ELSEWHERE = ["stripes", "last_block", "nearest_mean"]  # which docs/extending.md adds, and test_extending_page.py runs


def commands(text: str) -> list[str]:
    """The single commands of a shell block, without comments."""
    lines = text.replace("\\\n", " ").splitlines()
    return [
        part.strip() for line in lines for part in re.split(r"&&|\|", re.sub(r"(^|\s)#.*", "", line)) if part.strip()
    ]


def with_options(words: list[str], options: list[str]) -> list[str]:
    """Give a command these options, in the place of those that it has."""
    kept, replaced = [], False
    for word in words:
        replaced = word in options if word.startswith("--") else replaced
        kept += [] if replaced else [word]
    return [*kept, *options]


def mist(words: list[str], really: bool) -> None:
    if all(re.fullmatch(r"[a-z]+", word) for word in words) and not really:
        words = [*words, "--help"]  # a command's name
    if "--help" in words:
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
        return
    if words[0] == "run" and "--resume" not in words:
        if any(name in words for name in ELSEWHERE):
            parsers.make().parse_args(words)
            return
        out = words[words.index("--out") + 1] if "--out" in words else "runs/default"
        words = with_options(words, [*FEW, "--out", out, *([] if really else ["--print-config"])])
        shutil.rmtree(out, ignore_errors=True)
    elif words[0] == "sweep":
        assert read_grid(words[1]).axes
        if really:
            grid = yaml.safe_load(Path(words[1]).read_text())
            grid["axes"] |= {"seeds": [1]}
            grid["fixed"] |= {"epochs": 2, "workers": 0}
            Path(words[1]).write_text(yaml.safe_dump(grid))
    elif words[0] == "report":
        words = [*words, "--no-figures"]  # which tests/report draws
    if really or words[0] == "run":
        assert main(words) == int(words[:3] == ["data", "check", "cub200"])  # whose miniature has too few images
    else:
        parsers.make().parse_args(words)


def torchrun(words: list[str], really: bool) -> None:
    assert words[:2] == ["--nproc-per-node", "2"]
    if words[2:4] != ["-m", "mist_ext"]:
        python(words[2:], really)
    elif not really:
        mist(words[4:], really)
    else:
        shutil.rmtree("runs/processes", ignore_errors=True)
        words, port = with_options(words[2:], [*FEW, "--out", "runs/processes"]), free_port()
        ranks = [Forked(*words, env=os.environ | environment(rank, 2, port)) for rank in range(2)]
        said = [rank.communicate(timeout=300) for rank in ranks]
        assert [rank.returncode for rank in ranks] == [0, 0], said
        assert "Results, tables and figures" in said[0][0]


class Accepted(Exception):
    """A script's own parser has taken its arguments."""


def python(words: list[str], really: bool) -> None:
    """What the benchmarks do with these arguments has tests of its own; here their own parsers take them."""
    script, *arguments = words
    if script == "tests/fuzz":  # reads its words itself; tests/runs/test_fuzzed_files.py runs it
        assert Path(script).is_dir()
        assert arguments[0].isdecimal()
        return
    if script == "-m":
        assert find_spec(arguments[0])
        return
    if script == "setup.py":
        assert Path(script).exists()
        assert arguments[0] == "build_ext"
        assert {flag.removeprefix("--") for flag in arguments[1:]} <= {option[0] for option in build_ext.user_options}
        return
    parse, parse_known = argparse.ArgumentParser.parse_args, argparse.ArgumentParser.parse_known_args

    def known(parser: argparse.ArgumentParser, *given: Any, **named: Any) -> Any:
        parse_known(parser, *given, **named)
        raise Accepted

    def all_known(parser: argparse.ArgumentParser, *given: Any, **named: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(argparse.ArgumentParser, "parse_known_args", parse_known)
            parse(parser, *given, **named)
        raise Accepted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *arguments])
        patch.setattr(argparse.ArgumentParser, "parse_args", all_known)
        patch.setattr(argparse.ArgumentParser, "parse_known_args", known)
        with pytest.raises(Accepted):
            runpy.run_path(script, run_name="__main__")


def pytest_command(words: list[str], config: pytest.Config) -> None:
    """Paths, options, markers and profiles that this pytest knows."""
    values = {name: value for name, value in itertools.pairwise([*words, ""]) if name.startswith("-")}
    for name, value in values.items():
        name, _, value = name.partition("=") if "=" in name else (name, "", value)
        if name not in (ROOT / "bench" / "conftest.py").read_text() or "bench" not in words:
            config.getoption(name)
        if name == "-m":
            assert any(marker.startswith(f"{value}:") for marker in config.getini("markers"))
        if name == "--hypothesis-profile":
            assert settings.get_profile(value)
    assert all(Path(word).exists() for word in words if "/" in word or word in ("bench", "tests"))


def extras() -> dict[str, str]:
    """The optional dependencies in pyproject.toml, as text; "" has what a build needs."""
    text = (ROOT / "pyproject.toml").read_text()
    found = dict(re.findall(r"^(\w+) = \[(.*?)\]", text.partition("[project.optional-dependencies]")[2], re.M | re.S))
    return found | {"": re.findall(r"^requires = \[(.*?)\]", text, re.M)[0]}


def pip(words: list[str], _: bool) -> None:
    """CI installs; here what is asked for is there."""
    assert words[0] == "install"
    for word in words[1:]:
        if word.startswith("."):
            assert set(filter(None, re.split(r"[\[\],.]", word))) <= set(extras())
        elif word != "-e":
            assert f'"{word}' in extras()[""]


def tool(name: str) -> Callable[[list[str], bool], None]:
    """A developer's tool: it comes with an extra, and CI runs it."""

    def check(words: list[str], really: bool) -> None:
        assert f'"{name}' in "".join(extras().values()).replace("mkdocs-material", "mkdocs").replace(
            "import-linter", "lint-imports"
        )
        assert name in (ROOT / ".ci" / "run").read_text()
        if name == "ruff":
            run_process([sys.executable, "-m", "ruff", *words, *(["--check"] if words[0] == "format" else [])])
        if name == "mkdocs" and really and words[0] == "build" and find_spec("mkdocs"):
            run_process([sys.executable, "-m", "mkdocs", *words, "--site-dir", str(Path.cwd() / "site")])

    return check


def run_process(words: list[str]) -> str:
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def nothing(*_: Any) -> None:
    """`source` and `xargs` do their work in a shell; the command behind `xargs` is looked at."""


RUN: dict[str, Callable[[list[str], bool], None]] = {
    "mist": mist,
    "torchrun": torchrun,
    "python": python,
    "pip": pip,
    "bench/gpu.sh": lambda words, _: nothing(run_process(["bench/gpu.sh", *words, "--help"])),
    "git": lambda words, _: nothing(run_process(["git", *words])) if (ROOT / ".git").exists() else None,
    "source": nothing,
    **{name: tool(name) for name in ("ruff", "mypy", "lint-imports", "clang-format", "mkdocs")},
}


def run(command: str, config: pytest.Config, slow: bool | None) -> None:
    """Run a command; None: look at it alone."""
    for pattern, smaller in SMALLER:
        command = re.sub(pattern, smaller, command)
    words = [word for word in shlex.split(command) if word != "..."]
    while re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # a variable that something reads
        name = words.pop(0).partition("=")[0]
        readers = [ROOT / "setup.py", *(ROOT / "mist_ext" / "kernels").glob("*.py")]
        assert any(name in reader.read_text() for reader in readers), f"nothing reads {name}"
    if words[0] == "xargs":
        words = words[1:]
    if words[0] == "pytest":
        pytest_command(words[1:], config)
    else:
        assert words[0] in RUN, f"{command}: say in {Path(__file__).name} how it is run or checked"
        RUN[words[0]](words[1:], slow is not None and (slow or not re.match(SLOW, command)))


def story(page: str, names: dict[str, Any], one_process: Callable, config: pytest.Config, slow: bool) -> None:
    """Run the blocks of a page from top to bottom; slow commands too, or looked at alone."""
    for language, block in FENCE.findall(PAGES[page]):
        if language == "bash":
            for command in commands(block):
                run(command, config, slow)
        elif language == "python" and page not in OWN_TESTS:
            with one_process():
                exec(compile(block, page, "exec"), names)
        elif language == "yaml":
            named = re.match(r"# (\S+\.yaml)\n", block)
            assert named, "a YAML block begins with the name of its file"
            Path(named[1]).write_text(block)
        else:  # toml is in OWN_TESTS; without a language are pictures of folders
            assert language == "" or page in OWN_TESTS, f"say in {Path(__file__).name} how {language} is run"


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run(
    page: str, desk: Callable, namespace: dict, one_process: Callable, pytestconfig: pytest.Config
) -> None:
    desk(PAGES[page], slow=False)
    story(page, namespace, one_process, pytestconfig, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if re.search(rf"^({SLOW})", PAGES[page], re.MULTILINE)])
def test_the_examples_of_a_page_that_take_long_run_too(
    page: str, desk: Callable, namespace: dict, one_process: Callable, pytestconfig: pytest.Config
) -> None:
    desk(PAGES[page], slow=True)
    story(page, namespace, one_process, pytestconfig, slow=True)


def test_an_unknown_command_is_no_part_of_a_page(pytestconfig: pytest.Config) -> None:
    with pytest.raises(AssertionError, match="say in"):
        run("rm -r runs", pytestconfig, slow=None)


def test_the_commands_in_prose_can_be_given(desk: Callable, pytestconfig: pytest.Config) -> None:
    desk("", slow=False)
    prose = " ".join(FENCE.sub("", text) for text in PAGES.values())
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    found = [span for span in spans if re.split(r"[ =]", span)[0] in (*RUN, "pytest") and " " in span]
    assert len(found) > 15
    for command in found:
        for part in commands(command):
            if part in REFUSED:
                with pytest.raises(ValueError, match="unknown"):
                    Config(tuner=["lst_block"]).check()
            else:
                run(part, pytestconfig, slow=None)
