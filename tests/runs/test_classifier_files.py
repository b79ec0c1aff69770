"""Classifier files: what is flipped, forged or of another version is named, and takes no memory."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mist_ext import backbones, methods
from mist_ext.deltas.digests import digest_of, tensor_digest
from mist_ext.methods.trained import TrainedMethod
from mist_ext.runs import classifier_paths, classifiers

NAME = classifier_paths.name(1, None)
DESCRIPTION = {
    "backbone": "vit_nano",
    "weights": "pretrained",
    "method": "simplecil",
    "method_options": {},
    "class_names": ["one", "two", "three"],
    "transform": "AsStored",
    "size": 32,
    "mean": (0.0, 0.0, 0.0),
    "as_shown": False,
    "std": (1.0, 1.0, 1.0),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    method = methods.create("simplecil")
    method.learn(torch.randn(9, 128), torch.arange(9) % 3)
    weights = backbones.create("vit_nano").state_dict()
    classifiers.save_classifier(tmp_path, 1, weights, method, DESCRIPTION)
    return tmp_path


def forged(folder: Path, change: Callable[[dict[str, Any], dict[str, Tensor]], object]) -> None:
    """Change description and tensors, with digests that fit."""
    with safe_open(folder / NAME, framework="pt") as file:
        content = json.loads(file.metadata()["classifier"].partition(" ")[2])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(content, tensors)
    if isinstance(content.get("digests"), dict):
        content["digests"] |= {name: tensor_digest(tensor) for name, tensor in tensors.items()}
    text = json.dumps(content)
    save_file(tensors, folder / NAME, {"classifier": f"{digest_of(text.encode())} {text}"})


def test_what_was_saved_is_loaded(folder: Path) -> None:
    classifier = classifiers.load(folder)
    assert classifier.class_names == ["one", "two", "three"]
    assert classifier.scores([Image.new("RGB", (9, 9))]).shape == (1, 3)


@pytest.mark.parametrize("place", [0.05, 0.5, 0.999])
def test_a_flipped_bit_is_named(place: float, folder: Path) -> None:
    content = bytearray((folder / NAME).read_bytes())
    content[int(len(content) * place)] ^= 1
    (folder / NAME).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{NAME} is no whole classifier .*its tensor '.*' does not have its digest"):
        classifiers.load(folder)


def test_a_flipped_bit_of_the_description_is_named(folder: Path) -> None:
    content = (folder / NAME).read_bytes()
    (folder / NAME).write_bytes(content.replace(b"three", b"thref"))
    with pytest.raises(ValueError, match="its description does not have its digest"):
        classifiers.load(folder)


def test_equal_classifiers_have_equal_files(folder: Path) -> None:
    content = (folder / NAME).read_bytes()
    classifier = classifiers.load(folder)
    for _ in range(5):
        classifiers.save_classifier(folder, 1, classifier.backbone.state_dict(), classifier.method, DESCRIPTION)
        assert (folder / NAME).read_bytes() == content


def test_a_file_without_digests_is_of_another_version(folder: Path) -> None:
    save_file({"x": torch.zeros(1)}, folder / NAME, {"classifier": json.dumps(DESCRIPTION)})
    with pytest.raises(ValueError, match=rf"{NAME} is no whole classifier of this version: .*digest; repeat the run"):
        classifiers.load(folder)


FORGERIES: dict[str, tuple[Callable[[dict[str, Any], dict[str, Tensor]], object], str]] = {
    "size": (lambda d, _: d.update(size=1_000_000), "1000000 pixels a side, but vit_nano takes 32"),
    "nan": (lambda _, t: t["backbone/norm.weight"].fill_(float("nan")), "'backbone/norm.weight' holds numbers that"),
    "std": (lambda d, _: d.update(std=[0, 1, 1]), r"Expected `float` > 1e-06 - at `\$\.std"),
    "mean": (lambda d, _: d.update(mean=[1e308, 1, 1]), r"Expected `float` <= 1000000"),
    "names": (lambda d, _: d["class_names"].append("four"), "gives 3 scores for 4 classes"),
    "later": (lambda d, _: d.update(later=1), "another version of mist_ext: Object contains unknown field `later`"),
    "transform": (lambda d, _: d.update(transform="Sequential"), "unknown transform 'Sequential'"),
    "backbone": (lambda d, _: d.update(backbone="vit_nao"), "did you mean 'vit_nano'"),
    "method": (lambda d, _: d.update(method="fecam"), "'precisions' of a state of FeCAM is of type NoneType"),
    "width": (lambda _, t: t.update({"method/sums": t["method/sums"][:, :-1].clone()}), "127 was learned"),
    "dtype": (lambda _, t: t.update({"method/sums": t["method/sums"].float()}), "torch.float32, not .*torch.float64"),
    "counts": (lambda _, t: t.update({"method/counts": -t["method/counts"]}), "'counts' .*are not the rows"),
    "missing": (lambda _, t: t.pop("backbone/norm.weight"), "'backbone/norm.weight' is missing"),
    "shape": (lambda _, t: t.update({"backbone/norm.weight": torch.ones(9)}), "size mismatch for norm.weight"),
    "deep": (lambda d, _: d.update(state={"x": [[[[0]]]]}), "got `array`"),
    "digests": (lambda d, _: d.update(digests=5), "Expected `object`, got `int`"),
}


@pytest.mark.parametrize("case", FORGERIES)
def test_a_forged_classifier_is_refused_with_the_reason(case: str, folder: Path) -> None:
    change, message = FORGERIES[case]
    forged(folder, change)
    with pytest.raises(ValueError, match=rf"{NAME} is no whole classifier .*{message}"):
        classifiers.load(folder)


def test_a_state_of_more_tasks_than_its_network_has_is_refused_before_they_take_memory() -> None:
    method: Any = methods.create("ease", epochs=1)
    method.attach(backbones.create("vit_nano", "none"))
    method._extend(range(3))
    state = {**method.inference_state(), "counts": torch.ones(3, dtype=torch.int64)}
    method.load_inference_state(state)
    with pytest.raises(ValueError, match=r"a state of Ease has no .*, which its tasks need"):
        method.load_inference_state({**state, "sessions": torch.arange(1, 100_000)})
    with pytest.raises(ValueError, match="a task that ends at class 1000000000 after 0"):
        method.load_inference_state({**state, "sessions": torch.tensor([10**9])})


@pytest.mark.parametrize("name", [name for name in methods.METHODS if issubclass(methods.named(name), TrainedMethod)])
def test_a_network_that_a_forged_option_makes_huge_is_refused_before_it_takes_memory(name: str) -> None:
    backbone = backbones.create("vit_nano", "none")

    def made(**options: int) -> Any:
        method: Any = methods.create(name, **options)
        return method

    method = made()
    method.attach(backbone)
    for classes in (range(3), range(3, 5)):
        method._extend(classes)
    state = method._own_state()
    made().check_fits(backbone, state)
    assert not any(parameter.is_meta for parameter in backbone.parameters())
    sizes = {"bottleneck", "pool", "components", "length", "general_length", "expert_length"}
    for option in sizes & inspect.signature(type(method)).parameters.keys():
        with pytest.raises((ValueError, RuntimeError), match=r"size mismatch|1000000000"):
            made(**{option: 10**9}).check_fits(backbone, state)
