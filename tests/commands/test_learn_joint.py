"""The joint command: its outputs, its comparison, its constraints and its errors."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.commands.options import LimitOptions
from acqdesign.commands.run import parse_options
from acqdesign.export import write_design
from acqdesign.learn_joint import HALVES, RMS_DEG, JointOptions, build, main
from acqdesign.optim import Limits
from acqdesign.scene.scanner import EchoShape, max_phase_encode, system_limits

from . import _lines
from ._lines import TRAINS, asked

SMALL = [*TRAINS, "--steps", "2"]
TERMS = ("nrmse", "psnr", "ssim", "noise", "width", "side_lobes", "deviation_t1", "deviation_t2")
KEYS = {"points", "learned", "samples_per_line", "readout", "shape", "fov_m", "train", "echo"}
KEYS |= {"flips_rad", "phases_rad", "te_s", "excitation_rad", "esp_s"}


def built(*flags):
    return build(parse_options(JointOptions, [*SMALL, *flags], prog="test"))


def check_outputs(out):
    summary = json.loads((out / "summary.json").read_text())
    for key in ("initial_loss", "final_loss", "gap", "seconds_per_step", "compile_seconds", *TERMS):
        assert np.isfinite(summary[key])
        assert key not in TERMS or {f"initial_{key}", f"{key}_held_out"} <= set(summary)
    with np.load(out / "design.npz", allow_pickle=False) as held:
        design = dict(held)
    assert np.abs(design["points"]).max() <= 0.5
    assert sorted(np.bincount(design["echo"])) == [4] * 6
    assert len(set(zip(design["train"].tolist(), design["echo"].tolist(), strict=True))) == 24
    assert np.sqrt(np.mean(design["flips_rad"] ** 2)) <= np.pi / 4 + 1e-6
    return summary, design


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run with everything it writes."""
    out = tmp_path_factory.mktemp("joint") / "whole"
    assert main([*SMALL, "--deterministic", "--out", str(out)]) == 0
    return out


def test_a_run_leaves_its_design_its_numbers_and_figures(whole):
    """Learned together; the lines of the calibration block stay, at the echoes that they were given."""
    summary, design = check_outputs(whole)
    assert set(design) == KEYS
    assert design["samples_per_line"] == design["shape"][0] == 1
    np.testing.assert_allclose(design["te_s"], 5e-3 * np.arange(1, 7), rtol=1e-6)
    assert {"peak_memory_bytes", "rms_flip_deg", "relative_power", "scan_s", "stopped"} <= set(summary)
    assert (whole / "history.csv").read_text().splitlines()[0] == "step,loss,nrmse,nrmse_held_out"
    names = ("trajectory", "reconstruction", "flips", "power", "echoes", "psf", "loss")
    assert {path.stem for path in whole.glob("*.png")} == set(names)
    assert all((whole / f"{name}.png").stat().st_size > 5000 for name in names)
    assert (whole / "learning.gif").stat().st_size > 5000
    start = built("--deterministic")["problem"].design
    fixed = ~design["learned"]
    assert fixed.sum() == 9
    np.testing.assert_array_equal(design["points"][fixed], np.asarray(start.trajectory.points)[fixed])
    assert np.abs(design["points"] - start.trajectory.points)[~fixed].max(axis=1).min() > 0
    assert np.abs(design["flips_rad"] - start.sequence.flips).max() > 1e-3


