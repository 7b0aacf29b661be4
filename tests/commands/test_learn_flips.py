"""`learn_flips` learns within its limits, leaves what it promises, and answers wrong input with one line."""

import csv
import json

import jax
import numpy as np
import pytest

from acqdesign.base.trees import leaf_names
from acqdesign.commands.options import LimitOptions, SequenceOptions
from acqdesign.export import read_design
from acqdesign.learn_flips import main
from acqdesign.plot import run
from acqdesign.scene import Tissue, tissues
from acqdesign.signal import FSE, SEQUENCES
from acqdesign.signal.starts import STARTS
from acqdesign.signal.trains import PulseTrain

from ._lines import asked

# Adam in place of L-BFGS, whose line search is half of what there is to compile.
ADAM = ["--optimizer", "adam", "--lr", "0.05"]
SMALL = [*ADAM, "--echoes", "4", "--steps", "4", "--no-figures"]
FIGURES = {"flips", "power", "bounds", "echoes", "bound_map", "loss"}


def rms(flips):
    return np.sqrt(np.mean(np.square(flips)))


TISSUES = {"t1rho": ["--t1-rho-ms", "80"], "diffusion": ["--adc-um2-ms", "0.8"]}
ECHOES = {name: ["--echoes", "8"] for name in SEQUENCES if name != "mp2rage"}

# Others take longer to compile, and are made of the same.
LONG = ("molli", "mp2rage", "flair", "mese", "hyperecho", "looklocker", "steam", "diffusion", "sr")
SOME = [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in SEQUENCES]


def bound_of(monkeypatch, name, *more):
    """The problem of a sequence, and its bound."""
    flags = ["--sequence", name, "--starts", "1", *ECHOES.get(name, []), *TISSUES.get(name, []), *more]
    problem = asked(monkeypatch, "learn_flips", *flags)["problem"]
    return problem, float(jax.jit(lambda key: problem.loss(problem.design, key))(jax.random.key(0))[0])


def test_a_tissue_of_ones_own_stands_beside_those_of_the_table(monkeypatch):
    """By name, T1 and T2 [ms], and proton density; the flags of each field, and the Python API, have the same."""
    flags = ["--echoes", "4", "--starts", "1", "--field", "7T", "--tissue", "wm, lesion:1350:110, fat:370:53:0.9"]
    found = asked(monkeypatch, "learn_flips", *flags)["problem"].scene.tissue
    wm = tissues("wm", field="7T")
    assert found.names == ("wm", "lesion", "fat")
    np.testing.assert_allclose(found.t1, [wm.t1[0], 1.35, 0.37], rtol=1e-6)
    np.testing.assert_allclose(found.t2, [wm.t2[0], 0.11, 0.053], rtol=1e-6)
    np.testing.assert_allclose(found.m0, [wm.m0[0], 1.0, 0.9], rtol=1e-6)


@pytest.mark.parametrize("name", SOME)
def test_every_sequence_has_a_bound_to_learn(name, monkeypatch):
    """That of what it is made to measure is finite."""
    assert 0 < bound_of(monkeypatch, name)[1] < 1e6


@pytest.mark.parametrize("name", [name for name, kind in SEQUENCES.items() if issubclass(kind, PulseTrain)])
def test_slices_have_bounds_too(name, monkeypatch):
    problem, value = bound_of(monkeypatch, name, "--time-bandwidth", "2")
    assert 0 < value < 1e6
    assert problem.sequence.pulse is not None


def test_nuisance_and_targets_by_name_and_bounds_for_equal_time(monkeypatch):
    """Unknowns can only raise a bound; equal time multiplies it by the duration."""
    known = bound_of(monkeypatch, "ir", "--nuisance")[1]
    usual = bound_of(monkeypatch, "ir")[1]
    more = bound_of(monkeypatch, "ir", "--nuisance", "m0", "inversion_efficiency")[1]
    assert known < usual < more < 1e3
    assert bound_of(monkeypatch, "ir", "--per-time")[1] == pytest.approx(usual * 8 * 4.0, rel=1e-5)
    both = bound_of(monkeypatch, "mrf", "--objective", "t1,t2,b1")[1]
    assert both > bound_of(monkeypatch, "mrf", "--nuisance", "m0", "b1")[1] > bound_of(monkeypatch, "mrf")[1]


