"""`learn_flips` learns within its limits, leaves what it promises, and answers wrong input with one line."""

import csv
import json

import jax
import numpy as np
import pytest

from acqdesign.learn_flips import main

SMALL = ["--echoes", "8", "--steps", "3", "--no-figures"]
FIGURES = {"flips", "power", "bounds", "echoes", "bound_map", "loss"}


@pytest.fixture(autouse=True)
def precision():
    """The command sets the precision it is asked for; the other tests keep theirs."""
    yield
    jax.config.update("jax_enable_x64", True)


def design(folder):
    with np.load(folder / "design.npz", allow_pickle=False) as file:
        return dict(file)


def test_an_echo_train_is_learned_and_reported(tmp_path):
    out = tmp_path / "run"
    assert (
        main(["--t1-ms", "1000", "--t2-ms", "100", "--echoes", "16", "--steps", "25", "--out", str(out)]) == 0
    )
    found, summary = design(out), json.loads((out / "summary.json").read_text())
    flips = np.degrees(found["flips_rad"])
    assert flips.shape == (16,)
    assert np.sqrt(np.mean(flips**2)) <= 60 * (1 + 1e-6)
    np.testing.assert_allclose(found["te_s"], 0.01 * np.arange(1, 17), rtol=1e-6)
    assert found["tr_s"] == pytest.approx([1.0])
    assert found["esp_s"] == pytest.approx(0.01)
    assert np.degrees(found["excitation_rad"]) == pytest.approx(90)
    bounds = summary["bounds"]["1000/100 ms"]
    assert summary["gain"] == pytest.approx(bounds["start"] / bounds["learned"])
    assert summary["gain"] > 1.5
    assert summary["final_loss"] == pytest.approx(bounds["learned"], rel=1e-4)
    assert summary["rms_flip_deg"] == pytest.approx(np.sqrt(np.mean(flips**2)), rel=1e-5)
    rows = list(csv.DictReader((out / "history.csv").read_text().splitlines()))
    assert len(rows) == 26
    assert float(rows[-1]["loss"]) == pytest.approx(summary["final_loss"])
    assert {path.stem for path in out.glob("*.png")} == FIGURES
    config = json.loads((out / "config.json").read_text())["options"]
    assert config["esp_ms"] == 10.0


def test_a_fingerprinting_schedule_keeps_its_steps_and_its_scan_time(tmp_path):
    out = tmp_path / "run"
    flags = ["--sequence", "mrf", "--echoes", "40", "--steps", "4", "--learn-tr-ms", "8", "14"]
    flags += ["--learn-ti-ms", "10", "60", "--b1", "0.9", "1.1", "--precision", "double"]
    assert main([*flags, "--out", str(out)]) == 0
    found, summary = design(out), json.loads((out / "summary.json").read_text())
    assert np.abs(np.diff(np.degrees(found["flips_rad"]))).max() <= 1 + 1e-4
    assert found["tr_s"].shape == (40,)
    assert found["tr_s"].mean() <= 0.010 * (1 + 1e-6)
    assert found["tr_s"].min() >= 0.008 * (1 - 1e-6)
    assert np.ptp(found["tr_s"]) > 0
    assert 0.010 <= found["ti_s"] <= 0.060
    assert summary["final_loss"] < summary["initial_loss"]
    assert set(summary["bounds"]) == {"wm", "gm"}
    assert {path.stem for path in out.glob("*.png")} == FIGURES | {"tr"}


@pytest.mark.parametrize("start", ["constant", "sinusoid", "pss", "random"])
def test_every_start_lies_within_the_limits(tmp_path, start):
    out = tmp_path / "run"
    flags = [*SMALL, "--steps", "1", "--start", start, "--max-step-deg", "30", "--max-flip-deg", "150"]
    assert main([*flags, "--out", str(out)]) == 0
    found = np.degrees(design(out)["flips_rad"])
    summary = json.loads((out / "summary.json").read_text())
    assert found.max() <= 150 + 1e-4
    assert summary["initial_rms_flip_deg"] <= 60 * (1 + 1e-6)
    assert summary["initial_largest_step_deg"] <= 30 + 1e-4
    assert summary["largest_step_deg"] <= 30 + 1e-4


def test_splines_from_several_starts_keep_the_best(tmp_path):
    out = tmp_path / "run"
    assert main([*SMALL, "--spline", "5", "--starts", "3", "--out", str(out)]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert len(summary["start_losses"]) == 3
    assert summary["final_loss"] == pytest.approx(min(summary["start_losses"]))
    assert design(out)["flips_rad"].shape == (8,)


def test_equal_seeds_give_equal_bytes_and_a_config_reads_back(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    assert (
        main([*SMALL, "--start", "random", "--seed", "3", "--rms-flip-deg", "inf", "--out", str(first)]) == 0
    )
    assert main(["--config", str(first / "config.json"), "--out", str(second)]) == 0
    assert (first / "design.npz").read_bytes() == (second / "design.npz").read_bytes()


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
        (["--start", "pss", "--sequence", "mrf"], "--start: got"),
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
