"""Disks that fill, turn read-only or go away: one clear line, exit code 4, and nothing lost."""

import dataclasses
import errno
import os
import shutil
import subprocess

import jax
import jax.numpy as jnp
import pytest

from acqdesign.commands.options import RunOptions
from acqdesign.commands.run import parse_options, run_and_report, run_command
from acqdesign.design import Problem, term
from acqdesign.optim import callbacks, load_checkpoint
from acqdesign.scene import Tissue
from acqdesign.signal import Sequence


@dataclasses.dataclass(frozen=True)
class Options:
    """Learns nothing in particular."""

    run: RunOptions = dataclasses.field(default_factory=lambda: RunOptions(steps=12, checkpoint_every=2))


class Pulses(Sequence):
    """Whose signal costs nothing to compile."""

    flips: jax.Array

    def signal(self, tissue):
        return jnp.sin(self.flips) * jnp.ones((*tissue.shape, 1), self.flips.dtype)


def learn(argv):
    options = parse_options(Options, argv, prog="learn")
    away = term(lambda scan: jnp.sum((scan.sequence.flips - 1) ** 2), "away")
    problem = Problem(Tissue(jnp.ones(1), jnp.full(1, 0.1)), sequence=Pulses(jnp.zeros(128)), terms=away)
    optimizer = options.run.make_optimizer(options.run.lr)  # of a constant rate, whatever the steps
    return run_and_report("learn", options, problem, optimizer=optimizer, progress=False)


def command(*argv):
    return run_command(learn, [*map(str, argv), "--no-figures"], prog="learn")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an undisturbed run leaves."""
    out = tmp_path_factory.mktemp("whole")
    assert command("--out", out) == 0
    return {name: (out / name).read_bytes() for name in ("design.npz", "history.csv")}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def one_line(capsys):
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    return text


def test_a_full_disk_costs_nothing_but_time(small_disk, whole, capsys):
    """The checkpoints from before stay; once there is room the run ends as if nothing had been."""
    out = small_disk / "run"
    assert command("--out", out, "--steps", 6) == 0
    (out / "design.npz").unlink()
    fill = ["dd", "if=/dev/zero", f"of={small_disk / 'ballast'}", "bs=512"]
    assert b"No space left" in subprocess.run(fill, capture_output=True).stderr
    capsys.readouterr()
    assert command("--resume", out, "--steps", 12) == 4
    assert "No space left on device: '" in one_line(capsys)
    assert load_checkpoint(out / "checkpoint").step == 6
    assert not list(out.rglob(".*.tmp"))
    (small_disk / "ballast").unlink()
    assert command("--resume", out, "--steps", 12) == 0
    assert {name: (out / name).read_bytes() for name in whole} == whole


def test_a_read_only_disk_is_4_and_the_run_that_lies_there_stays(small_disk, capsys):
    assert command("--out", small_disk / "run", "--steps", 2) == 0
    before = {p: p.read_bytes() for p in small_disk.rglob("*") if p.is_file()}
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for args in (["--out", small_disk / "new"], ["--resume", small_disk / "run", "--steps", 4]):
        capsys.readouterr()
        assert command(*args) == 4
        assert "Read-only file system: '" in one_line(capsys)
    assert {p: p.read_bytes() for p in small_disk.rglob("*") if p.is_file()} == before


@pytest.mark.filterwarnings("ignore:.*no checkpoint yet")
@pytest.mark.parametrize(
    ("call", "code", "nth"),
    [("os.replace", errno.ENOSPC, 1), ("os.fsync", errno.EIO, 4), ("os.replace", errno.EDQUOT, 6)],
)
def test_a_write_that_fails_anywhere_is_4_and_the_run_can_be_resumed(
    call, code, nth, tmp_path, whole, capsys, monkeypatch
):
    """The folder's own JSON first, then checkpoints, their records and the design."""
    real, calls = getattr(os, call.removeprefix("os.")), []

    def failing(*args):
        calls.append(args)
        if len(calls) == nth:
            raise OSError(code, os.strerror(code))
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(f"acqdesign.base.files.{call}", failing)
        assert command("--out", tmp_path) == 4
    assert f"{os.strerror(code)}: '{tmp_path}" in one_line(capsys)
    again = ["--resume" if (tmp_path / "config.json").exists() else "--out", tmp_path]
    assert command(*again) == 0
    assert {name: (tmp_path / name).read_bytes() for name in whole} == whole


def test_a_folder_that_vanishes_is_4_and_is_not_made_again(tmp_path, monkeypatch, capsys):
    save = callbacks.save_checkpoint

    def vanish(directory, step, *args, **options):
        if step == 4:
            shutil.rmtree(tmp_path / "run")
        return save(directory, step, *args, **options)

    monkeypatch.setattr(callbacks, "save_checkpoint", vanish)
    assert command("--out", tmp_path / "run") == 4
    assert f"No such file or directory: '{tmp_path / 'run' / 'checkpoint'}'" in one_line(capsys)
    assert not (tmp_path / "run").exists()
