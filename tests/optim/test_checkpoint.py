"""Checkpoints are whole or absent, found damaged when they are, and readable without the package."""

import errno
import json
import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.base.files import atomic_write, write_json, write_npz
from acqdesign.optim import load_checkpoint, save_checkpoint
from acqdesign.optim.checkpoint import arrays_from_tree, tree_from_arrays


def save(folder, step, keep=3):
    return save_checkpoint(folder, step, {"state.x": np.arange(4.0) + step}, meta={"seed": 1}, keep=keep)


def test_round_trip_and_the_last_k(tmp_path):
    for step in (0, 5, 10, 15):
        save(tmp_path / "checkpoint", step, keep=2)
    found = load_checkpoint(tmp_path / "checkpoint")
    assert (found.step, found.meta) == (15, {"seed": 1})
    np.testing.assert_array_equal(found.arrays["state.x"], np.arange(4.0) + 15)
    names = {path.name for path in (tmp_path / "checkpoint").iterdir()}
    assert names == {f"step-{n:08d}.{end}" for n in (10, 15) for end in ("json", "npz")}


@pytest.mark.parametrize("victim", ["npz", "json"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "missing"])
def test_a_damaged_newest_falls_back_to_the_one_before_saying_so(tmp_path, victim, damage):
    save(tmp_path, 1)
    save(tmp_path, 2)
    path = tmp_path / f"step-00000002.{victim}"
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    else:
        content[len(content) // 2] ^= 4
        kept = {"truncated": content[: len(content) // 2], "flipped": content, "empty": b""}
        path.write_bytes(kept[damage])
    if victim == "json" and damage == "missing":
        # Without its JSON, written last, an npz was never a checkpoint.
        assert load_checkpoint(tmp_path).step == 1
    else:
        with pytest.warns(UserWarning, match="going back to step 1, damaged checkpoints: step-00000002"):
            assert load_checkpoint(tmp_path).step == 1


def test_every_flipped_bit_is_noticed(tmp_path):
    save(tmp_path, 3)
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for place in range(0, len(whole), 7):
            broken = bytearray(whole)
            broken[place] ^= 16
            path.write_bytes(broken)
            try:
                found = load_checkpoint(tmp_path)
            except ValueError:
                continue
            # Only white space between JSON's tokens may differ without a difference.
            np.testing.assert_array_equal(found.arrays["state.x"], np.arange(4.0) + 3)
            assert (found.step, found.meta) == (3, {"seed": 1})
        path.write_bytes(whole)


def test_nothing_to_resume_from_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no checkpoint in"):
        load_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="no checkpoint in"):
        load_checkpoint(tmp_path / "absent")
    save(tmp_path, 1)
    (tmp_path / "step-00000001.npz").write_bytes(b"")
    with pytest.raises(ValueError, match="only damaged checkpoints"):
        load_checkpoint(tmp_path)


def test_a_newer_format_is_named(tmp_path):
    record = save(tmp_path, 1)
    content = json.loads(record.read_text())
    record.write_text(json.dumps(content | {"version": 99}))
    with pytest.raises(ValueError, match="format version 99, this program reads 2"):
        load_checkpoint(tmp_path)


def test_a_failing_write_leaves_what_was_there(tmp_path):
    target = tmp_path / "file"
    target.write_bytes(b"good")

    def fail():
        with atomic_write(target) as file:
            file.write(b"half")
            raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        fail()
    assert target.read_bytes() == b"good"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_vanished_is_an_error_and_not_made_again(tmp_path):
    """Another run may stand in its place."""
    with pytest.raises(FileNotFoundError, match="gone/checkpoint"):
        save(tmp_path / "gone" / "checkpoint", 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", ["tempfile.mkstemp", "os.fsync", "os.replace"])
def test_errors_of_the_disk_name_the_file_by_its_final_name(tmp_path, monkeypatch, call):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(f"acqdesign.base.files.{call}", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/a\.json'"):
        write_json(tmp_path / "a.json", {})
    assert not list(tmp_path.iterdir())


def test_what_a_damaged_checkpoint_says_cannot_reach_the_terminal(tmp_path):
    save(tmp_path, 1)
    record = save(tmp_path, 2)
    record.write_text(json.dumps(json.loads(record.read_text()) | {"version": "\x1b[2J\x07"}))
    with pytest.warns(UserWarning, match="format version") as caught:
        load_checkpoint(tmp_path)
    assert str(caught[0].message).isprintable()


def test_equal_content_gives_equal_bytes_and_nothing_needs_pickle(tmp_path):
    arrays = {"points": np.linspace(0, 1, 9), "name": np.array("brain")}
    write_npz(tmp_path / "a.npz", arrays)
    write_npz(tmp_path / "b.npz", arrays)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with pytest.raises(ValueError, match="objects: got an array of Python objects"):
        write_npz(tmp_path / "c.npz", {"objects": np.array([{}])})
    assert not (tmp_path / "c.npz").exists()


def test_json_holds_what_programs_outside_can_read(tmp_path):
    write_json(tmp_path / "a.json", {"loss": float("nan"), "n": np.int64(3), "x": jnp.ones(2), "p": tmp_path})
    assert json.loads((tmp_path / "a.json").read_text()) == {"loss": None, "n": 3, "x": [1.0, 1.0], "p": str(tmp_path)}


def test_is_readable_without_this_package(tmp_path):
    save(tmp_path, 7)
    code = (
        "import hashlib, json, sys, numpy as np\n"
        "stem = sys.argv[1] + '/step-00000007'\n"
        "record = json.load(open(stem + '.json'))\n"
        "assert record['sha256'] == hashlib.sha256(open(stem + '.npz', 'rb').read()).hexdigest()\n"
        "print(record['step'], np.load(stem + '.npz')['state.x'].sum())\n"
        "assert 'acqdesign' not in sys.modules and 'jax' not in sys.modules\n"
    )
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["7", "34.0"]


def test_trees_come_back_as_they_were():
    tree = {"a": jnp.arange(3, dtype=jnp.int32), "b": (jnp.ones(2, jnp.float32), {"c": jnp.zeros((), bool)})}
    arrays = arrays_from_tree("state", tree)
    assert set(arrays) == {"state.a", "state.b.0", "state.b.1.c"}
    back = tree_from_arrays("state", tree, arrays)
    np.testing.assert_array_equal(back["b"][0], tree["b"][0])
    assert back["b"][1]["c"].dtype == bool
    with pytest.raises(ValueError, match=r"checkpoint entry state\.a: got nothing"):
        tree_from_arrays("state", tree, {})
    with pytest.raises(ValueError, match=r"expected shape \(3,\) and dtype int32"):
        tree_from_arrays("state", tree, arrays | {"state.a": np.arange(3.0)})


def test_a_pipe_is_no_checkpoint(tmp_path):
    """It blocked."""
    record = save(tmp_path, 1)
    record.with_suffix(".npz").unlink()
    os.mkfifo(record.with_suffix(".npz"))
    with pytest.raises(ValueError, match=r"only damaged checkpoints .*a device, pipe or folder"):
        load_checkpoint(tmp_path)
