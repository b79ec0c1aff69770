"""Compiles the CPU kernels wherever there is a C++ compiler, the CUDA kernels wherever there is a usable toolkit.

FORCE_CUDA=1 makes a missing toolkit an error, FORCE_CUDA=0 builds for the CPU alone. TORCH_CUDA_ARCH_LIST chooses the
architectures. A GPU in the machine is neither needed nor looked for.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))
import mist_ext  # noqa: E402 (imports nothing but the standard library)

TORCH_TARGET = "-DTORCH_TARGET_VERSION=0x020b000000000000ULL"  # libtorch's stable ABI as of 2.11
CXX_FLAGS = ["-O3", "-g0", "-std=c++20", "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-Wextra", TORCH_TARGET]
NVCC_FLAGS = [
    *("-O3", "-std=c++20", "--fmad=false", "-Xcompiler=-fvisibility=hidden", TORCH_TARGET, "-DUSE_CUDA"),
    "--threads=0",  # the architectures of the one file in parallel
]


def compiler() -> str | None:
    """The C++ compiler that the build will call, None where there is none."""
    return next(filter(shutil.which, filter(None, [os.environ.get("CXX"), "c++", "g++", "clang++"])), None)


def toolkit() -> tuple[str, str] | None:
    """The CUDA toolkit's folder and release, None where none is found.

    An nvcc on the PATH can be a wrapper script far from its toolkit, so a folder counts only with its headers, and nvcc
    itself is asked where it lives.
    """
    folders = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    if nvcc := shutil.which("nvcc"):
        command = [nvcc, "--dryrun", "-x", "cu", "-c", os.devnull]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
        folders += re.findall(r"^#\$ TOP=(.+?)\s*$", said, re.MULTILINE)
        folders.append(str(Path(nvcc).resolve().parents[1]))
    folders += ["/usr/local/cuda", "/opt/cuda"]
    for folder in filter(None, folders):
        nvcc = Path(folder) / "bin" / "nvcc"
        if nvcc.is_file() and (Path(folder) / "include" / "cuda_runtime.h").is_file():
            said = subprocess.run([str(nvcc), "--version"], capture_output=True, text=True, check=False).stdout
            if release := re.search(r"release (\d+\.\d+)", said):
                return str(Path(folder).resolve()), release[1]
    return None


def why_no_cuda(found: tuple[str, str] | None) -> str | None:
    """Why the CUDA kernels are left out, None where they are built."""
    import torch

    if os.environ.get("FORCE_CUDA") == "0":
        return "switched off by FORCE_CUDA=0"
    if torch.version.cuda is None:
        return f"torch {torch.__version__}, which the kernels were built against, is a CPU-only build"
    if found is None:
        return "no CUDA toolkit was found at build time; install nvcc or set CUDA_HOME, then reinstall"
    if found[1].split(".")[0] != torch.version.cuda.split(".")[0]:
        return f"the toolkit in {found[0]} is CUDA {found[1]}, but torch is built for CUDA {torch.version.cuda}"
    return None


def architectures(release: str) -> str:
    """TORCH_CUDA_ARCH_LIST, or a default of the data-centre and workstation parts that this toolkit knows."""
    blackwell = tuple(map(int, release.split("."))) >= (12, 8)
    default = "8.0;9.0;10.0;12.0+PTX" if blackwell else "8.0;9.0+PTX"
    return os.environ.setdefault("TORCH_CUDA_ARCH_LIST", default)


def write_build_info(cuda: str) -> str:
    """Writes the header with what `mist info` tells of the build; returns its folder."""
    import torch

    facts = {
        "VERSION": mist_ext.__version__,
        "BUILD_TORCH": torch.__version__,
        "CUDA": cuda,
        "SOURCES": mist_ext.sources_digest(ROOT / "csrc"),
    }
    folder = ROOT / "build" / "generated"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"#define MIST_{name} {json.dumps(value)}\n" for name, value in facts.items()]
    (folder / "build_info.h").write_text("#pragma once\n" + "".join(lines))
    return str(folder)


def joined(folder: str, suffix: str) -> str:
    """Writes a file that includes a folder's sources, and returns it: torch's headers, most of the work, are read once.

    It is left alone where it is right already, so that only what changed is compiled again.
    """
    name = f"{folder}.{suffix}"
    sources = sorted((ROOT / "csrc" / folder).glob(f"*.{suffix}"))
    text = "".join(f'#include "../../csrc/{folder}/{source.name}"\n' for source in sources)
    path = ROOT / "build" / "generated" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)
    return path.relative_to(ROOT).as_posix()


def extensions() -> dict:
    if compiler() is None:
        if os.environ.get("FORCE_CUDA") == "1":
            sys.exit("FORCE_CUDA=1 was given, but there is no C++ compiler. Install g++ or clang++, or set CXX.")
        print("mist_ext: no C++ compiler found; installing the slow plain-PyTorch kernels alone", file=sys.stderr)
        return {}
    found = toolkit()
    reason = why_no_cuda(found)
    if reason and os.environ.get("FORCE_CUDA") == "1":
        sys.exit(f"FORCE_CUDA=1 was given, but {reason}.")
    if reason:
        cuda = f"none: {reason}"
    else:
        assert found is not None
        os.environ["CUDA_HOME"] = found[0]  # before torch guesses
        cuda = f"{found[1]} for {architectures(found[1])}"

    from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension

    def sources(pattern: str) -> list[str]:
        return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").glob(pattern))

    checks = joined("arguments", "cpp")
    objects = [
        CppExtension(
            "mist_ext._C",
            [*sources("*.cpp"), checks, *sources("cpu/*.cpp")],
            include_dirs=[write_build_info(cuda)],
            extra_compile_args=CXX_FLAGS,
        )
    ]
    if not reason:
        objects.append(
            CUDAExtension(
                "mist_ext._cuda",
                [checks, *sources("cuda/*.cpp"), joined("cuda", "cu")],
                extra_compile_args={"cxx": CXX_FLAGS, "nvcc": NVCC_FLAGS},
            )
        )
    return {"ext_modules": objects, "cmdclass": {"build_ext": BuildExtension}}


setup(**extensions())
