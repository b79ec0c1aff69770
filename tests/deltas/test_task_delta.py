"""TaskDelta: applied and undone bit for bit, saved and loaded, and refused by name where it does not belong."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mist_ext.deltas import Change, TaskDelta, state_digest


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(72, 40), nn.LayerNorm(40), nn.Linear(40, 10).bfloat16(),
        nn.BatchNorm1d(10),
    )  # fmt: skip


def tuned(before: nn.Module, seed: int = 1) -> nn.Module:
    """About 5 % of all matrices, a whole vector, an integer, a NaN and the sign of a zero are other ones."""
    after = copy.deepcopy(before)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in after.parameters():
            parameter += (torch.rand(parameter.shape) < 0.05) * torch.rand(parameter.shape)
        after[3].bias += 1
        after[5].num_batches_tracked += 3
        after[2].weight[0, 0] = float("nan")
        after[5].running_mean[2] = -0.0
    return after


def same(one: nn.Module, other: nn.Module) -> bool:
    return state_digest(one) == state_digest(other)


@pytest.fixture
def before() -> nn.Module:
    return network()


@pytest.fixture
def after(before: nn.Module) -> nn.Module:
    return tuned(before)


def test_it_leads_from_one_model_to_the_other_and_back_bit_for_bit(before, after, same_bits) -> None:
    delta = TaskDelta.between(before, after, info={"task": 3})
    assert delta.changes["2.weight"].positions is not None
    assert delta.changes["3.bias"].positions is None
    assert delta.changes["5.running_mean"].new.tolist() == [0]
    assert "3.weight" in delta.changes
    assert "5.running_var" not in delta.changes
    model = copy.deepcopy(before)
    delta.apply_(model, verify=True)
    assert all(same_bits(a, b) for a, b in zip(model.state_dict().values(), after.state_dict().values(), strict=True))
    delta.verify(model, applied=True)
    delta.undo_(model, verify=True)
    assert all(same_bits(a, b) for a, b in zip(model.state_dict().values(), before.state_dict().values(), strict=True))
    state = before.state_dict()
    delta.apply_(state)  # the same memory
    assert same(before, after)


def test_a_swap_leads_from_one_task_to_another(before, after) -> None:
    other = tuned(before, seed=2)
    ours, theirs = TaskDelta.between(before, after), TaskDelta.between(before, other)
    assert not same(after, other)
    model = copy.deepcopy(after)
    ours.swap_(model, theirs)
    assert same(model, other)
    with pytest.raises(ValueError, match=r"param\[0\] \('0.weight'\) has other bits"):
        ours.swap_(model, theirs)
    with pytest.raises(ValueError, match="different bases"):
        ours.swap_(model, TaskDelta.between(after, other))
    with pytest.raises(ValueError, match="forward-only"):
        theirs.swap_(model, TaskDelta.between(before, after, forward_only=True))
    assert same(model, other)


@pytest.mark.parametrize("forward_only", [False, True])
def test_a_file_holds_the_same_delta(before, after, forward_only, tmp_path: Path) -> None:
    delta = TaskDelta.between(before, after, forward_only=forward_only, info={"classes": ["ä", "b"], "rate": 0.05})
    file = tmp_path / "a.delta"
    delta.save(file)
    loaded = TaskDelta.load(file)
    assert loaded == delta
    assert loaded.info == {"mist_ext": loaded.info["mist_ext"], "classes": ["ä", "b"], "rate": 0.05}
    loaded.apply_(before)
    assert same(before, after)
    first = file.read_bytes()
    loaded.save(file)
    assert file.read_bytes() == first


def test_a_forward_only_delta_knows_its_base_by_the_whole_digest_and_cannot_be_undone(before, after) -> None:
    delta = TaskDelta.between(before, after, forward_only=True)
    model = copy.deepcopy(before)
    model[5].running_var[0] = 2  # which the delta does not change
    with pytest.raises(ValueError, match="not the one before this delta: its digest is"):
        delta.apply_(model)
    delta.apply_(before)
    assert same(before, after)
    with pytest.raises(ValueError, match="has this delta already"):
        delta.apply_(before)
    with pytest.raises(ValueError, match="forward-only"):
        delta.undo_(before)
    with pytest.raises(ValueError, match="needs the base_digest"):
        TaskDelta(delta.changes, "")


def other_value(model: nn.Module) -> None:
    model[2].weight.data[0, 0] = 7


def other_shape(model: nn.Module) -> None:
    model[2] = nn.Linear(72, 41)


def other_dtype(model: nn.Module) -> None:
    model[4] = model[4].float()


def missing(model: nn.Module) -> None:
    model[3] = nn.Identity()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (other_value, r"not the one that the delta belongs to: param\S* \('2.weight'\) has other bits at position 0"),
        (other_shape, r"'2.weight' has shape \[41, 72\], but \[40, 72\] in the delta"),
        (other_dtype, r"'4.weight' has dtype torch.float32, but torch.bfloat16 in the delta"),
        (missing, r"the model has no '3.weight', which the delta changes"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_another_model_is_refused_by_name_and_left_alone(before, after, spoil: Callable, message: str) -> None:
    delta = TaskDelta.between(before, after)
    for model, write in ((before, delta.apply_), (after, delta.undo_)):
        spoil(model)
        digest = state_digest(model)
        with pytest.raises(ValueError, match=message):
            write(model)
        assert state_digest(model) == digest


def test_applying_or_undoing_twice_is_refused(before, after) -> None:
    delta = TaskDelta.between(before, after)
    with pytest.raises(ValueError, match="does not have this delta"):
        delta.undo_(before)
    with pytest.raises(ValueError, match="has this delta already"):
        delta.apply_(after)


def test_what_the_delta_does_not_change_is_verify_s_alone(before, after) -> None:
    delta = TaskDelta.between(before, after)
    before[5].running_var[0] = 2
    with pytest.raises(ValueError, match="its digest is"):
        delta.apply_(before, verify=True)
    delta.apply_(before)
    delta.undo_(before)
    assert before[5].running_var[0] == 2


def test_a_tensor_that_cannot_be_written_leaves_all_as_they_were() -> None:
    zeros = {"a": torch.zeros(300), "b": torch.zeros(300)}
    delta = TaskDelta.between(zeros, {"a": torch.eye(300)[0], "b": torch.eye(300)[0]})
    target = {"a": torch.zeros(300), "b": torch.zeros(1).expand(300)}
    with pytest.raises(ValueError, match="entries of 'b' share memory"):
        delta.apply_(target)
    assert not target["a"].any()


def test_models_that_do_not_belong_together_have_no_delta(before, after) -> None:
    with pytest.raises(ValueError, match=r"'3.bias' is in the model before only"):
        TaskDelta.between(before, {k: v for k, v in after.state_dict().items() if k != "3.bias"})
    with pytest.raises(ValueError, match=r"so much of '3.bias' changed that all 40 entries"):
        TaskDelta.between(before, after, dense="refuse")
    with pytest.raises(TypeError, match=r"'x' is a int"):
        state_digest({"x": 3})
    with pytest.raises(ValueError, match=r"'x' has dtype torch.complex128"):
        state_digest({"x": torch.zeros(1, dtype=torch.complex128)})


def test_tied_and_strided_tensors_are_changed_once(before) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(60, 50)
            self.other = nn.Linear(60, 50)
            self.other.weight = self.one.weight
            self.conv = nn.Conv2d(8, 9, 3).to(memory_format=torch.channels_last)

    model = Tied()
    old = copy.deepcopy(model)
    with torch.no_grad():
        model.one.weight.view(-1)[::37] += 1
        model.conv.weight[:, 3, 1, 1] += 1
    new, delta = copy.deepcopy(model), TaskDelta.between(old, model)
    assert delta.changes.keys() == {"one.weight", "other.weight", "conv.weight"}
    delta.undo_(model)
    assert same(model, old)
    delta.apply_(model)
    assert same(model, new)
    assert model.conv.weight.is_contiguous(memory_format=torch.channels_last)
    for left, kept in (("one.weight", "other.weight"), ("other.weight", "one.weight")):
        alone = TaskDelta({name: change for name, change in delta.changes.items() if name != left}, "")
        with pytest.raises(ValueError, match=f"are one tensor in the model, but the delta changes '{kept}' alone"):
            alone.apply_(old)
    assert not same(old, new)
    delta.changes["other.weight"].old[0] += 1
    with pytest.raises(ValueError, match=r"'one.weight' and 'other.weight' are one tensor in the model"):
        delta.apply_(old)


def test_the_digest_is_of_names_shapes_dtypes_and_bits_in_any_order() -> None:
    state = {"a": torch.zeros(4), "b": torch.ones(2, 2)}
    digest = state_digest(state)
    assert state_digest(dict(reversed(state.items()))) == digest
    others: list[dict[str, Tensor]] = [
        {"a": torch.tensor([0, 0, 0, -0.0])}, {"a": torch.zeros(4, dtype=torch.int32)}, {"a": torch.zeros(2, 2)},
    ]  # fmt: skip
    assert len({digest, *(state_digest(state | other) for other in others), state_digest({"c": state["a"]})}) == 5


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("positions", torch.tensor([3, 2], dtype=torch.int32), r"index of 'w' is not strictly ascending"),
        ("positions", torch.tensor([3, 9], dtype=torch.int32), r"index of 'w' holds 9, expected positions from 0 to 8"),
        ("positions", torch.tensor([3, 4]), r"positions of 'w' are torch.int64 \[2\], expected torch.int32"),
        ("new", torch.zeros(3), r"new values of 'w' are torch.float32 \[3\], expected torch.float32 \[2\]"),
        ("old", torch.zeros(2).half(), r"old values of 'w' are torch.float16 \[2\], expected torch.float32 \[2\]"),
        ("shape", (2**16, 2**15), r"'w' has 2147483648 entries, expected at most 2147483647"),
    ],
)
def test_a_change_that_cannot_be_is_refused(part: str, value: object, message: str) -> None:
    change = Change((3, 3), torch.float32, torch.tensor([3, 4], dtype=torch.int32), torch.zeros(2), torch.ones(2))
    TaskDelta({"w": change}, "")
    setattr(change, part, value)
    with pytest.raises(ValueError, match=message):
        TaskDelta({"w": change}, "")
