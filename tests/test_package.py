"""The package itself: cheap to import, and its public names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mist_ext


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, mist_ext; dir(mist_ext); print(sorted({'torch', 'numpy', 'timm'} & set(sys.modules)))"
    environment = os.environ | {"PYTHONPATH": str(Path(mist_ext.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "[]\n"


def test_every_public_name_is_there_and_no_other() -> None:
    for name in mist_ext.__all__:
        assert getattr(mist_ext, name) is not None
        assert name in dir(mist_ext)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mist_ext.nothing  # noqa: B018


def test_a_digest_names_the_state_of_the_sources(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "a.cpp").write_text("one")
    first = mist_ext.sources_digest(tmp_path)
    assert mist_ext.sources_digest(tmp_path) == first
    (tmp_path / "cpu" / "a.cpp").write_text("two")
    assert mist_ext.sources_digest(tmp_path) != first
    (tmp_path / "cpu" / "a.cpp").write_text("one")
    (tmp_path / "cpu" / "a.cpp").rename(tmp_path / "a.cpp")
    assert mist_ext.sources_digest(tmp_path) != first