def test_a_resumed_run_ends_as_the_whole(whole, tmp_path):
    """Byte for byte; a schedule that spans the run is that of the whole one."""
    parts = tmp_path / "parts"
    flags = ["--deterministic", "--no-figures", "--checkpoint-every", "1", "--max-minutes", "1e-9"]
    assert main([*SMALL, *flags, "--out", str(parts)]) == 0
    assert json.loads((parts / "summary.json").read_text())["stopped"] == "time"
    assert main(["--resume", str(parts), "--max-minutes", "9"]) == 0
    for name in ("design.npz", "history.csv"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.slow
def test_lines_alone_hold_the_flips_in_a_rich_scene(tmp_path, capsys):
    """Three dimensions, coils, new poses at every step, two starts."""
    out = tmp_path / "run"
    flags = "--shape 4 8 8 --coils 2 --augment --starts 2 --learn lines".split()  # noqa: SIM905
    assert main([*SMALL, *flags, "--out", str(out)]) == 0
    summary, design = check_outputs(out)
    assert len(summary["start_losses"]) == 2
    assert design["samples_per_line"] == 4
    begun = built(*flags)["starts"][summary["start"]]
    np.testing.assert_array_equal(design["flips_rad"], begun.sequence.flips)
    assert 0 < np.abs(design["points"] - begun.trajectory.points).max() < 0.1
    assert "held out" in capsys.readouterr().out


@pytest.mark.slow
def test_ensembles_are_classes_of_the_scene():
    """Five fields times three T2 a tissue, about the nominal ones; poses spread over the same classes."""
    found = built("--b1-spread", "0.2", "--t2-spread", "0.1", "--augment")
    for scene, longer in ((found["problem"].scene, 1.0), (found["held"].scene, 1.1)):
        b1, t2 = (np.asarray(a).reshape(3, 3, 5) for a in (scene.tissue.b1, scene.tissue.t2))
        assert 0.8 <= b1.min() < 0.85
        assert 1.15 < b1.max() <= 1.2
        np.testing.assert_allclose(t2[:, 1, 0], np.array([0.083, 0.075, 1.65]) * longer, rtol=1e-6)
        np.testing.assert_allclose(np.log(t2[:, 2] / t2[:, 1]), 0.1 * np.sqrt(3), rtol=1e-4)
    scene = found["problem"].scene
    assert scene.sample(jax.random.key(0)).maps.shape == scene.maps.shape


@pytest.mark.slow
def test_compare_learns_every_design_and_resumes(tmp_path):
    out = tmp_path / "run"
    assert main([*SMALL, "--compare", "--exchange-every", "1", "--no-figures", "--out", str(out)]) == 0
    summary, design = check_outputs(out)
    assert set(summary["compare"]) == {"none", *HALVES}
    assert json.loads((out / "compare.json").read_text()) == summary["compare"]
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
    problem = built(*flags.split())["problem"]
    # The scanner's own limit, from lines of 4 samples and voxels that are fine in the plane.
    echo = EchoShape(4, 200e-6, (2e-3, 0.5e-3, 0.5e-3), refocusing_s=0.6e-3)
    half = max_phase_encode(system_limits("generic"), echo, 3.75e-3)
    assert 0.2 < half < 0.5
    project = jax.jit(problem.project)
    learned = problem.split()[0]
    for seed in range(4):
        leaves, tree = jax.tree.flatten(learned)
        keys = jax.random.split(jax.random.key(seed), len(leaves))
        far = [leaf + 2 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
        learned = project(jax.tree.unflatten(tree, far))
        assert float(jnp.abs(learned.trajectory.points).max()) <= half + 1e-6
        degrees = np.degrees(np.asarray(learned.sequence.flips, np.float64))
        assert degrees.min() >= 20 - 1e-4
        assert degrees.max() <= 150 + 1e-4
        assert np.sqrt(np.mean(degrees**2)) <= 180 * np.sqrt(0.1) * (1 + 1e-6)
        assert np.abs(np.diff(degrees)).max() <= 15 + 1e-4
        assert np.sqrt(np.mean(np.diff(degrees, 2) ** 2)) <= 4 + 1e-4


def test_sar_by_any_name_is_one_limit():
    """180° for 0.6 ms is 19.57 µT; its share of the spacing makes the root mean square of B1."""
    of = lambda **given: LimitOptions(**given).make(Limits(0.0, np.pi, rms=np.pi / 4), 96, 5.0).rms  # noqa: E731
    assert RMS_DEG == 45
    assert of(rms_flip_deg=45.0) == pytest.approx(np.pi / 4)
    assert of() == pytest.approx(np.pi / 4)
    assert of(sar_fraction=1 / 16) == pytest.approx(np.pi / 4)
    b1rms = 0.25 * np.pi / (2 * np.pi * 42.577478518e6 * 0.6e-3) * np.sqrt(0.6 / 5) * 1e6
    assert of(b1rms_ut=b1rms) == pytest.approx(np.pi / 4)


def test_a_map_may_be_of_a_tissue_of_ones_own(monkeypatch):
    """Times, density, and what it shows in the wanted image."""
    problem = asked(monkeypatch, "learn_joint", *SMALL, "--tissue", "gm:1200:90:0.5,wm,csf")["problem"]
    usual = asked(monkeypatch, "learn_joint", *SMALL)["problem"].scene
    tissue = problem.scene.tissue
    np.testing.assert_allclose([tissue.t1[0], tissue.t2[0], tissue.m0[0]], [1.2, 0.09, 0.5], rtol=1e-6)
    np.testing.assert_array_equal(tissue.t1[1:], usual.tissue.t1[1:])
    assert tissue.names == ("gm", "wm", "csf")
    assert problem.scene.contrast[0] != usual.contrast[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--lines", "25"], "lines: got 25, expected a multiple of the 6 echoes"),
        (["--te-eff-ms", "40"], "te: got 40 ms, expected a time inside the train, 5 to 30 ms"),
        (["--tissue", "gm,wm"], "tissues: got 2, expected 3"),
        (["--tissue", "gm,wm,bone"], "--tissue: got 'bone', expected one of gm, wm, csf, NAME:T1:T2 [ms]"),
        (["--min-flip-deg", "60"], "--rms-flip-deg: got 45, expected at least 60"),
        (["--min-flip-deg", "60", "--sar-fraction", "0.1"], "--sar-fraction: got 0.1, expected at least 0.1111"),
        (["--min-flip-deg", "60", "--b1rms-ut", "1"], "--b1rms-ut: got 1, expected at least 2.26"),
        (["--esp-ms", "1", "--te-eff-ms", "3", "--system", "generic"], "ms too short for 12 samples on generic"),
        (["--pulse-ms", "0.1", "--min-flip-deg", "40", "--system", "generic"], "--pulse-ms: got 0.1, too short"),
        (["--optimizer", "lbfgs", "--schedule", "constant"], "--optimizer: got lbfgs with --noise"),
        (["--t2-spread", "-0.1"], "--t2-spread: got -0.1"),
        (["--noise", "0", "--term", "noise"], "--term: got noise with --noise 0, expected a noise above 0"),
        (["--term", "nrmse", "blur"], "--term: got 'blur', expected one of nrmse, squared_error"),
        (["--exchange-every", "1", "--learn", "flips"], "--exchange-every: got 1 with --learn flips"),
        (["--lr-flips", "1", "--learn", "lines"], "--lr-flips: got 1 with --learn lines"),
        (["--lr-flips", "1", "--optimizer", "lbfgs", "--schedule", "constant", "--noise", "0"], "--lr-flips: got 1"),
        (["--trajectory", "radial"], "--calibration: got 3, for which Radial has no use"),
        (["--sequence", "spgr"], "--te-eff-ms: got 15 with --sequence spgr, expected fse"),
        (["--reconstruction", "subspace", "--rank", "4"], "--rank: got 4, expected at most 3"),
        (
            ["--shape", "4", "8", "8", "--samples", "3", "--mesh", "planes=2"],
            "expected no planes. --samples 3 mix the 4 planes across a readout; --samples 4 would not.",
        ),
    ],
)
def test_bad_input_is_one_line_and_code_2(tmp_path, capsys, change, message):
    assert main([*SMALL, *change, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_learned_start_is_taken_whole(tmp_path, monkeypatch, capsys):
    """Lines at their echoes, and flips; trains that the run does not play are refused, or its lines taken alone."""
    rng = np.random.default_rng(0)
    points, place = rng.uniform(-0.5, 0.5, (24, 2)).astype(np.float32), rng.permutation(24)
    train, echo, flips = place // 6, place % 6, np.linspace(0.4, 0.9, 6)
    path, trains = tmp_path / "a.npz", {"train": train, "echo": echo, "flips_rad": flips, "esp_s": 5e-3}
    write_design(path, {"points": points, "samples_per_line": 1, "shape": (1, 12, 12), **trains})
    given = ["--init", path, "--echoes", 6, "--te-eff-ms", 15, "--rms-flip-deg", 180]
    start = _lines.asked(monkeypatch, "learn_joint", *given)["starts"][0]
    np.testing.assert_array_equal(start.trajectory.points, points[np.lexsort((echo, train))])
    np.testing.assert_allclose(start.sequence.flips, flips, rtol=1e-6)
    alone = _lines.asked(monkeypatch, "learn_joint", *given, "--ordering", "random")["starts"][0]
    assert np.ptp(alone.sequence.flips) < 1e-6
    capsys.readouterr()
    for flag, value in (("--echoes", 8), ("--esp-ms", 6), ("--sequence", "spgr")):
        wrong = [*given[:2], "--echoes", 6, flag, value] if flag != "--echoes" else [*given[:2], flag, value]
        assert main([str(a) for a in (*wrong, "--rms-flip-deg", 180)]) == 2
        assert f"{flag}: got" in capsys.readouterr().err
