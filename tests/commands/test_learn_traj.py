"""The command that learns lines: what it writes, repeats and resumes, and how it refuses bad input."""

import csv
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from acqdesign.encoding import StraightLineEncoding, _backends, density_weights, pipe_density
from acqdesign.encoding.lines import LineWeights
from acqdesign.export import read_design, write_design
from acqdesign.recon import CG, DensityAdjoint, cg_sense, nrmse, psnr, ssim
from acqdesign.scene import FOV, load_brain

from . import _lines
from ._lines import LINES as SMALL

SHAPE = (6, 8, 7)


def main(*argv):
    """The exit code."""
    return _lines.main("learn_traj", *argv)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of five steps with everything it writes."""
    out = tmp_path_factory.mktemp("traj") / "whole"
    flags = ["--steps", 5, "--checkpoint-every", 2, "--seed", 3, "--lr", 0.05, "--deterministic"]
    assert main("--out", out, *SMALL, *flags) == 0
    return out


def start_of(run):
    """The points that a run of `whole`'s length started from."""
    with np.load(run / "checkpoint" / "step-00000005.npz", allow_pickle=False) as held:
        return held["snapshot.0.trajectory.points"]


def test_design_holds_what_other_programs_need(whole):
    with np.load(whole / "design.npz", allow_pickle=False) as held:
        design = dict(held)
    assert set(design) == {"points", "learned", "samples_per_line", "readout", "shape", "fov_m"}
    assert (design["points"].shape, design["points"].dtype) == ((20, 2), np.float32)
    assert design["samples_per_line"] == 8
    np.testing.assert_allclose(design["readout"], (np.arange(8) - 4) / 8)
    np.testing.assert_array_equal(design["shape"], SHAPE)
    np.testing.assert_allclose(design["fov_m"], FOV, rtol=1e-6)


def test_frozen_lines_stay_bit_for_bit_and_the_others_move_inside_the_box(whole):
    design, start = read_design(whole / "design.npz"), start_of(whole)
    fixed = ~design["learned"]
    assert fixed.sum() == 4
    np.testing.assert_array_equal(design["points"][fixed], start[fixed])
    assert (np.abs(design["points"] - start)[~fixed].max(axis=1) > 1e-3).all()
    assert np.abs(design["points"]).max() <= 0.5


def test_history_and_summary_agree(whole):
    with (whole / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(6))
    assert set(rows[0]) == {"step", "loss", "nrmse", "nrmse_held_out"}
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["initial_loss"] == float(rows[0]["loss"])
    assert summary["final_loss"] == float(rows[-1]["loss"]) < summary["initial_loss"]
    assert summary["steps"] == 5
    assert summary["stopped"] == "finished"
    for name in ("seconds_per_step", "compile_seconds", "peak_memory_bytes"):
        assert summary[name] > 0
    np.testing.assert_allclose(summary["nrmse"], float(rows[-1]["nrmse"]), rtol=1e-4)
    np.testing.assert_allclose(summary["initial_nrmse_held_out"], float(rows[0]["nrmse_held_out"]), rtol=1e-4)


def test_summary_numbers_are_those_of_the_written_design(whole):
    """Remade from design.npz alone: k-space of the brain, conjugate gradients, metrics."""
    summary = json.loads((whole / "summary.json").read_text())
    image = load_brain(shape=SHAPE)[None]

    @jax.jit
    def measure(points):
        encoding = StraightLineEncoding(points, SHAPE, 8)
        found = cg_sense(encoding, encoding.forward(image), ridge=1e-3 * 8 / 6, iterations=10)
        return {"nrmse": nrmse(found, image), "psnr": psnr(found, image), "ssim": ssim(found, image)}

    for prefix, points in (("", read_design(whole / "design.npz")["points"]), ("initial_", start_of(whole))):
        for name, value in measure(points).items():
            np.testing.assert_allclose(summary[prefix + name], value[0], rtol=1e-3)


