"""The joint command: its outputs, its comparison, its constraints and its errors."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.commands.joint_options import JointOptions, TrainOptions
from acqdesign.commands.run import parse_options
from acqdesign.design.joint_objective import TERMS
from acqdesign.learn_joint import DESIGNS, build, main
from acqdesign.scene.scanner import EchoShape, max_phase_encode, system_limits

SMALL = "--shape 1 12 12 --lines 24 --echoes 6 --te-eff-ms 15 --steps 2 --calibration 3".split()  # noqa: SIM905


def check_outputs(out):
    summary = json.loads((out / "summary.json").read_text())
    for key in ("initial_loss", "final_loss", "gap", "seconds_per_step", "compile_seconds", *TERMS):
        assert np.isfinite(summary[key])
    with np.load(out / "design.npz", allow_pickle=False) as design:
        assert np.abs(design["points"]).max() <= 0.5
        assert sorted(np.bincount(design["echo"])) == [4] * 6
        assert len(set(zip(design["train"].tolist(), design["echo"].tolist(), strict=True))) == 24
        assert np.sqrt(np.mean(design["flips_rad"] ** 2)) <= np.pi / 4 + 1e-6
        return summary, dict(design)


@pytest.mark.slow
def test_lines_alone_hold_the_flips_in_a_rich_scene(tmp_path, capsys):
    """Three dimensions, coils, new poses at every step, two starts."""
    out = tmp_path / "run"
    flags = [*SMALL, *"--shape 4 8 8 --coils 2 --augment --starts 2 --learn lines".split()]  # noqa: SIM905
    assert main([*flags, "--out", str(out)]) == 0
    summary, design = check_outputs(out)
    assert len(summary["start_losses"]) == 2
    assert (out / "history.csv").read_text().splitlines()[0] == "step,loss,nrmse"
    assert design["samples_per_line"] == 4
    problem = build(parse_options(JointOptions, flags, prog="test"), 0)
    np.testing.assert_array_equal(design["flips_rad"], problem.first()["flips"])
    begun = problem.start["points"][summary["start"]]
    assert 0 < np.abs(design["points"] - begun).max() < 0.1
    for name in ("trajectory", "reconstruction", "flips", "echoes", "psf", "loss"):
        assert (out / f"{name}.png").stat().st_size > 5000
    assert (out / "learning.gif").stat().st_size > 5000
    assert "held out" in capsys.readouterr().out


@pytest.mark.slow
def test_ensembles_are_classes_of_the_scene():
    """Five fields times three T2 a tissue, about the nominal ones; poses spread over the same classes."""
    flags = [*SMALL, *"--b1-spread 0.2 --t2-spread 0.1 --augment".split()]  # noqa: SIM905
    problem = build(parse_options(JointOptions, flags, prog="test"), 0)
    for objective, longer in ((problem.objective, 1.0), (problem.held_out, 1.1)):
        b1, t2 = (np.asarray(a).reshape(3, 3, 5) for a in (objective.scene.b1, objective.scene.t2))
        assert 0.8 <= b1.min() < 0.85
        assert 1.15 < b1.max() <= 1.2
        np.testing.assert_allclose(t2[:, 1, 0], np.array([0.083, 0.075, 1.65]) * longer, rtol=1e-6)
        np.testing.assert_allclose(np.log(t2[:, 2] / t2[:, 1]), 0.1 * np.sqrt(3), rtol=1e-4)
    assert problem.objective.poses(jax.random.key(0)).shape == problem.objective.maps.shape


@pytest.mark.slow
def test_compare_learns_every_design_and_resumes(tmp_path):
    out = tmp_path / "run"
    assert main([*SMALL, "--compare", "--exchange-every", "1", "--no-figures", "--out", str(out)]) == 0
    summary, design = check_outputs(out)
    assert set(summary["compare"]) == set(DESIGNS)
    for found in summary["compare"].values():
        assert set(found) == {"loss", "gap", *TERMS, *(f"{name}_held_out" for name in TERMS)}
    assert len({found["nrmse"] for found in summary["compare"].values()}) == 4
    # Every design was finished: nothing is learned again, and the same numbers are written.
    (out / "summary.json").unlink()
    assert main(["--resume", str(out)]) == 0
    again = json.loads((out / "summary.json").read_text())
    assert again["compare"] == summary["compare"]
    with np.load(out / "design.npz") as same:
        np.testing.assert_array_equal(same["flips_rad"], design["flips_rad"])


@pytest.mark.slow
def test_every_step_is_within_every_limit():
    """Flip range, power, steps, smoothness and the scanner's box together, to 1e-6, from far outside."""
    flags = (
        "--system generic --esp-ms 3.75 --dwell-us 200 --sar-fraction 0.1 --min-flip-deg 20 --max-flip-deg 150 "
        "--max-step-deg 15 --max-bend-deg 4 --shape 4 48 48 --fov-mm 8 24 24 --lines 96 --te-eff-ms 30 --echoes 24"
    )
    problem = build(parse_options(JointOptions, flags.split(), prog="test"), 0)
    # The scanner's own limit, from lines of 4 samples and voxels that are fine in the plane.
    echo = EchoShape(4, 200e-6, (2e-3, 0.5e-3, 0.5e-3), refocusing_s=0.6e-3)
    half = max_phase_encode(system_limits("generic"), echo, 3.75e-3)
    assert 0.2 < half < 0.5
    project = jax.jit(problem.project)
    params = problem.first()
    for seed in range(4):
        keys = jax.random.split(jax.random.key(seed), 2)
        far = {
            "points": params["points"] + jax.random.normal(keys[0], params["points"].shape),
            "flips": params["flips"] + 3 * jax.random.normal(keys[1], params["flips"].shape),
        }
        params = project(far)
        assert float(jnp.abs(params["points"]).max()) <= half + 1e-6
        degrees = np.degrees(np.asarray(params["flips"], np.float64))
        assert degrees.min() >= 20 - 1e-4
        assert degrees.max() <= 150 + 1e-4
        assert np.sqrt(np.mean(degrees**2)) <= 180 * np.sqrt(0.1) * (1 + 1e-6)
        assert np.abs(np.diff(degrees)).max() <= 15 + 1e-4
        assert np.sqrt(np.mean(np.diff(degrees, 2) ** 2)) <= 4 + 1e-4


