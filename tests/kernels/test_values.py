"""write_values_, encode_gaps and decode_gaps: the compiled ops and the fallback, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mist_ext.kernels import ops, reference

DTYPES = [torch.float32, torch.bfloat16, torch.float64, torch.int8]
SIZES = [0, 1, 63, 65535, 65536, 150_001]  # around the loop's pieces


def drawn(n: int, dtype: torch.dtype, seed: int) -> Tensor:
    """Any bits that there are, NaN and -0 among them."""
    generator = torch.Generator().manual_seed(seed)
    bits = torch.randint(0, 256, (n * dtype.itemsize,), dtype=torch.uint8, generator=generator)
    return bits.view(dtype)


def positions(n: int, rate: float, seed: int) -> Tensor:
    return (torch.rand(n, generator=torch.Generator().manual_seed(seed)) < rate).nonzero().flatten().int()


def two_replacements(dtype: torch.dtype, device: torch.device, surrounded: Any) -> dict[str, list]:
    """Of tensors of all sizes, in part and whole; the last one by the first replacement alone."""
    made: dict[str, list] = {name: [] for name in NAMES}
    for number, n in enumerate(SIZES):
        before = drawn(n, dtype, number)
        made["param"].append(surrounded(before, device))
        now = before.clone()
        for stage, (prefix, rate) in enumerate({"": 0.05, "then_": 0.3}.items()):
            index = positions(n, 0.0 if stage and n == SIZES[-1] else rate, 10 * number + stage)
            whole = not stage and number % 2 == 1
            at = torch.arange(n) if whole else index.long()
            value = drawn(len(at), dtype, 100 * number + stage)
            made[f"{prefix}index"].append(None if whole else index.to(device))
            made[f"{prefix}expected"].append(now[at].to(device))
            made[f"{prefix}value"].append(value.to(device))
            now[at] = value
    return made


NAMES = ("param", "index", "value", "expected", "then_index", "then_value", "then_expected")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_both_replacements_are_made_with_the_oracle_s_bits(dtype, device, surrounded, same_bits) -> None:
    made = two_replacements(dtype, device, surrounded)
    expected = [p.clone() for p in made["param"]]
    reference.write_values_(**{**made, "param": expected})
    before = [p.clone() for p in made["param"]]
    ops.write_values_(**made)
    assert all(same_bits(ours, theirs) for ours, theirs in zip(made["param"], expected, strict=True))
    assert not same_bits(before[-1], expected[-1])
    once = {name: made[name] for name in NAMES[:3]} | {"param": before}
    ops.write_values_(**once)  # without a look at what is there
    ops.write_values_(before, made["then_index"], made["then_value"])
    assert all(same_bits(ours, theirs) for ours, theirs in zip(before, expected, strict=True))


@pytest.mark.parametrize("implementation", [ops, reference], ids=["ops", "reference"])
@pytest.mark.parametrize("tensor", [3, 5])
@pytest.mark.parametrize("list_", ["expected", "then_expected"])
def test_one_other_bit_anywhere_is_named_and_nothing_is_written(
    implementation, tensor, list_, device, surrounded, same_bits
) -> None:
    made = two_replacements(torch.float32, device, surrounded)
    if list_ == "then_expected" and tensor == 5:
        tensor = 4
    before = [p.clone() for p in made["param"]]
    wrong = made[list_][tensor].view(torch.int32)
    for entry in (len(wrong) - 1, len(wrong) // 2):  # the first one is named
        wrong[entry] ^= 1
        index = made[list_.replace("expected", "index")][tensor]
        place = entry if index is None else int(index[entry])
        with pytest.raises(RuntimeError, match=rf"param\[{tensor}\] .* position {place} than {list_}\[{tensor}\]"):
            implementation.write_values_(**made)
        assert all(same_bits(a, b) for a, b in zip(before, made["param"], strict=True))


def test_a_nan_is_itself_and_zeros_differ(device) -> None:
    payload = torch.tensor([0x7FC00123, -0x80000000], dtype=torch.int32, device=device).view(torch.float32)
    param = payload.clone()
    ops.write_values_([param], [None], [torch.ones(2, device=device)], [payload])
    assert param.tolist() == [1, 1]
    with pytest.raises(RuntimeError, match="position 1"):
        ops.write_values_([payload], [None], [param], [torch.stack([payload[0], payload[1].abs()])])


@pytest.mark.parametrize("rate", [0.0, 0.00002, 0.005, 0.05, 1.0])
def test_positions_come_back_from_their_gaps_with_the_oracle_s_code(rate) -> None:
    index = [positions(n, rate, n) for n in (0, 1, 300, 1_000_003)]
    sizes = [0, 1, 300, 1_000_003]
    codes, oracle = ops.encode_gaps(index), reference.encode_gaps(index)
    assert all(torch.equal(a, b) for a, b in zip(codes, oracle, strict=True))
    for implementation in (ops, reference):
        decoded = implementation.decode_gaps(codes, [len(i) for i in index], sizes)
        assert all(torch.equal(a, b) for a, b in zip(decoded, index, strict=True))


@pytest.mark.parametrize("implementation", [ops, reference], ids=["ops", "reference"])
def test_the_bytes_of_gaps_are_the_documented_ones(implementation) -> None:
    index = torch.tensor([0, 1, 256, 512, 2**31 - 2], dtype=torch.int32)
    code = [0, 0, 254, 255, 255, 255, 0, 0, 0, 0xFD, 0xFD, 0xFF, 0x7F]
    assert implementation.encode_gaps([index])[0].tolist() == code
    given = torch.tensor(code, dtype=torch.uint8)
    assert torch.equal(implementation.decode_gaps([given], [5], [2**31 - 1])[0], index)
    with pytest.raises(RuntimeError, match=r"a position beyond 2147483645"):
        implementation.decode_gaps([given], [5], [2**31 - 2])


def test_any_bytes_are_positions_or_an_error_and_the_oracle_agrees() -> None:
    generator = torch.Generator().manual_seed(0)
    ended = {True: 0, False: 0}
    for _ in range(400):
        n = int(torch.randint(0, 20, (), generator=generator))
        code = torch.randint(0, 256, (n,), dtype=torch.uint8, generator=generator)
        code[torch.rand(n, generator=generator) < 0.5] = 255 if n % 2 else 1
        count, size = (int(torch.randint(0, most, (), generator=generator)) for most in (12, 2000))
        if n % 3:  # a number that fits the length, if there is one
            fitting = [c for c in range(n + 1) if c + 4 * int((code[:c] == 255).sum()) == n]
            count = fitting[0] if fitting else count
        results = []
        for implementation in (ops, reference):
            try:
                (decoded,) = implementation.decode_gaps([code], [count], [size])
            except RuntimeError as error:
                results.append(str(error).splitlines()[0])
            else:
                assert decoded.tolist() == sorted(set(decoded.tolist()))
                assert all(0 <= p < size for p in decoded.tolist())
                results.append(decoded.tolist())
        assert results[0] == results[1]
        ended[isinstance(results[0], list)] += 1
    assert min(ended.values()) > 20