def test_figures_show_something(whole):
    for name in ("trajectory", "reconstruction", "psf", "loss"):
        with Image.open(whole / f"{name}.png") as picture:
            pixels = np.asarray(picture.convert("L")).astype(float)
        assert min(pixels.shape) > 300
        assert pixels.std() > 8
    with Image.open(whole / "learning.gif") as movie:
        assert movie.n_frames == 6
        first = np.asarray(movie.convert("L")).astype(float)
        movie.seek(5)
        assert np.abs(np.asarray(movie.convert("L")) - first).max() > 60


def test_config_alone_repeats_a_deterministic_run_byte_for_byte(whole, tmp_path):
    """Every option and the seed come from the file; flags given beside it come first."""
    assert main("--config", whole / "config.json", "--out", tmp_path / "again", "--no-figures") == 0
    for name in ("design.npz", "history.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (whole / name).read_bytes()
    assert not list((tmp_path / "again").glob("*.png"))
    first, again = (json.loads((run / "config.json").read_text())["options"] for run in (whole, tmp_path / "again"))
    changed = {key for key in first if first[key] != again[key]}
    assert changed == {"out", "config", "no_figures"}


def test_resume_ends_as_the_uninterrupted_run(whole, tmp_path):
    flags = ["--seed", 3, "--lr", 0.05, "--deterministic", "--no-figures"]
    assert main("--out", tmp_path / "parts", *SMALL, *flags, "--steps", 2) == 0
    assert main("--resume", tmp_path / "parts", "--steps", 5) == 0
    for name in ("design.npz", "history.csv"):
        assert (tmp_path / "parts" / name).read_bytes() == (whole / name).read_bytes()


def test_a_folder_with_a_run_is_refused_and_untouched(whole, capfd):
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    assert main("--out", whole, *SMALL, "--steps", 1) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert f"--out: got {whole}, which holds a run" in error
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_several_starts_in_double_precision_with_everything_on(tmp_path, rng):
    """A complex image and the brain, in new poses at every step, with coils and noise, learned for SSIM."""
    np.save(tmp_path / "image.npy", rng.random((9, 10, 8)) * np.exp(1j * rng.random((9, 10, 8))))
    flags = ["--starts", 2, "--precision", "double", "--coils", 2, "--noise", 0.02, "--augment"]
    flags += ["--term", "dissimilarity", "--holdout", "brain", "--phantom", tmp_path / "image.npy", "brain"]
    assert main("--out", tmp_path / "run", *SMALL, *flags, "--steps", 2, "--no-figures") == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    losses = summary["start_losses"]
    assert len(losses) == 2
    assert summary["final_loss"] == min(losses) == losses[summary["start"]]
    with np.load(tmp_path / "run" / "checkpoint" / "step-00000002.npz", allow_pickle=False) as held:
        states = held["state.params.trajectory.points"]
    assert (states.shape, states.dtype) == ((2, 20, 2), np.float64)
    design = read_design(tmp_path / "run" / "design.npz")
    np.testing.assert_array_equal(design["points"], states[summary["start"]].astype(np.float32))
    assert "fov_m" not in design


@pytest.mark.slow
def test_reference_recipe_is_adam_on_the_plain_loss(tmp_path, rng):
    """Three steps by hand: density recomputed and differentiated, ends of the readout sampled, clipped."""
    points = rng.uniform(-0.5, 0.5, (20, 2)).astype(np.float32)
    points[-3:] = np.sign(points[-3:]) * 0.499
    learned = np.arange(20) >= 4
    write_design(tmp_path / "start.npz", {"points": points, "learned": learned})
    flags = ["--shape", 6, 8, 7, "--samples", 8, "--precision", "double", "--backend", "dft", "--no-figures"]
    flags += ["--recipe", "reference", "--init", tmp_path / "start.npz", "--steps", 3]
    assert main("--out", tmp_path / "run", *flags) == 0

    image = load_brain(shape=SHAPE).astype(jnp.float64)
    readout = jnp.linspace(-0.5, 0.5, 8, dtype=jnp.float64)
    along = pipe_density(readout[:, None], SHAPE[:1], 10)

    @jax.jit
    @jax.value_and_grad
    def loss(points):
        encoding = StraightLineEncoding(points, SHAPE, readout=readout, backend="dft")
        weights = LineWeights(density_weights("pipe", points, SHAPE[1:], 10), along)
        found = jnp.abs(encoding.adjoint(encoding.forward(image), weights))
        return jnp.mean((found / found.mean() - image / image.mean()) ** 2)

    x, losses = jnp.asarray(points, jnp.float64), []
    adam = optax.adam(1e-2)
    state = adam.init(x)
    for _ in range(3):
        value, slope = loss(x)
        losses.append(float(value))
        slope = jnp.where(learned[:, None], slope, 0)
        updates, state = adam.update(slope, state)
        x = jnp.where(learned[:, None], jnp.clip(x + updates, -0.5, 0.5), x)
    with (tmp_path / "run" / "history.csv").open() as file:
        found = [float(row["loss"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(found[:3], losses, rtol=1e-9)
    np.testing.assert_allclose(found[3], loss(x)[0], rtol=1e-7)
    np.testing.assert_allclose(read_design(tmp_path / "run" / "design.npz")["points"], x, atol=1e-6)


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What a command line hands to `design.run`."""
    return lambda *argv: _lines.asked(monkeypatch, "learn_traj", "--out", tmp_path / "never", *argv)


def image_of(scene):
    return scene.image(scene.contrast)


def check_starts(seen, count, fixed):
    """All of them have the same held lines, and differ in the others."""
    points = np.stack([start.trajectory.points for start in seen["starts"]])
    moves = np.asarray(seen["starts"][0].trajectory.moves)
    assert points.shape == (count, len(moves), 2)
    assert (~moves).sum() == fixed
    assert (np.ptp(points, axis=0)[~moves] == 0).all()
    assert (np.ptp(points, axis=0)[moves] > 0).all() or count == 1


def test_reference_recipe_by_default_is_the_published_one(asked):
    seen = asked("--recipe", "reference")
    problem, (start,) = seen["problem"], seen["starts"]
    assert problem.terms.names == ("scaled_error",)
    assert problem.reconstruction == DensityAdjoint("pipe", 10)
    assert (problem.noisy, problem.free_scale, problem.scene.poses) == (False, False, None)
    np.testing.assert_allclose(start.trajectory.readout, np.linspace(-0.5, 0.5, 128), atol=1e-7)
    np.testing.assert_allclose(image_of(problem.scene), load_brain(shape=(23, 28, 23), contrast="T1w")[None])
    assert seen["steps"] == 40
    check_starts(seen, 1, 81)
    fixed = start.trajectory.points[~np.asarray(start.trajectory.moves)]
    assert len(start.trajectory.points) == 253
    np.testing.assert_allclose(np.unique(fixed[:, 0]), np.linspace(-9 / 2 / 23, 9 / 2 / 23, 9), atol=1e-6)
    # Adam at 1e-2, constantly: equal gradients move every entry by as much at every step.
    state = seen["optimizer"].init(jnp.zeros(3))
    for _ in range(4):
        updates, state = seen["optimizer"].update(jnp.array([1.0, -2.0, 3.0]), state)
        np.testing.assert_allclose(updates, [-1e-2, 1e-2, -1e-2], rtol=1e-4)
    (box,) = problem.constraints
    clipped = box.project(jnp.array([[-0.6, 0.25], [0.5, 0.7]]))
    np.testing.assert_array_equal(clipped, [[-0.5, 0.25], [0.5, 0.5]])
    assert seen["judged_by"] == CG()


def test_default_recipe(asked):
    """Poisson-disc start, error of the image from conjugate gradients, two held-out poses, uniform readout."""
    seen = asked()
    problem = seen["problem"]
    assert problem.terms.names == ("nrmse",)
    assert (problem.reconstruction, problem.noisy, seen["judged_by"]) == (CG(1e-3, 10), False, None)
    assert problem.scene.maps.shape == (1, 1, 23, 28, 23)
    assert seen["held"].scene.maps.shape == (1, 2, 23, 28, 23)
    assert (problem.trajectory.samples, problem.trajectory.readout) == (128, None)
    check_starts(seen, 1, 81)


def test_flags_override_the_recipe(asked, tmp_path, rng):
    np.save(tmp_path / "image.npy", rng.random(SHAPE))
    seen = asked(
        *SMALL, "--recipe", "reference", "--term", "nrmse", "dissimilarity=2", "--init", "poisson", "--starts", 3,
        "--augment", "--phantom", tmp_path / "image.npy", "--holdout", tmp_path / "image.npy",
        "--reconstruction", "cg", "--ridge", 0.1, "--iterations", 4,
    )  # fmt: skip
    problem = seen["problem"]
    assert [part[:2] for part in problem.terms.parts] == [(1.0, "nrmse"), (2.0, "dissimilarity")]
    assert (problem.reconstruction, seen["judged_by"]) == (CG(0.1, 4), None)
    assert problem.scene.poses.fine.shape == (1, 1, 12, 16, 14)
    image = np.load(tmp_path / "image.npy")
    np.testing.assert_allclose(image_of(seen["held"].scene)[0], image / image.max(), rtol=1e-5)
    # The calibration lines are the same in every start, the others not.
    check_starts(seen, 3, 4)


def test_seeds_give_other_starts_and_other_poses(asked):
    first, again, other = (asked(*SMALL, "--seed", seed) for seed in (1, 1, 2))
    for part in (lambda seen: seen["starts"][0].trajectory.points, lambda seen: image_of(seen["held"].scene)):
        np.testing.assert_array_equal(part(first), part(again))
        assert (part(first) != part(other)).any()


BAD = {
    "absent phantom": (["--phantom", "absent.npy"], "phantom: got absent.npy, which is no file"),
    "unknown phantom": (["--phantom", "brian"], "phantom: got 'brian', expected brain, brainweb:SUBJECT"),
    "unreadable phantom": (["--phantom", "junk.npy"], "got junk.npy (ValueError: EOF: reading magic string"),
    "flat phantom": (["--phantom", "flat.npy"], "flat.npy, which holds 2 axes (5, 6), expected three"),
    "broken phantom": (["--phantom", "nan.npy"], "nan.npy, which holds 60 NaN voxels"),
    "broken image to hold out": (["--holdout", "nan.npy"], "nan.npy, which holds 60 NaN voxels"),
    "too much centre": (["--calibration", "5"], "--calibration: got (5, 5), expected at most lines = 20"),
    "no steps": (["--steps", "0"], "--steps: got 0, expected 1 to 10000000"),
    "negative lines": (["--lines", "-3"], "--lines: got -3, expected 1 to 65536"),
    "no samples": (["--samples", "0"], "--samples: got 0, expected 1 to 65536"),
    "no learning rate": (["--lr", "0"], "--lr: got 0.0, expected 1e-12 to 1000"),
    "negative learning rate": (["--lr", "-0.1"], "--lr: got -0.1, expected 1e-12 to 1000"),
    "unknown optimiser": (["--optimizer", "adm"], "one of adam, adamw, nadam, amsgrad, radam, adabelief, lion"),
    "unknown backend": (["--backend", "cufinufft"], "invalid choice 'cufinufft' for argument '--backend'"),
    "unknown density": (
        ["--reconstruction", "adjoint", "--density", "voronoi"], "--density: got 'voronoi', expected one of pipe",
    ),
    "density of nothing": (["--density", "pipe"], "--density: got 'pipe', for which CG has no use"),
    "iterations of which": (["--density-iterations", "3"], "--density-iterations: got 3, for which cg has no use"),
    "unknown term": (["--term", "mse"], "--term: got 'mse', expected one of nrmse, squared_error, dissimilarity"),
    "weightless term": (["--term", "nrmse=0"], "--term: got nrmse=0, expected a weight above 0"),
    "unknown reconstruction": (["--reconstruction", "sense"], "--reconstruction: got 'sense', expected one of cg"),
    "unknown start": (["--init", "radial"], "--init: got 'radial', expected one of reference, poisson"),
    "absent start": (["--init", "absent.npz"], "--init: got absent.npz with --lines, expected one of the two"),
    "negative ridge": (["--ridge", "-1"], "--ridge: got -1.0, expected 0 to 1000000"),
    "no iterations": (["--iterations", "0"], "--iterations: got 0"),
    "negative noise": (["--noise", "-0.1"], "--noise: got -0.1, expected 0 to 1000"),
    "noise that is none": (["--noise", "nan"], "--noise: got nan"),
    "noise of what": (["--term", "noise"], "--term: got noise with --noise 0"),
    "equal starts": (["--starts", "2", "--init", "spiral"], "--starts: got 2 with --init spiral, expected 1"),
    "lbfgs on a moving loss": (["--optimizer", "lbfgs", "--augment"], "--optimizer: got lbfgs with --augment"),
    "threads in order": (["--deterministic", "--backend", "finufft"], "--backend: got finufft with --determ"),
    "unknown flag": (["--stepz", "3"], "--stepz"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_by_name_before_anything_is_written(case, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "junk.npy").write_text("junk")
    np.save("flat.npy", np.ones((5, 6)))
    np.save("nan.npy", np.full((3, 4, 5), complex(1, np.nan)))
    args, message = BAD[case]
    assert main("--out", tmp_path / "never", *SMALL, *args) == 2
    error = capfd.readouterr().err
    assert message in " ".join(error.replace("│", " ").split())
    assert "Traceback" not in error
    assert not (tmp_path / "never").exists()


def test_nothing_to_learn_is_refused(tmp_path, capfd):
    write_design(tmp_path / "a.npz", {"points": np.zeros((4, 2)), "learned": np.zeros(4, bool)})
    assert main("--out", tmp_path / "never", "--shape", 6, 8, 7, "--init", tmp_path / "a.npz") == 2
    assert "problem: got nothing to learn, expected an array, or an entry of one" in capfd.readouterr().err
    assert not (tmp_path / "never").exists()


def test_a_backend_without_kernels_for_the_device_is_refused(tmp_path, monkeypatch, capfd):
    missing = "the installed jax-finufft has no kernels for the platform 'gpu'"
    monkeypatch.setattr(_backends, "_finufft_missing", lambda: missing)
    assert main("--out", tmp_path / "never", *SMALL, "--backend", "finufft") == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert "backend: got 'finufft'" in error
    assert "pass backend='dft'" in error
    assert not (tmp_path / "never").exists()


def test_the_module_is_a_command(tmp_path):
    """As a process of its own, bad input is one line on standard error and code 2."""
    command = [sys.executable, "-m", "acqdesign.learn_traj", "--phantom", "absent.nii", "--out", "never"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": ""}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("learn_traj: phantom: got absent.nii, which is no file")
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("ending", ["npz", "cfl", "mrd"])
def test_what_a_file_knows_becomes_the_run_s(tmp_path, monkeypatch, capsys, ending):
    """Shape, field of view and samples; a flag that says another is refused, one that says the same is not."""
    path = tmp_path / f"a.{ending}"
    grid = np.stack(np.meshgrid(np.arange(-3, 3) / 6, np.arange(-2, 2) / 4, indexing="ij"), -1).reshape(-1, 2)
    write_design(path, {"points": grid, "samples_per_line": 10, "shape": (5, 6, 4), "fov_m": (0.2, 0.18, 0.16)})
    for more in ([], ["--shape", 5, 6, 4, "--samples", 10, "--fov-mm", 200, 180, 160]):
        problem = _lines.asked(monkeypatch, "learn_traj", "--init", path, *more)["problem"]
        assert problem.scene.shape == (5, 6, 4)
        assert problem.trajectory.samples == 10
        np.testing.assert_allclose(problem.scene.fov, (0.2, 0.18, 0.16), rtol=1e-6)
        assert "24 lines of 10 samples" in capsys.readouterr().out
    for flag, *values in (("--shape", 5, 6, 5), ("--samples", 9), ("--fov-mm", 200, 180, 150)):
        assert main("--init", path, flag, *values) == 2
        assert f"{flag}: got" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "grid_steps"), [("learn_traj", 0.28), ("learn_joint", 0.384)])
def test_lines_step_by_the_grid_and_gently_from_what_was_learned(tmp_path, monkeypatch, name, grid_steps):
    """Adam's first step is its rate: so many steps of the longer side's grid; a tenth of that from a file, for 40."""
    lines = ["--lines", 16, "--calibration", 0]
    trains = ["--echoes", 4, "--te-eff-ms", 10] if name == "learn_joint" else []
    rates = {}
    for side in (12, 20):
        found = _lines.asked(monkeypatch, name, "--shape", 1, 10, side, *lines, *trains, "--steps", 40)
        rates[side] = rate_of(found)
        np.testing.assert_allclose(rates[side], grid_steps / side, rtol=1e-4)
    write_design(tmp_path / "held.npz", found["problem"].trajectory.design() | {"shape": (1, 10, 20)})
    found = _lines.asked(monkeypatch, name, "--init", tmp_path / "held.npz", *trains, "--steps", 40)
    np.testing.assert_allclose(rate_of(found), rates[20] / 10, rtol=1e-4)


def rate_of(found):
    """How far the first step of an optimiser moves lines."""
    learned = jax.tree.map(jnp.ones_like, found["problem"].split()[0])
    update, _ = found["optimizer"].update(learned, found["optimizer"].init(learned), learned)
    return -update.trajectory.points[0, 0]


# Readouts that a scanner plays

PLAYED = "--shape 1 16 16 --lines 5 --samples 64 --steps 4 --system generic".split()  # noqa: SIM905


@pytest.mark.parametrize("kind", ["free", "spiral"])
def test_what_is_learned_for_a_system_is_what_it_plays(kind, tmp_path):
    """From rest to rest within its gradient and slew, in the design that is written; and the waveforms are drawn."""
    flags = [] if kind == "free" else ["--no-figures"]
    assert main("--out", tmp_path / "run", *PLAYED, "--trajectory", kind, "--fov-mm", 3, 60, 60, *flags) == 0
    points = np.float64(read_design(tmp_path / "run" / "design.npz")["coordinates"])
    gradient = np.pad(np.diff(points / (60e-3 / 16), axis=1), ((0, 0), (1, 1), (0, 0))) / (42.577478518e6 * 10e-6)
    slew = np.linalg.norm(np.diff(gradient, axis=1) / 10e-6, axis=-1)
    assert np.linalg.norm(gradient, axis=-1).max() <= 0.040
    assert 0.9 * 150 < slew.max() <= 150
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["nrmse"] < summary["initial_nrmse"]
    assert (tmp_path / "run" / "waveforms.png").exists() == (kind == "free")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([], "--system: got straight lines, expected readouts whose samples are learned. Their prewinders"),
        (["--trajectory", "radial", "--dwell-us", "4"], "--dwell-us: got 4 us, expected a multiple of 10 us"),
        (["--trajectory", "radial", "--system", "prism"], "Did you mean 'prisma'"),
        (["--trajectory", "cones"], "--trajectory: got cones for a scene of shape (1, 16, 16)"),
    ],
)
def test_what_a_system_cannot_play_is_refused(flags, says, tmp_path, capsys):
    assert main("--out", tmp_path / "never", *PLAYED, *flags) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "never").exists()
