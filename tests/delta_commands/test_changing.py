"""`mist delta diff`, `apply`, `undo` and `verify` on real files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mist_ext.deltas import TaskDelta


def same(path: str | Path, other: str | Path, same_bits: Callable) -> bool:
    ours, theirs = load_file(path), load_file(other)
    return ours.keys() == theirs.keys() and all(same_bits(ours[name], theirs[name]) for name in theirs)


def test_diff_apply_and_undo_are_bit_for_bit(mist: Callable, files, same_bits: Callable, tmp_path: Path) -> None:
    base, tuned = files.checkpoints[0], files.checkpoints[3]
    delta, applied, undone = (tmp_path / f"{name}.safetensors" for name in ("delta", "applied", "undone"))
    status, output, errors = mist("diff", base, tuned, delta)
    assert status == 0, errors
    assert "in 30 of 30 tensors, 2 of them stored whole" in output
    assert delta.stat().st_size < Path(tuned).stat().st_size / 2
    assert mist("apply", base, delta, "--out", applied)[0] == 0
    assert same(applied, tuned, same_bits)
    assert mist("undo", applied, delta, "--out", undone)[0] == 0
    assert same(undone, base, same_bits)


def test_a_chain_is_applied_in_order_and_undone_from_its_end(
    mist: Callable, files, same_bits: Callable, tmp_path: Path
) -> None:
    assert mist("apply", files.checkpoints[0], *files.paths, "--out", tmp_path / "a.safetensors")[0] == 0
    assert same(tmp_path / "a.safetensors", files.checkpoints[3], same_bits)
    assert mist("undo", tmp_path / "a.safetensors", *files.paths[1:], "--out", tmp_path / "u.safetensors")[0] == 0
    assert same(tmp_path / "u.safetensors", files.checkpoints[1], same_bits)


def test_nothing_is_replaced_unasked_and_nothing_is_written_of_what_fails(
    mist: Callable, files, tmp_path: Path
) -> None:
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"mine")
    status, _, errors = mist("apply", files.checkpoints[0], files.paths[0], "--out", out)
    assert (status, out.read_bytes()) == (2, b"mine")
    assert "is there already; give another path, or --overwrite" in errors
    status, _, errors = mist("apply", files.checkpoints[0], files.paths[1], "--out", out, "--overwrite")
    assert (status, out.read_bytes()) == (2, b"mine")
    assert files.paths[1] in errors
    assert "the model is not the one that the delta belongs to" in errors
    assert mist("apply", files.checkpoints[0], files.paths[0], "--out", out, "--overwrite")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out.safetensors"]


def test_a_wrong_order_is_refused_where_no_entry_tells(mist: Callable, tmp_path: Path) -> None:
    states = [{"a": torch.zeros(900), "b": torch.zeros(900), "c": torch.zeros(900)}]
    for name in "abc":  # each task changes a tensor of its own
        states.append({key: value + (key == name) for key, value in states[-1].items()})
        TaskDelta.between(states[-2], states[-1]).save(tmp_path / f"{name}.delta")
    save_file(states[0], tmp_path / "base.safetensors")
    save_file(states[3], tmp_path / "tuned.safetensors")
    a, c, out = tmp_path / "a.delta", tmp_path / "c.delta", tmp_path / "out.safetensors"
    base, tuned = tmp_path / "base.safetensors", tmp_path / "tuned.safetensors"
    wrong = (["apply", base, a, c], ["undo", tuned, a, c], ["export", "--form", "state_dict", "--base", base, a, c])
    for command in wrong:
        status, _, errors = mist(*command, "--out", out)
        assert (status, out.exists()) == (2, False)
        assert "delta 2 does not begin where delta 1 ends" in errors


def test_no_output_replaces_a_delta_that_it_is_made_of(mist: Callable, files, tmp_path: Path) -> None:
    base, delta = (tmp_path / name for name in ("base.safetensors", "delta.safetensors"))
    shutil.copy(files.checkpoints[0], base)
    shutil.copy(files.paths[0], delta)
    (tmp_path / "link.safetensors").symlink_to(delta)
    for out in (delta, tmp_path / "link.safetensors"):
        for command in (["apply", base], ["undo", files.checkpoints[1]], ["merge"], ["export", "--form", "indices"]):
            status, _, errors = mist(*command, delta, "--out", out, "--overwrite")
            assert status == 2
            assert f"the output {out} would replace {delta}, which it is made of" in errors
    assert mist("diff", base, files.checkpoints[1], base, "--overwrite")[0] == 2
    assert delta.read_bytes() == Path(files.paths[0]).read_bytes()
    assert base.read_bytes() == Path(files.checkpoints[0]).read_bytes()
    assert mist("apply", base, delta, "--out", base, "--overwrite")[0] == 0  # undo brings it back


def test_forward_only_is_smaller_and_cannot_be_undone(mist: Callable, files, tmp_path: Path) -> None:
    delta = tmp_path / "birds.delta"
    assert mist("diff", files.checkpoints[0], files.checkpoints[1], delta, "--forward-only")[0] == 0
    assert delta.stat().st_size < 0.8 * Path(files.paths[0]).stat().st_size
    status, _, errors = mist("undo", files.checkpoints[1], delta, "--out", tmp_path / "base.safetensors")
    assert status == 2
    assert "forward-only" in errors


def test_what_is_not_sparse_can_be_refused(mist: Callable, files, tmp_path: Path) -> None:
    status, _, errors = mist("diff", *files.checkpoints[:2], tmp_path / "d.safetensors", "--dense", "refuse")
    assert status == 2
    assert "would be stored" in errors
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_may_be_pickled_tensors_or_a_backbones_name(mist: Callable, files, tmp_path: Path) -> None:
    pickled = tmp_path / "tuned.pth"
    torch.save(load_file(files.checkpoints[1]), pickled)
    assert mist("diff", files.checkpoints[0], pickled, tmp_path / "d.safetensors")[0] == 0
    assert TaskDelta.load(tmp_path / "d.safetensors").changes.keys() == files.deltas[0].changes.keys()
    status, _, errors = mist("diff", "vit_nano", files.checkpoints[1], tmp_path / "e.safetensors")
    assert status == 2
    assert "blocks.2" in errors  # which the other has not
    half = tmp_path / "half.safetensors"
    save_file({name: value.half() for name, value in load_file(files.checkpoints[0]).items()}, half)
    status, _, errors = mist("apply", half, files.paths[0], "--out", tmp_path / "f.safetensors")
    assert status == 2
    assert "dtype torch.float16, but torch.float32" in errors


def test_a_run_s_deltas_are_applied_to_its_backbone_by_name(mist: Callable, experiment: Path, tmp_path: Path) -> None:
    status, output, errors = mist("verify", experiment, "--base", "vit_nano")
    assert status == 0, errors
    assert output.count("good:") == 2
    assert "the base and every result have their digests" in output
    asset = Path(__file__).parents[2] / "mist_ext" / "assets" / "vit_nano.safetensors"
    out = tmp_path / "tuned.safetensors"
    assert mist("apply", asset, experiment, "--out", out)[0] == 2  # half precision
    assert mist("apply", asset, experiment, "--backbone", "vit_nano", "--out", out)[0] == 0


def test_verify_names_the_delta_that_does_not_fit(mist: Callable, files) -> None:
    assert mist("verify", *files.paths)[0] == 0
    status, output, _ = mist("verify", files.paths[0], files.paths[2])
    assert status == 1
    assert f"problem: {files.paths[2]}: its base is" in output
    assert "result: 1 of 2 deltas do not fit" in output
    status, output, _ = mist("verify", files.paths[0], "--base", files.checkpoints[1])
    assert status == 1
    assert "the model has this delta already" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["apply", "nowhere.safetensors", "x.safetensors", "--out", "y.safetensors"], "x.safetensors"),
        (["apply", "vit_nano", "--out", "y.safetensors"], "needs DELTA"),
        (["show", "."], ". has no delta; mist run --deltas writes them"),
        (["undo", "a.safetensors", "b.safetensors", "--out", "c.bin"], "ends in '.bin', expected .safetensors"),
        (["diff", "a.safetensors", "b.safetensors", "c.safetensors", "--dense", "keep"], "unknown dense 'keep'"),
        (["merge", "a.safetensors", "--out", "b.safetensors", "--method", "tise"], "did you mean 'ties'"),
        (["export", "a.safetensors", "--form", "state_dict", "--out", "b.safetensors"], "a state_dict needs --base"),
        (["export", "a.safetensors", "--form", "shira", "--out", "b", "--base", "c"], "leave --base out"),
        (
            ["diff", "nowhere.pth", "vit_nano", "c.safetensors"],
            "nowhere.pth is neither a file nor the name of a backbone",
        ),
        (["shwo", "a.safetensors"], "did you mean 'show'"),
        (["verify", "a.safetensors", "--backbone", "vit_nano"], "there is no base to read as it; give --base"),
        (
            ["export", "a.delta", "--form", "indices", "--out", "b.safetensors", "--backbone", "vit_nano"],
            "there is no base to read as it",
        ),
        (["show", "a.safetensors", "--seed-of-run", "1"], "seed_of_run is 1, but no folder is given"),
    ],
)
def test_a_mistake_is_answered_by_one_sentence(
    mist: Callable, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, errors = mist(*arguments)
    assert status == 2
    assert message in errors
    assert "Traceback" not in errors


def test_a_delta_that_is_given_twice_is_not_taken_once(mist: Callable, files, tmp_path: Path) -> None:
    first = files.paths[0]
    for arguments in (
        ("apply", files.checkpoints[0], first, first, "--out", tmp_path / "a.safetensors"),
        ("merge", first, first, "--out", tmp_path / "a.safetensors"),
        ("verify", first, files.paths[1], first),
    ):
        status, _, errors = mist(*arguments)
        assert status == 2
        assert f"{first} is given twice; give each delta once" in errors
    assert not list(tmp_path.iterdir())


def test_where_a_merged_delta_leads_is_not_known(mist: Callable, files, tmp_path: Path) -> None:
    merged = tmp_path / "merged.delta"
    assert mist("merge", files.paths[0], "--out", merged)[0] == 0
    status, output, _ = mist("verify", merged, files.paths[1])
    assert status == 1
    assert f"problem: {files.paths[1]}: the delta before it, as one that was merged, does not know" in output
    assert mist("verify", merged, files.paths[1], "--base", files.checkpoints[0])[0] == 0


def test_a_checkpoint_of_more_than_tensors_or_of_odd_names_is_refused(mist: Callable, tmp_path: Path) -> None:
    before, after = {"__metadata__": torch.zeros(99)}, {"__metadata__": torch.eye(99)[0]}
    for name, content in (("a.pth", before), ("b.pth", after), ("c.pth", {"w": torch.zeros(9), "step": 3})):
        torch.save(content, tmp_path / name)
    status, _, errors = mist("diff", tmp_path / "c.pth", tmp_path / "c.pth", tmp_path / "d.delta")
    assert status == 2
    assert "c.pth holds 'step' as int, expected tensors alone" in errors
    assert mist("diff", tmp_path / "a.pth", tmp_path / "b.pth", tmp_path / "d.delta")[0] == 0
    status, _, errors = mist("apply", tmp_path / "a.pth", tmp_path / "d.delta", "--out", tmp_path / "e.safetensors")
    assert status == 2
    assert "a tensor is named '__metadata__', which a safetensors file cannot hold" in errors
    assert not (tmp_path / "e.safetensors").exists()


def test_a_damaged_delta_is_named(mist: Callable, files, tmp_path: Path) -> None:
    damaged = bytearray(Path(files.paths[0]).read_bytes())
    damaged[-3] ^= 1
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(damaged)
    status, _, errors = mist("show", path)
    assert status == 2
    assert f"{path} is no whole delta" in errors