def test_sar_by_any_name_is_one_limit():
    """180° for 0.6 ms is 19.57 µT; its share of the spacing makes the root mean square of B1."""
    of = lambda **given: TrainOptions(**given).limits().rms  # noqa: E731
    assert of(rms_flip_deg=45.0) == pytest.approx(np.pi / 4)
    assert of() == pytest.approx(np.pi / 4)
    assert of(sar_fraction=1 / 16) == pytest.approx(np.pi / 4)
    b1rms = 0.25 * np.pi / (2 * np.pi * 42.577478518e6 * 0.6e-3) * np.sqrt(0.6 / 5) * 1e6
    assert of(b1rms_ut=b1rms) == pytest.approx(np.pi / 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--lines", "25"], "lines: got 25, expected a multiple of the 6 echoes"),
        (["--te-eff-ms", "40"], "te_eff: got 40 ms, expected a time inside the train, 5 to 30 ms"),
        (["--tissue", "gm,wm"], "tissues: got 2, expected 3"),
        (["--tissue", "gm,wm,bone"], "bone"),
        (["--min-flip-deg", "60"], "--rms-flip-deg: got 45, expected at least 60"),
        (
            ["--min-flip-deg", "60", "--sar-fraction", "0.1"],
            "--sar-fraction: got 0.1, expected at least 0.1111",
        ),
        (["--min-flip-deg", "60", "--b1rms-ut", "1"], "--b1rms-ut: got 1, expected at least 2.26"),
        (
            ["--esp-ms", "1", "--te-eff-ms", "3", "--system", "generic"],
            "ms too short for 12 samples on generic",
        ),
        (
            ["--pulse-ms", "0.1", "--min-flip-deg", "40", "--system", "generic"],
            "--pulse-ms: got 0.1, too short",
        ),
        (
            ["--optimizer", "lbfgs", "--schedule", "constant"],
            "--optimizer: got lbfgs with --augment or --noise",
        ),
        (["--noise", "0", "--weight-noise", "1"], "weight_noise: got 1.0, expected 0 without noise"),
        (["--reconstruction", "subspace", "--rank", "4"], "rank: got 4, expected at most 3"),
        (
            ["--shape", "4", "8", "8", "--samples", "3", "--mesh", "planes=2"],
            "expected no planes. --samples 3 mix the 4 planes across a line; --samples 4 would not.",
        ),
    ],
)
def test_bad_input_is_one_line_and_code_2(tmp_path, capsys, change, message):
    assert main([*SMALL, *change, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
