"""The keep rule: published vectors of the generator, and the kept set against slow plain integers."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mist_ext.kernels import compiled, ops, reference

# kat_vectors of Random123 (Salmon et al., SC 2011), philox4x32 with 10 rounds: counter, key, result.
KNOWN = {
    "zeros": ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    "ones": ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    "pi": ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
}


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def slow_philox(counter: list[int], key: list[int]) -> list[int]:
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        high0, low0 = divmod(c0 * 0xD2511F53, 2**32)
        high1, low1 = divmod(c2 * 0xCD9E8D57, 2**32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [c0, c1, c2, c3]


def slow_draw(seed: int, ordinal: int, step: int, entry: int) -> int:
    """The 16-bit draw of one entry."""
    counter = [entry // 8, ordinal, step % 2**32, step // 2**32]
    word = slow_philox(counter, [seed % 2**32, seed // 2**32])[entry % 8 // 2]
    return word // 2**16 if entry % 2 else word % 2**16


def slow_mask(seed: int, ordinal: int, step: int, n: int, threshold: int) -> list[bool]:
    return [slow_draw(seed, ordinal, step, entry) < threshold for entry in range(n)]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN.values(), ids=KNOWN)
def test_published_vectors(counter: str, key: str, result: str) -> None:
    low, high = words(key)
    assert [int(word) for word in reference.philox4x32((low, high), words(counter))] == words(result)
    assert slow_philox(words(counter), words(key)) == words(result)


# seed, ordinal, step, n, threshold
CASES = {
    "first": (0, 0, 0, 200, 6554),
    "tenth": (1993, 3, 17, 1003, 6554),
    "half": (7, 1, 2, 517, 32768),
    "largest": (2**63 - 1, 2**32 - 1, 2**62 + 3, 300, 20000),
    "low words full": (2**32 - 1, 5, 2**32 - 1, 300, 20000),
    "high words one": (2**32, 5, 2**32, 300, 20000),
    "nothing": (5, 0, 1, 150, 0),
    "least": (5, 0, 1, 3000, 1),
    "all but the last": (5, 0, 1, 3000, 65535),
    "everything": (5, 0, 1, 150, 65536),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_kept_set_is_the_slow_one_on_every_instruction_set(case: tuple[int, ...], instruction_set: str) -> None:
    assert compiled.C.instruction_set() == instruction_set
    assert ops.keep_mask(*case).tolist() == slow_mask(*case)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_oracle_s_kept_set_is_the_slow_one(case: tuple[int, ...]) -> None:
    assert reference.keep_mask(*case).tolist() == slow_mask(*case)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_ops_keep_the_slow_set_on_every_device(case: tuple[int, ...], device: torch.device) -> None:
    seed, ordinal, step, n, threshold = case
    grad = torch.ones(n, device=device)
    position = torch.tensor(step, device=device)
    ops.mask_([grad], [None], [None], None, [ordinal], threshold=threshold, seed=seed, step=position)
    assert grad.bool().tolist() == slow_mask(*case)


@given(
    seed=st.integers(0, 2**63 - 1),
    ordinal=st.integers(0, 2**32 - 1),
    step=st.integers(0, 2**63 - 1),
    n=st.integers(0, 100),
    threshold=st.integers(0, 65536),
)
def test_any_draw_is_the_slow_one(seed: int, ordinal: int, step: int, n: int, threshold: int) -> None:
    expected = slow_mask(seed, ordinal, step, n, threshold)
    assert ops.keep_mask(seed, ordinal, step, n, threshold).tolist() == expected
    assert reference.keep_mask(seed, ordinal, step, n, threshold).tolist() == expected


def test_every_instruction_set_draws_long_selections_alike(instruction_set: str) -> None:
    for n in (4095, 4096, 4097, 70001):
        assert torch.equal(ops.keep_mask(11, 2, 5, n, 6554), reference.keep_mask(11, 2, 5, n, 6554))


MASKS = {"ops": ops.keep_mask, "reference": reference.keep_mask}
if compiled.C is not None:
    MASKS["compiled"] = compiled.C.keep_mask
OUT_OF_RANGE = [
    {"threshold": 65537},
    {"threshold": -1},
    {"seed": -1},
    {"ordinal": -1},
    {"ordinal": 2**32},
    {"step": -1},
    {"n": -1},
    {"n": 2**31 + 1},
    {"first": -1},
    {"first": 2**31 - 8},
]


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("wrong", OUT_OF_RANGE, ids=str)
def test_a_number_out_of_range_is_named(mask: Callable, wrong: dict[str, int]) -> None:
    right = {"seed": 0, "ordinal": 0, "step": 0, "n": 9, "threshold": 65536, "first": 0}
    assert len(mask(**right)) == 9
    ((name, value),) = wrong.items()
    with pytest.raises(RuntimeError, match=rf"^keep_mask: {name} is {value}, expected 0"):
        mask(**right | wrong)


def test_a_shorter_selection_draws_the_beginning_of_a_longer_one(instruction_set: str) -> None:
    longest = ops.keep_mask(3, 1, 4, 150, 20000)
    for n in range(150):  # every remainder of a group of 8 and of the lanes
        assert torch.equal(ops.keep_mask(3, 1, 4, n, 20000), longest[:n])


def test_a_later_part_of_a_selection_draws_the_end_of_a_longer_one(instruction_set: str) -> None:
    longest = ops.keep_mask(3, 1, 4, 300, 20000)
    for first in range(150):
        for mask in (ops.keep_mask, reference.keep_mask):
            assert torch.equal(mask(3, 1, 4, 300 - first, 20000, first), longest[first:])
            assert torch.equal(mask(3, 1, 4, 9, 20000, first), longest[first : first + 9])


def test_an_entry_is_kept_exactly_from_the_threshold_above_its_draw(instruction_set: str) -> None:
    for entry in range(20):
        draw = slow_draw(9, 2, 6, entry)
        assert not ops.keep_mask(9, 2, 6, 20, draw)[entry]
        assert ops.keep_mask(9, 2, 6, 20, draw + 1)[entry]


def test_keep_frequency_in_every_place_of_a_group() -> None:
    n, keep = 1 << 20, 0.1
    places = ops.keep_mask(1, 0, 0, n, ops.keep_threshold(keep)).view(-1, 8).double().mean(dim=0)
    deviation = math.sqrt(keep * (1 - keep) / (n / 8))
    assert (places - keep).abs().max() < 4 * deviation


@pytest.mark.parametrize("other", [(2, 0, 0), (2**33 + 1, 0, 0), (1, 1, 0), (1, 0, 1), (1, 0, 2**32)])
def test_other_seeds_tensors_and_steps_draw_independently(other: tuple[int, int, int]) -> None:
    n, keep = 1 << 18, 0.1
    threshold = ops.keep_threshold(keep)
    both = ops.keep_mask(1, 0, 0, n, threshold) & ops.keep_mask(*other, n, threshold)
    assert abs(both.double().mean() - keep**2) < 4 * math.sqrt(keep**2 / n)


def test_an_instruction_set_that_cannot_run_is_refused(instruction_set: str) -> None:
    with pytest.raises(ValueError, match=r"'mmx' cannot run here; this machine runs: .*plain"):
        compiled.C.use_instruction_set("mmx")
    assert compiled.C.instruction_set() == instruction_set


@pytest.mark.parametrize(
    ("keep", "threshold"),
    [(0, 0), (2**-17, 1), (0.05, 3277), (0.1, 6554), (0.5, 32768), (1 - 2**-18, 65536), (1, 65536)],
)
def test_threshold_is_the_nearest_of_65536_parts(keep: float, threshold: int) -> None:
    assert ops.keep_threshold(keep) == threshold


@pytest.mark.parametrize("keep", [-0.1, 1.01, float("nan"), 2**-18, 1e-300])
def test_keep_out_of_range_is_refused(keep: float) -> None:
    with pytest.raises(ValueError, match="keep is"):
        ops.keep_threshold(keep)
