"""`learn_flips` learns within its limits, leaves what it promises, and answers wrong input with one line."""

import csv
import json

import jax
import numpy as np
import pytest

from acqdesign.commands.flip_options import STARTS, LimitOptions, TrainOptions, flip_limits, start_flips
from acqdesign.export import read_design
from acqdesign.learn_flips import main
from acqdesign.optim import ScheduleLimits, schedule_projection
from acqdesign.signal.fse import fse

# Adam in place of L-BFGS, whose line search is half of what there is to compile.
ADAM = ["--optimizer", "adam", "--lr", "0.05"]
SMALL = [*ADAM, "--echoes", "4", "--steps", "4", "--no-figures"]
FIGURES = {"flips", "power", "bounds", "echoes", "bound_map", "loss"}
T1_T2 = (1.0, 0.1)
POWER = ScheduleLimits(0.0, np.pi, rms=np.pi / 3)


def started(kind, *, seed=0, echoes=32, limits=POWER, **train):
    return start_flips(kind, TrainOptions(echoes=echoes, **train), T1_T2, limits, jax.random.key(seed))


def rms(flips):
    return np.sqrt(np.mean(np.square(flips)))


def test_an_echo_train_is_learned_and_reported(tmp_path):
    out = tmp_path / "run"
    flags = [*ADAM, "--t1-ms", "1000", "--t2-ms", "100", "--echoes", "12", "--steps", "60", "--starts", "2"]
    assert main([*flags, "--out", str(out)]) == 0
    found, summary = read_design(out / "design.npz"), json.loads((out / "summary.json").read_text())
    flips = np.degrees(found["flips_rad"])
    assert flips.shape == found["phases_rad"].shape == (12,)
    assert rms(flips) <= 60 * (1 + 1e-6)
    np.testing.assert_allclose(found["te_s"], 0.01 * np.arange(1, 13), rtol=1e-6)
    assert found["tr_s"] == pytest.approx([1.0])
    assert found["esp_s"] == pytest.approx(0.01)
    assert np.degrees(found["excitation_rad"]) == pytest.approx(90)
    bounds = summary["bounds"]["1000/100 ms"]
    assert summary["gain"] == pytest.approx(bounds["start"] / bounds["learned"])
    assert summary["gain"] > 1.5
    assert summary["final_loss"] == pytest.approx(bounds["learned"], rel=1e-4)
    assert summary["final_loss"] == pytest.approx(min(summary["start_losses"]))
    assert summary["initial_rms_flip_deg"] == pytest.approx(60)
    assert summary["rms_flip_deg"] == pytest.approx(rms(flips), rel=1e-5)
    rows = list(csv.DictReader((out / "history.csv").read_text().splitlines()))
    assert len(rows) == 61
    assert float(rows[-1]["loss"]) == pytest.approx(summary["final_loss"])
    assert {path.stem for path in out.glob("*.png")} == FIGURES
    assert json.loads((out / "config.json").read_text())["options"]["esp_ms"] == 10.0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_the_plain_command_lowers_the_variance_of_t2_2_2_times_at_equal_power(tmp_path, seed):
    """32 echoes 10 ms apart, TR 1 s, RMS flip 60°: over constant flips, whatever the seed."""
    flags = ["--t1-ms", "1000", "--t2-ms", "100", "--seed", str(seed), "--no-figures"]
    assert main([*flags, "--out", str(tmp_path / "run")]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["initial_rms_flip_deg"] == pytest.approx(60)
    assert rms(np.degrees(read_design(tmp_path / "run" / "design.npz")["flips_rad"])) <= 60 * (1 + 1e-6)
    assert summary["gain"] >= 2.2


@pytest.mark.slow
def test_a_fingerprinting_schedule_keeps_its_steps_and_its_scan_time(tmp_path):
    out = tmp_path / "run"
    flags = [*SMALL, "--sequence", "mrf", "--echoes", "16", "--learn-tr-ms", "8", "14", "--lr", "0.01"]
    flags += ["--learn-ti-ms", "10", "60", "--b1", "0.9", "1.1", "--precision", "double", "--starts", "1"]
    flags.remove("--no-figures")
    assert main([*flags, "--out", str(out)]) == 0
    found, summary = read_design(out / "design.npz"), json.loads((out / "summary.json").read_text())
    assert np.abs(np.diff(np.degrees(found["flips_rad"]))).max() <= 1 + 1e-4
    assert found["tr_s"].shape == (16,)
    assert found["tr_s"].mean() <= 0.010 * (1 + 1e-6)
    assert found["tr_s"].min() >= 0.008 * (1 - 1e-6)
    assert np.ptp(found["tr_s"]) > 0
    assert 0.010 <= found["ti_s"] <= 0.060
    assert found["ti_s"] != pytest.approx(0.02)
    assert summary["final_loss"] < summary["initial_loss"]
    assert set(summary["bounds"]) == {"wm", "gm"}
    assert {path.stem for path in out.glob("*.png")} == FIGURES | {"tr"}


@pytest.mark.slow
def test_a_config_repeats_a_run_and_a_resumed_one_ends_as_the_whole(tmp_path):
    """Byte for byte, of several starts on splines, with every option and the seed out of the file."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    flags = ["--spline", "3", "--starts", "2", "--seed", "3", "--start", "random", "--rms-flip-deg", "inf"]
    assert main([*SMALL, *flags, "--out", str(whole)]) == 0
    summary = json.loads((whole / "summary.json").read_text())
    assert len(summary["start_losses"]) == 2
    assert summary["final_loss"] == pytest.approx(min(summary["start_losses"]))
    assert read_design(whole / "design.npz")["flips_rad"].shape == (4,)
    assert not list(whole.glob("*.png"))
    assert main(["--config", str(whole / "config.json"), "--steps", "2", "--out", str(parts)]) == 0
    assert main(["--resume", str(parts), "--steps", "4"]) == 0
    for name in ("design.npz", "history.csv"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()


def test_constant_pss_and_exponential_starts_use_the_power_that_is_allowed():
    """To the steps their level is tried in, and with the echoes they stand for."""
    np.testing.assert_allclose(started("constant"), np.pi / 3)
    esp, (t1, t2) = 0.01, T1_T2
    steady, falling = started("pss"), started("exponential", esp_ms=10.0)
    assert rms(steady) == pytest.approx(np.pi / 3, rel=5e-3)
    assert rms(falling) == pytest.approx(np.pi / 3, rel=5e-3)
    np.testing.assert_allclose(np.diff(fse(steady, esp, np.inf, np.inf))[10:], 0, atol=1e-3)
    echoes = np.asarray(fse(falling, esp, t1, t2))
    np.testing.assert_allclose(echoes[1:] / echoes[:-1], np.exp(-esp / (2 * t2)), rtol=1e-4)


def test_combs_have_strong_pulses_among_weak_ones_of_the_power_that_is_allowed():
    """One every 2 to 6, drawn by the key alone."""
    periods = set()
    for seed in range(12):
        comb = started("comb", seed=seed, echoes=60)
        assert rms(comb) == pytest.approx(np.pi / 3, rel=1e-6)
        strong = np.flatnonzero(comb > np.pi / 3)
        periods |= set(np.diff(strong))
        assert np.ptp(np.diff(strong)) == 0
        np.testing.assert_array_equal(comb, started("comb", seed=seed, echoes=60))
    assert periods == {2, 3, 4, 5, 6}


@pytest.mark.parametrize("kind", STARTS)
def test_every_start_is_brought_within_the_limits(kind):
    given = LimitOptions(
        max_step_deg=30.0, max_flip_deg=150.0, min_flip_deg=20.0, rising=((1, 4),), falling=((20, 32),)
    )
    limits = flip_limits(given, "fse", 32)
    flips = started(kind, limits=limits)
    assert np.isfinite(flips).all()
    held = np.degrees(schedule_projection(limits, 32)(jax.numpy.asarray(flips)))
    assert held.min() >= 20 - 1e-4
    assert held.max() <= 150 + 1e-4
    assert rms(held) <= 60 * (1 + 1e-6)
    assert np.abs(np.diff(held)).max() <= 30 + 1e-4
    assert np.diff(held[:4]).min() >= -1e-4
    assert np.diff(held[19:]).max() <= 1e-4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--sequence", "sse"],
            "--sequence: got 'sse', expected one of fse, mrf, bssfp. Did you mean 'fse'?",
        ),
        (["--tissue", "wm,fat"], "tissue: got 'fat', expected one of gm, wm, csf"),
        (["--tissue", ""], "tissue: got"),
        (
            ["--t1-ms", "100", "--t2-ms", "300"],
            "--t2-ms: got '300 with T1 100 ms', expected at most 2 T1, 200 ms",
        ),
        (
            ["--t1-ms", "1000", "900", "--t2-ms", "100"],
            "--t2-ms: got 1 values, expected one for each of the 2",
        ),
        (["--tissue", "wm", "--t1-ms", "1000", "--t2-ms", "100"], "--tissue: got"),
        (
            ["--esp-ms", "40"],
            "--esp-ms: got '40 with 32 echoes in a TR of 1000 ms', expected at most 31.25 ms",
        ),
        (["--esp-ms", "-1"], "--esp-ms: got -1.0"),
        (["--tr-ms", "0"], "--tr-ms: got 0"),
        (["--t1-ms", "nan", "--t2-ms", "100"], "--t1-ms: got nan"),
        (["--rms-flip-deg", "20", "--min-flip-deg", "30"], "--rms-flip-deg: got 20.0, expected at least 30"),
        (["--min-flip-deg", "90", "--max-flip-deg", "60"], "--min-flip-deg: got 90.0, expected at most"),
        (["--max-flip-deg", "200"], "--max-flip-deg: got 200.0, expected at most 180 degrees"),
        (["--max-step-deg", "0"], "--max-step-deg: got 0.0"),
        (["--spline", "40"], "--spline: got 40, expected 2 to 32 control points"),
        (["--start", "pss", "--sequence", "mrf"], "--start: got pss with --sequence mrf, expected one of"),
        (["--rising", "4", "40"], "--rising: got 4 40, expected 1 <= first < last <= 32"),
        (["--symmetric", "--spline", "5"], "--symmetric: got it with --spline"),
        (["--start", "flat"], "--start: got 'flat'"),
        (["--objective", "m0"], "--objective: got 'm0'"),
        (["--b1", "0"], "--b1: got 0"),
        (["--learn-tr-ms", "5", "20"], "--learn-tr-ms: got"),
        (["--sequence", "mrf", "--learn-tr-ms", "12", "20"], "a range that holds 10 ms"),
        (
            ["--sequence", "mrf", "--te-ms", "12"],
            "--te-ms: got '12 with a TR of 10 ms', expected at most 10 ms",
        ),
        (["--echoes", "1"], "--echoes: got 1"),
    ],
)
def test_wrong_input_ends_with_code_2_and_one_line(tmp_path, capsys, flags, message):
    out = tmp_path / "run"
    assert main([*flags, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("learn_flips: ")
    assert error.count("\n") == 1
    assert message.replace("'", "") in error.replace("'", "")
    assert not out.exists()
