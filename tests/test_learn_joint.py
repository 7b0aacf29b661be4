"""The joint command: its outputs, its comparison and its errors."""

import json

import numpy as np
import pytest

from acqdesign.learn_joint import main

SMALL = "--shape 1 12 12 --lines 24 --echoes 6 --te-eff-ms 15 --steps 2 --calibration 3".split()  # noqa: SIM905


def test_compare_writes_every_output(tmp_path, capsys):
    out = tmp_path / "run"
    assert main([*SMALL, "--compare", "--exchange-every", "1", "--out", str(out)]) == 0
    summary = json.loads((out / "summary.json").read_text())
    for key in (
        "initial_loss",
        "final_loss",
        "nrmse",
        "nrmse_held_out",
        "gap",
        "seconds_per_step",
        "compile_seconds",
    ):
        assert np.isfinite(summary[key])
    assert set(summary["compare"]) == {"none", "flips", "lines", "joint"}
    with np.load(out / "design.npz", allow_pickle=False) as design:
        assert design["points"].shape == (24, 2)
        assert np.abs(design["points"]).max() <= 0.5
        assert sorted(np.bincount(design["echo"])) == [4] * 6
        assert np.sqrt(np.mean(design["flips_rad"] ** 2)) <= np.pi / 4 + 1e-6
    for name in ("trajectory", "reconstruction", "flips", "echoes", "psf", "loss"):
        assert (out / f"{name}.png").stat().st_size > 5000
    assert (out / "learning.gif").stat().st_size > 5000
    assert "held out" in capsys.readouterr().out


@pytest.mark.parametrize(("learn", "fixed"), [("flips", "points"), ("lines", "flips_rad")])
def test_single_sided_designs_hold_the_other_side(tmp_path, learn, fixed):
    for name, steps in (("start", "none"), ("end", learn)):
        assert main([*SMALL, "--learn", steps, "--no-figures", "--out", str(tmp_path / name)]) == 0
    start, end = (np.load(tmp_path / name / "design.npz") for name in ("start", "end"))
    np.testing.assert_array_equal(start[fixed], end[fixed])
    other = "flips_rad" if fixed == "points" else "points"
    assert not np.array_equal(start[other], end[other])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--lines", "25"], "lines: got 25, expected a multiple of the 6 echoes"),
        (["--te-eff-ms", "40"], "te_eff: got 40 ms, expected a time inside the train, 5 to 30 ms"),
        (["--tissue", "gm,wm"], "tissues: got 2, expected 3"),
        (["--tissue", "gm,wm,bone"], "bone"),
        (["--min-flip-deg", "60"], "rms: got 0.785"),
        (["--starts", "2"], "--starts: got 2"),
    ],
)
def test_bad_input_is_one_line_and_code_2(tmp_path, capsys, change, message):
    assert main([*SMALL, *change, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