def test_times_of_acquisitions_have_ranges(monkeypatch):
    """TR of every acquisition within its range and mean, TI within its own; waits stay."""
    flags = ["--learn-tr-ms", "500", "6000", "--learn-ti-ms", "30", "3000"]
    problem, _ = bound_of(monkeypatch, "ir", *flags)
    assert {name: leaf.shape for name, leaf in leaf_names(problem.split()[0]).items()} == {
        "sequence.flips": (8,), "sequence.ti": (8,), "sequence.tr": (8,)
    }  # fmt: skip
    moved = jax.tree.map(lambda x: 7.0 + 0 * x, problem.split()[0])
    found = problem.project(moved).sequence
    assert np.mean(found.tr) <= 4.0 + 1e-4
    assert np.max(found.ti) <= 3.0 + 1e-4
    assert np.min(found.tr - found.ti) >= 2e-3 - 1e-4


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("ir --time-bandwidth 2", "--time-bandwidth: got it with ir, expected one of fse, mrf, spgr"),
        ("ir --objective t3", "--objective: got 't3', expected one of t1, t2"),
        ("ir --nuisance t2_prime", "--nuisance: got t2_prime, expected what the tissue has. --t2-prime-ms gives it."),
        ("ir --nuisance flip", "--nuisance: got 'flip', expected one of t1, t2"),
        ("se --learn-ti-ms 10 20", "--learn-ti-ms: got"),
        ("t1rho", "--objective: got t1_rho, expected what the tissue has. --t1-rho-ms gives it."),
        ("diffusion", "--objective: got diffusivity, expected what the tissue has. --adc-um2-ms gives it."),
        ("ir --t1-rho-ms 80 90 100", "--t1-rho-ms: got 3 values, expected one, or 2"),
        ("ir --ti-ms 5000", "--tr-ms: got a wait of less than nothing"),
    ],
)
def test_what_a_sequence_cannot_do_is_refused(flags, words, tmp_path, capsys):
    assert main(["--sequence", *flags.split(), "--out", str(tmp_path / "run")]) == 2
    assert words in capsys.readouterr().err


def test_an_echo_train_is_learned_and_reported(tmp_path):
    out = tmp_path / "run"
    flags = [
        *ADAM,
        "--t1-ms",
        "1000",
        "--t2-ms",
        "100",
        "--echoes",
        "12",
        "--steps",
        "60",
        "--starts",
        "2",
        "--no-early-stop",
    ]
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
    # One table, in the summary and on the page.
    told, page = summary["schedule"], (out / "report.html").read_text()
    assert any("point spread of the train" in text for text in told)
    assert all(text in page for text in told)
    assert told["power, in 180° pulses"]["learned"] == summary["relative_power"]
    assert json.loads((out / "config.json").read_text())["options"]["echoes"] == 12


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


@pytest.mark.parametrize("start", STARTS)
def test_every_start_is_brought_within_the_limits(start):
    given = LimitOptions(
        max_step_deg=30.0, max_flip_deg=150.0, min_flip_deg=20.0, rising=((1, 4),), falling=((20, 32),)
    )
    limits = given.make(FSE.usual_limits(), 32, 10.0)
    train = SequenceOptions().make(Tissue(1.0, 0.1), jax.random.key(0), limits, start)
    assert np.isfinite(train.flips).all()
    if start in ("constant", "pss", "exponential"):
        assert rms(train.flips) == pytest.approx(np.pi / 3, rel=5e-3)
    held = np.degrees(limits.project(train.flips))
    assert held.min() >= 20 - 1e-4
    assert held.max() <= 150 + 1e-4
    assert rms(held) <= 60 * (1 + 1e-6)
    assert np.abs(np.diff(held)).max() <= 30 + 1e-4
    assert np.diff(held[:4]).min() >= -1e-4
    assert np.diff(held[19:]).max() <= 1e-4


