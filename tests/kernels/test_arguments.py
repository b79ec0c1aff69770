"""Every op refuses arguments that do not belong together, names the one that is wrong, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from right_calls import ON_THE_HOST, OPS, arguments, function, tensors
from spoils import Spoil
from torch import Tensor
from wrong_calls import LOOKED_UP, WRONG

from mist_ext.kernels import compiled, ops, reference


def cases(wrong: dict[str, list[tuple[Spoil, str]]]) -> pytest.MarkDecorator:
    """A test for each, with the compiled op and with the fallback."""
    return pytest.mark.parametrize(
        ("implementation", "op", "spoil", "message"),
        [
            pytest.param(module, op, spoil, message, id=f"{module.__name__.split('.')[-1]}-{op}-{message}")
            for op, listed in wrong.items()
            for spoil, message in listed
            for module in (ops, reference)
            if module is ops or not message.endswith("has 0$")  # ops alone looks for the device, in the first list
        ],
    )


@cases(WRONG)
def test_a_wrong_argument_is_named_and_nothing_is_changed(
    device: torch.device, implementation: ModuleType, op: str, spoil: Spoil, message: str, same_bits: Callable
) -> None:
    made = arguments(op, device)
    spoil(made)
    made = {k: v.to(device) if isinstance(v, Tensor) and not v.is_meta else v for k, v in made.items()}
    readable = [t for t in tensors(made) if not t.is_meta]
    before = [t.clone() for t in readable]
    with pytest.raises(RuntimeError, match=message):
        function(implementation, op)(**made)
    assert all(same_bits(old, new) for old, new in zip(before, readable, strict=True))


@cases(LOOKED_UP)
def test_a_wrong_value_is_named_on_the_cpu(
    implementation: ModuleType, op: str, spoil: Spoil, message: str, same_bits: Callable
) -> None:
    test_a_wrong_argument_is_named_and_nothing_is_changed(
        torch.device("cpu"), implementation, op, spoil, message, same_bits
    )


@pytest.mark.parametrize("implementation", [ops, reference], ids=["ops", "reference"])
@pytest.mark.parametrize("name", ["param", "grad", "momentum_buffer", "index"])
def test_a_tensor_whose_storage_was_freed_is_named(device: torch.device, implementation: ModuleType, name: str) -> None:
    made = arguments("drop_apply_sgd_", device)
    made[name][0].untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match=rf"{name}\[0\] has \d+ entries but no memory: its storage was freed"):
        implementation.drop_apply_sgd_(**made)


@pytest.mark.parametrize("op", OPS)
def test_the_right_call_that_the_wrong_ones_start_from(device: torch.device, op: str) -> None:
    made = arguments(op, device)
    before = [t.clone() for t in tensors(made)]
    result = function(ops, op)(**made)
    changed = any(not torch.equal(old, new) for old, new in zip(before, tensors(made), strict=True))
    assert changed == (op not in ("select", *ON_THE_HOST))
    assert op != "select" or [len(index) for index in result] == [5, 3]


@pytest.mark.gpu
@pytest.mark.parametrize("op", [op for op in OPS if op not in ON_THE_HOST])
def test_a_tensor_on_another_device_is_named(op: str, same_bits: Callable) -> None:
    for name, value in arguments(op, torch.device("cuda")).items():
        made = arguments(op, torch.device("cuda"))
        if isinstance(value, Tensor):
            made[name], wrong = value.cpu(), name
        elif isinstance(value, list) and value and isinstance(value[0], Tensor):
            number = 1 if isinstance(value[1], Tensor) else 0
            made[name][number], wrong = value[number].cpu(), rf"{name}\[{number}\]"
        else:
            continue
        before = [t.clone() for t in tensors(made)]
        with pytest.raises(RuntimeError, match=rf"{wrong} is on cpu"):
            function(ops, op)(**made)
        assert all(same_bits(old, new) for old, new in zip(before, tensors(made), strict=True))


@pytest.mark.skipif(compiled.C is None, reason="needs compiled kernels")
@pytest.mark.parametrize("op", OPS)
def test_schemas_and_fakes_hold_what_the_kernels_do(device: torch.device, op: str) -> None:
    torch.library.opcheck(function(torch.ops.mist_ext, op).default, tuple(arguments(op, device).values()))
