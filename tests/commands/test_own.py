"""Parts of one's own on the command line: they run where a flag names them, and what they do wrong bears their name."""

import dataclasses
import json

import numpy as np
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.commands.config import flat_options
from acqdesign.commands.options import OWN
from acqdesign.commands.run import _NOT_READ_BACK
from acqdesign.export import read_design
from acqdesign.optim.checkpoint import checkpoint_steps, load_checkpoint, save_checkpoint

from ._lines import COMMANDS, FLIPS, SMALL, asked, main

# A file with a part for every seam, and others that give something wrong.
MINE = """
import equinox as eqx, jax, jax.numpy as jnp, numpy as np
from acqdesign.encoding import Trajectory
from acqdesign.optim import Constraint
from acqdesign.recon import cg
from acqdesign.signal import Sequence

class Spokes(Trajectory):
    angles: jax.Array
    samples: int = eqx.field(static=True)

    def coordinates(self):
        r = jnp.linspace(-0.5, 0.5, self.samples, dtype=self.angles.dtype)
        return r[:, None] * jnp.stack([jnp.cos(self.angles), jnp.sin(self.angles)], -1)[:, None, :]

    @classmethod
    def start(cls, scene, key, lines=12, samples=8):
        return cls(jax.random.uniform(key, (lines,), maxval=jnp.pi), samples)

class Flat(Spokes):
    def coordinates(self):
        return super().coordinates()[0]

class Counts(Spokes):
    def coordinates(self):
        return jnp.zeros((len(self.angles), self.samples, 2), int)

class Train(Sequence):
    flips: jax.Array

    def signal(self, tissue):
        decay = jnp.exp(-5e-3 * jnp.arange(1, len(self.flips) + 1) / jnp.asarray(tissue.t2)[..., None])
        return (jnp.asarray(tissue.m0)[..., None] * decay * jnp.sin(self.flips)).astype(self.flips.dtype)

    @classmethod
    def start(cls, tissue, key, echoes=6):
        return cls(jnp.full(echoes, 0.5, tissue.t1.dtype))

class Narrow(Train):
    def signal(self, tissue):
        return super().signal(tissue)[..., 0]

class Whole(Train):
    def signal(self, tissue):
        return jnp.ones((*tissue.shape, 6), int)

class Broken(Train):
    def signal(self, tissue):
        return super().signal(tissue) * jnp.nan

def tikhonov(encoding, kspace, noise):
    return cg(encoding.normal() + 1e-2, encoding.adjoint(kspace), iterations=3)

def plane(*given):
    return tikhonov(*given)[0]

def rounded(*given):
    return jnp.round(jnp.abs(tikhonov(*given))).astype(int)

def lost(*given):
    return tikhonov(*given) * jnp.nan

def energy(scan):
    return jnp.mean(jnp.abs(scan.image - scan.target) ** 2)

def vector(scan):
    return jnp.abs(scan.image - scan.target).ravel()

def whole(scan):
    return jnp.int32(3)

def nothing(scan):
    return energy(scan) * jnp.nan

class Small(Constraint):
    where = "sequence.flips"

    def project(self, flips):
        return jnp.clip(flips, 0, 0.4)

class Longer(Small):
    def project(self, flips):
        return jnp.concatenate([flips, flips])

class Half(Small):
    def project(self, flips):
        return flips.astype(jnp.float16)

class Nowhere(Small):
    where = "sequence.angles"

not_a_part = 3
"""
PLANE = ["--shape", 1, 12, 12, "--lines", 20, "--samples", 4]
SPOKES = ["--shape", 1, 12, 12, "--lines", 12, "--samples", 8]
JOINT = ["--shape", 1, 12, 12, "--lines", 24, "--echoes", 6]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The folder that commands run in, with the file in it."""
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "flags", "part"),
    [
        ("learn_traj", [*SPOKES, "--trajectory", "mine.py:Spokes"], lambda p: p.trajectory),
        ("learn_joint", [*SPOKES, "--echoes", 6, "--te-eff-ms", 10, "--trajectory", "mine.py:Spokes"],
         lambda p: p.trajectory.of),
        ("learn_joint", [*JOINT, "--sequence", "mine.py:Train"], lambda p: p.sequence),
        ("learn_flips", ["--echoes", 5, "--sequence", "mine.py:Train"], lambda p: p.sequence),
        ("learn_traj", [*PLANE, "--reconstruction", "mine.py:tikhonov"], lambda p: p.reconstruction),
        ("learn_traj", [*PLANE, "--term", "nrmse", "mine.py:energy=0.5"], lambda p: p.terms.parts[1][2]),
        ("learn_flips", [*FLIPS, "--limit", "mine.py:Small"], lambda p: p.constraints[1]),
        ("learn_joint", [*SMALL["learn_joint"], "--limit", "mine.py:Small"], lambda p: p.constraints[1]),
    ],
)  # fmt: skip
def test_a_part_of_ones_own_is_what_is_run(name, flags, part, mine, monkeypatch):
    """And its settings are those of the command line."""
    problem = asked(monkeypatch, name, *flags)["problem"]
    found = part(problem)
    named = flags[-1].removeprefix("mine.py:").split("=")[0]
    assert getattr(found, "__name__", type(found).__name__) == named
    if problem.trajectory is not None:
        assert problem.trajectory.readouts() == int(flags[flags.index("--lines") + 1])
    if named == "Train":
        assert problem.sequence.readouts() == flags[flags.index("--echoes") + 1]
    if named == "energy":
        assert problem.terms.parts[1][0] == 0.5


def test_a_run_of_ones_own_trajectory_writes_it(mine, capsys):
    """Learned, drawn and saved as any other; `--resume` goes on where the flag names it again."""
    flags = ["--trajectory", "mine.py:Spokes"]
    assert main("learn_traj", "--out", "run", *SPOKES, *flags, "--steps", 2, "--checkpoint-every", 1) == 0
    found = read_design(mine / "run")
    assert found["trajectory.angles"].shape == (12,)
    assert found["coordinates"].shape == (12, 8, 2)
    assert (mine / "run" / "trajectory.png").stat().st_size > 5000
    assert main("learn_traj", "--resume", "run", "--steps", 3) == 2
    assert "Say so yourself: --trajectory mine.py:Spokes." in capsys.readouterr().err
    assert main("learn_traj", "--resume", "run", "--steps", 3, *flags) == 0
    assert json.loads((mine / "run" / "summary.json").read_text())["steps"] == 3


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("learn_traj", [*SPOKES, "--trajectory", "mine.py:Flat"], "Flat.coordinates: got an array of shape (8, 2)"),
        ("learn_traj", [*SPOKES, "--trajectory", "mine.py:Counts"],
         "Counts.coordinates: got an array of shape (12, 8, 2) and dtype int32, expected a real floating-point array"),
        ("learn_joint", [*JOINT, "--sequence", "mine.py:Narrow"], "Narrow.signal: got an array of shape ()"),
        ("learn_joint", [*JOINT, "--sequence", "mine.py:Whole"], "Whole.signal: got an array of shape"),
        ("learn_flips", ["--sequence", "mine.py:Whole"], "Whole.signal: got an array of shape"),
        ("learn_traj", [*PLANE, "--reconstruction", "mine.py:plane"], "reconstruction plane: got an array of shape"),
        ("learn_traj", [*PLANE, "--reconstruction", "mine.py:rounded"], "reconstruction rounded: got an array of"),
        ("learn_traj", [*PLANE, "--term", "mine.py:vector"], "term vector: got an array of shape (144,)"),
        ("learn_traj", [*PLANE, "--term", "mine.py:whole"], "term whole: got an array of shape () and dtype int32"),
        ("learn_flips", [*FLIPS, "--limit", "mine.py:Longer"], "Longer.project: got an array of shape (8,)"),
        ("learn_flips", [*FLIPS, "--limit", "mine.py:Half"], "Half.project: got an array of shape (4,) and dtype"),
        ("learn_flips", [*FLIPS, "--limit", "mine.py:Nowhere"], "Nowhere: got where = 'sequence.angles', expected"),
    ],
)  # fmt: skip
def test_a_part_that_gives_something_wrong_is_told_by_its_name(name, flags, message, mine, capsys, unchecked_types):
    assert main(name, "--out", "run", *flags, "--steps", 1, "--no-figures") == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith(f"{name}: ")]
    assert len(said) == 1
    assert message in said[0]


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("learn_joint", [*JOINT, "--sequence", "mine.py:Broken"], "step 0: not finite: Broken.signal"),
        ("learn_traj", [*PLANE, "--reconstruction", "mine.py:lost"], "step 0: not finite: reconstruction lost"),
        ("learn_traj", [*PLANE, "--term", "mine.py:nothing"], "step 0: not finite: term 'nothing'"),
    ],
)
def test_what_is_not_finite_is_told_by_its_name(name, flags, message, mine, capsys):
    """As a numerical failure."""
    assert main(name, "--out", "run", *flags, "--steps", 1, "--no-figures") == 3
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--trajectory", "absent.py:Spokes"], "--trajectory: got absent.py:Spokes, whose file absent.py is not there"),
        (["--trajectory", "mine.py:Spoke"], "mine.py:Spoke, which is not in the file, expected one of"),
        (["--trajectory", "mine.py:energy"], "--trajectory: got mine.py:energy, a function, expected a class derived"),
        (["--trajectory", "mine.py:Train"], "expected a class derived from Trajectory"),
        (["--trajectory", "broken.py:A"], "broken.py:A, whose file fails (ZeroDivisionError: division by zero)"),
        (["--term", "mine.py:not_a_part"], "--term: got mine.py:not_a_part, a int, expected a function or a class"),
        (["--term", "mine.py:energy=much"], "--term: got mine.py:energy=much, expected NAME or NAME=WEIGHT"),
        (["--reconstruction", "mine.py:tikhonov", "--ridge", 1], "--ridge: got 1.0, for which mine.py:tikhonov has no"),
        (["--trajectory", "mine.py:Spokes", "--calibration", 2], "--calibration: got 2, for which Spokes has no use"),
    ],
)
def test_a_file_without_the_part_is_refused_in_one_line(flags, message, mine, capsys):
    (mine / "broken.py").write_text("1 / 0")
    assert main("learn_traj", "--out", "never", *SPOKES, *flags) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not (mine / "never").exists()


EVIL = "from pathlib import Path\nPath({!r}).touch()\ndef part(*_): return 0.0\n"


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A file that would leave a trace, and where."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text(EVIL.format(str(tmp_path / "trace")))
    return tmp_path / "trace"


def texts(options):
    """Options that a file may give a text for."""
    for field in dataclasses.fields(options):
        held = getattr(options, field.name)
        if dataclasses.is_dataclass(held):
            yield from texts(held)
        elif "str" in str(field.type) and field.name not in _NOT_READ_BACK:
            yield field.name


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_in_a_file_imports_code(name, evil, tmp_path, monkeypatch, capsys):
    """Whatever it is called, on starting from it and on resuming it; of those that may name code the flag is told."""
    flat = flat_options(COMMANDS[name][1]())
    for key in texts(COMMANDS[name][1]()):
        options = flat | {key: ["evil.py:part"] if isinstance(flat[key], list) else "evil.py:part"}
        (tmp_path / "config.json").write_text(json.dumps({"command": name, "options": options}))
        for how in (["--config", "config.json"], ["--resume", "."])[: 1 + (key in OWN)]:
            with pytest.raises(UsageError, match="ended with 2"):
                asked(monkeypatch, name, *how)
            error = capsys.readouterr().err
            assert error.count("\n") == 1
            assert key not in OWN or f"Say so yourself: --{key} evil.py:part." in error
    assert not evil.exists()


def test_flags_come_before_a_file_that_names_code(evil, tmp_path, monkeypatch):
    """What another flag has replaced is not run; what the flag itself names is."""
    (tmp_path / "config.json").write_text(json.dumps({"term": ["evil.py:part"], "lines": 20}))
    found = asked(monkeypatch, "learn_traj", *SMALL["learn_traj"], "--config", "config.json", "--term", "width")
    assert found["problem"].terms.names == ("width",)
    assert not evil.exists()
    found = asked(monkeypatch, "learn_traj", *SMALL["learn_traj"], "--config", "config.json", "--term", "evil.py:part")
    assert found["problem"].terms.names == ("part",)
    assert evil.exists()


def test_no_checkpoint_and_no_design_imports_code(evil, tmp_path, capsys):
    """Though every text in them names some."""
    flags = [*SMALL["learn_traj"], "--steps", 1, "--no-figures"]
    assert main("learn_traj", "--out", "run", *flags) == 0
    folder = tmp_path / "run" / "checkpoint"
    held = load_checkpoint(folder)
    named = dict.fromkeys((*OWN, "to"), "evil.py:part")
    meta = held.meta | {"config": {"command": "evil.py:part", "options": named}}
    save_checkpoint(folder, held.step, held.arrays, meta=meta)
    assert len(checkpoint_steps(folder)) == 1
    assert main("learn_traj", "--resume", "run", "--steps", 2) == 2  # as it is of another run
    with np.load(tmp_path / "run" / "design.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "other.npz", **arrays, **{f"trajectory.{key}": np.array(text) for key, text in named.items()})
    assert main("learn_traj", "--out", "never", *SMALL["learn_traj"][:4], "--init", "other.npz") == 2
    assert not evil.exists()