@pytest.mark.parametrize(
    ("flags", "spacing"),
    [(["--sequence", "mrf"], 10), (["--sequence", "mrf", "--tr-ms", "7"], 7), ([], 10), (["--esp-ms", "8"], 8)],
)
def test_the_power_of_b1_is_that_over_the_time_between_pulses(flags, spacing, monkeypatch):
    """180° for 0.6 ms is 19.57 µT."""
    small = ["--echoes", "4", "--starts", "1", "--max-flip-deg", "90", "--b1rms-ut", "1"]
    limits = asked(monkeypatch, "learn_flips", *small, *flags)["problem"].constraints[0]
    assert limits.rms == pytest.approx(np.pi / 19.5723 * np.sqrt(spacing / 0.6), rel=1e-4)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sequence", "sse"], "--sequence: got 'sse', expected one of fse, mrf, spgr, bssfp, mprage, se, "),
        (["--tissue", "wm,fat"], "tissue: got 'fat', expected one of gm, wm, csf"),
        (["--tissue", ""], "tissue: got"),
        (["--tissue", "wm,wm:1000:80"], "--tissue: got wm twice, expected different names"),
        (["--tissue", "a:1000"], "--tissue: got a:1000, expected NAME:T1:T2 or NAME:T1:T2:PD, times in ms"),
        (["--tissue", "a:1000:ten"], "--tissue: got a:1000:ten, expected NAME:T1:T2"),
        (["--tissue", "a:1000:nan"], "--tissue: got a:1000:nan, expected NAME:T1:T2"),
        (["--tissue", "a:100:1000"], "--tissue: got T2 = 1 s with T1 = 0.1 s, expected T2 <= 2 T1. Are T1 and T2 exch"),
        (["--t1-ms", "100", "--t2-ms", "300"], "--t2-ms: got T2 = 0.3 s with T1 = 0.1 s, expected T2 <= 2 T1"),
        (["--t1-ms", "1000", "900", "--t2-ms", "100"], "--t2-ms: got 1 values, expected one for each of the 2"),
        (["--tissue", "wm", "--t1-ms", "1000", "--t2-ms", "100"], "--tissue: got"),
        (["--esp-ms", "40"], "--tr-ms: got 1 s, expected at least the train's 32 x esp = 1.28 s"),
        (["--esp-ms", "-1"], "--esp-ms: got -1.0"),
        (["--tr-ms", "0"], "--tr-ms: got 0"),
        (["--t1-ms", "nan", "--t2-ms", "100"], "--t1-ms: got nan"),
        (["--rms-flip-deg", "20", "--min-flip-deg", "30"], "--rms-flip-deg: got 20, expected at least 30"),
        (["--min-flip-deg", "90", "--max-flip-deg", "60"], "--min-flip-deg: got 90.0, expected at most"),
        (["--max-flip-deg", "200"], "--max-flip-deg: got 200.0, expected 0.01 to 180"),
        (["--max-step-deg", "0"], "--max-step-deg: got 0.0"),
        (["--spline", "40"], "--spline: got 40, expected 2 to 32 control points"),
        (
            ["--start", "pss", "--sequence", "mrf"],
            "--start: got 'pss', expected one of constant, sinusoid, random, comb.",
        ),
        (["--rising", "4", "40"], "--rising: got 4 40, expected 1 <= first < last <= 32"),
        (["--symmetric", "--spline", "5"], "--symmetric: got it with --spline"),
        (["--start", "flat"], "--start: got 'flat'"),
        (["--b1", "0"], "--b1: got 0"),
        (["--learn-tr-ms", "5", "20"], "--learn-tr-ms: got"),
        (["--sequence", "mrf", "--learn-tr-ms", "12", "20"], "a range that holds 10 ms"),
        (
            ["--sequence", "mrf", "--te-ms", "12"],
            "--te-ms: got 0.012 s with tr = 0.01 s, expected an echo time within tr. Use te <= 0.01 s.",
        ),
        (
            ["--sequence", "mrf", "--learn-tr-ms", "8", "14", "--te-ms", "9"],
            "--learn-tr-ms: got 8 14, expected at least 9 ms",
        ),
        (["--te-ms", "9"], "--te-ms: got 9 with --sequence fse"),
        (["--ti-ms", "9"], "--ti-ms: got 9.0, for which FSE has no use"),
        (["--objective", "t1", "--term", "bound_t2"], "--objective: got it with --term"),
        (["--ensemble", "worst", "--term", "bound_t2"], "--ensemble: got it with --term"),
        (["--term", "bound_t2=0"], "--term: got bound_t2=0, expected a weight above 0"),
        (["--term", "bound_t2", "bound_t2"], "terms: got bound_t2 twice"),
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


@pytest.mark.parametrize("objective", ["t2", "t1t2"])
def test_bounds_are_told_in_the_unit_of_the_figure(objective, tmp_path, monkeypatch, capsys):
    """Standard deviations in percent for noise of 1 % of M0: the terminal once told their squares."""
    drawn = {}
    plot_bounds = run.plot_bounds
    keep = lambda after, **more: drawn.update(after=after, **more) or plot_bounds(after, **more)  # noqa: E731
    monkeypatch.setattr(run, "plot_bounds", keep)
    flags = ["--steps", "1", "--echoes", "6", "--starts", "1", "--objective", objective, "--out", str(tmp_path)]
    assert main([*flags, *ADAM]) == 0
    said = capsys.readouterr().out
    for n, name in enumerate(drawn["names"]):
        before, after = (f"{np.sqrt(float(drawn[which][n])):.3g}" for which in ("start", "after"))
        quantity = drawn["label"].partition(" [%]")[0]
        assert f"{name}: {quantity} {before} -> {after} % for noise of 1 % of M0" in said
