"""`python -m acqdesign.export`: a file beside the design in every format, and one line for whatever goes wrong."""

import dataclasses
import os
import warnings

import numpy as np
import pytest

from acqdesign.commands.export import ExportOptions, main
from acqdesign.export import FORMATS, read_design, read_positions, write_design
from acqdesign.export.formats import writes

RNG = np.random.default_rng(3)
JOINT = {
    "points": RNG.uniform(-0.5, 0.5, (6, 2)),
    "shape": (16, 20, 15),
    "fov_m": (0.192, 0.22, 0.18),
    "samples_per_line": 32,
    "train": [0, 0, 0, 1, 1, 1],
    "echo": [0, 1, 2, 0, 1, 2],
    "flips_rad": [2.0, 1.5, 1.0],
    "esp_s": 5e-3,
}
FLIPS = {name: JOINT[name] for name in ("flips_rad", "esp_s")} | {"excitation_rad": np.pi / 2}
BY_NAME = ["--lines", "caipi", "--shape", "16", "20", "15", "--fov-mm", "192", "220", "180"]
LINES = {name: JOINT[name] for name in ("points", "shape", "fov_m", "samples_per_line")}


@pytest.fixture
def run(tmp_path):
    write_design(tmp_path / "design.npz", JOINT)
    return tmp_path


@pytest.mark.parametrize(
    "ending", [name for name, kind in FORMATS.items() if name not in ("npz", "npy") and writes(kind)]
)
def test_every_format_lands_beside_the_design(run, capsys, ending):
    pytest.importorskip({"seq": "pypulseq", "mrd": "ismrmrd"}.get(ending, "numpy"))
    assert main([str(run), "--to", ending]) == 0
    out = capsys.readouterr().out
    assert f"wrote {run / 'design.'}{ending}" in out
    assert (run / "design_timing.png").exists() == (ending == "seq")
    found = read_positions(run / f"design.{ending}")
    np.testing.assert_allclose(found["points"], JOINT["points"], atol=1e-6)
    if ending == "seq":
        assert "2 trains of 3 echoes, 5 ms apart" in out
        assert "nerve stimulation predicted at" in out


def test_lines_without_trains_become_gradient_echoes(tmp_path, capsys):
    pytest.importorskip("pypulseq")
    write_design(tmp_path / "design.npz", LINES)
    times, pulse = ["--te-ms", "4", "--tr-ms", "12"], ["--flip-deg", "20", "--slab-mm", "150"]
    start = ["--dummies", "2", "--no-noise-scan"]
    assert main([str(tmp_path / "design.npz"), "--to", "seq", *times, *pulse, *start]) == 0
    assert "6 lines, TE 4 ms" in capsys.readouterr().out
    found = read_positions(tmp_path / "design.seq")
    np.testing.assert_allclose(found["flips_rad"], np.deg2rad(20), rtol=1e-5)
    np.testing.assert_allclose(found["tr_s"], 0.012, rtol=1e-6)


def test_planes_are_exported_with_samples(tmp_path, capsys):
    write_design(
        tmp_path / "design.npz", {**LINES, "shape": (1, 20, 15), "fov_m": (0.01, 0.22, 0.18), "samples_per_line": 1}
    )
    assert main([str(tmp_path), "--to", "bin"]) == 2
    assert "Learn with --samples" in capsys.readouterr().err
    assert main([str(tmp_path), "--to", "bin", "--samples", "64"]) == 0
    np.testing.assert_array_equal(read_positions(tmp_path / "design.bin")["shape"], [64, 20, 15])


@pytest.mark.parametrize(
    ("arguments", "design", "message"),
    [
        (["--to", "sec"], JOINT, "npz, seq, bin, cfl, mrd, mat, npy, csv, FILE.py:NAME. Did you mean 'seq'?"),
        (["--to", "cfl", "--samples", "0"], JOINT, "--samples: got 0"),
        (["--to", "seq", "--tr-ms", "-1"], JOINT, "--tr-ms: got -1.0"),
        (["--to", "seq", "--system", "prizma"], JOINT, "Did you mean 'prisma'?"),
        (["--to", "cfl"], {"flips_rad": [1.0]}, "Designs of learn_flips have no lines: export with --lines"),
        (["--to", "seq", "--lines", "caipi"], FLIPS, "--lines: got caipi without --shape and --fov-mm"),
        (["--to", "seq", "--lines", "caipy"], FLIPS, "--lines: got caipy, expected a file, a run's folder, or one of"),
        (["--to", "seq", "--acceleration", "2"], FLIPS, "--acceleration: got 2.0, expected it with --lines"),
        (["--to", "seq", *BY_NAME], JOINT, "design: got lines of its own, expected the pulses of a sequence"),
        (
            ["--to", "seq", *BY_NAME],
            {"flips_rad": [1.0]},
            "design: got none of esp_s, excitation_rad, expected the pulses",
        ),
        (["--to", "seq"], JOINT | {"ti_s": 0.9}, "design: got trains of gradient echoes, as of mprage"),
        ([], JOINT, "--to: got nothing, expected a format, or --out with an ending"),
        (["--to", "seq", "mat", "--out", "a.seq"], JOINT, "--out: got a.seq with 2 formats, expected one format"),
        (["--to", "mrd"], {**LINES, "fov_m": None}, "none of fov_m"),
        (["--to", "npz"], JOINT, "--to: got npz, expected another format"),
        (["--to", "bin", "--tr-ms", "9"], JOINT, "--tr-ms: got 9.0, for which bin has no use"),
        (["--to", "csv", "mat", "--tr-ms", "9"], JOINT, "--tr-ms: got 9.0, for which csv or mat has no use"),
        (["--to", "cfl", "--system", "prisma"], JOINT, "--system: got prisma, for which cfl has no use"),
        (
            ["--to", "mat", "--too"],
            JOINT,
            "--too: got an unknown flag, expected one of this command. Did you mean --to?",
        ),
        (["--to", "mine.py:Csv"], JOINT, "--to: got mine.py:Csv, whose file mine.py is not there"),
    ],
)
def test_wrong_use_ends_with_code_2_and_one_line(tmp_path, capsys, arguments, design, message):
    if "mrd" in arguments:
        pytest.importorskip("ismrmrd")
    write_design(tmp_path / "design.npz", design)
    assert main([str(tmp_path), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert error.startswith("export: ")
    assert [p.name for p in tmp_path.iterdir()] == ["design.npz"]


def test_a_folder_without_a_design_is_code_2(tmp_path, capsys):
    assert main([str(tmp_path), "--to", "mat"]) == 2
    assert "without a design.npz" in capsys.readouterr().err


def test_a_design_the_scanner_cannot_play_is_code_2_and_keeps_the_old_file(run, capsys):
    pytest.importorskip("pypulseq")
    (run / "design.seq").write_text("good")
    assert main([str(run), "--to", "seq", "--tr-ms", "10", "--overwrite"]) == 2
    assert "tr_s: got 0.01, expected at least" in capsys.readouterr().err
    assert (run / "design.seq").read_text() == "good"


def test_a_failing_file_system_is_code_4(run, capsys, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    assert main([str(run), "--to", "mat"]) == 4
    assert capsys.readouterr().err == "export: disk full\n"
    assert [p.name for p in run.iterdir()] == ["design.npz"]


def test_stimulation_over_the_limit_is_a_warning_on_standard_error(tmp_path, capsys):
    pytest.importorskip("pypulseq")
    steep = {**JOINT, "fov_m": (0.016, 0.02, 0.015), "esp_s": 3.4e-3, "samples_per_line": 16}
    write_design(tmp_path / "design.npz", steep | {"points": np.full((6, 2), 0.5)})
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main([str(tmp_path), "--to", "seq", "--system", "prisma", "--crusher", "0.3"]) == 0
    error = capsys.readouterr().err
    assert error.startswith("export: warning: Peripheral nerve stimulation is predicted at")
    assert error.count("\n") == 1


def test_flips_alone_go_to_matlab(tmp_path, capsys):
    write_design(tmp_path / "design.npz", {"flips_rad": [1.0, 2.0]})
    assert main([str(tmp_path), "--to", "mat"]) == 0
    assert "wrote" in capsys.readouterr().out
    np.testing.assert_array_equal(read_design(tmp_path / "design.mat")["flips_rad"], np.float32([1, 2]))


def test_files_that_are_there_are_kept_unless_told_otherwise(run, tmp_path, capsys):
    """Of several formats nothing is written where one of them is there."""
    (run / "design.mat").write_text("mine")
    assert main([str(run), "--to", "csv", "mat"]) == 2
    assert f"{run / 'design.mat'}, which is there, expected another file" in capsys.readouterr().err
    assert (run / "design.mat").read_text() == "mine"
    assert not (run / "design.csv").exists()
    assert main([str(run), "--to", "csv", "mat", "--overwrite"]) == 0
    for ending in ("csv", "mat"):
        assert len(read_design(run / f"design.{ending}")["points"]) == 6
    assert main([str(run), "--out", str(tmp_path / "other.csv")]) == 0
    assert (tmp_path / "other.csv").read_bytes() == (run / "design.csv").read_bytes()


@pytest.mark.parametrize("more", [[], ["--acceleration", "2"], ["--calibration", "5"], ["--ordering", "linear"]])
@pytest.mark.parametrize("te", [5, 15])
def test_flips_alone_are_played_with_lines_by_name(tmp_path, capsys, more, te):
    """Each line once; the centre of k-space at the effective echo time; every flag changes the file."""
    write_design(tmp_path / "design.npz", FLIPS)
    found = []
    for arguments in (more, [*more, "--te-eff-ms", str(te)]):
        assert main([str(tmp_path), "--to", "csv", "--overwrite", *BY_NAME, *arguments]) == 0
        found.append((tmp_path / "design.csv").read_text())
    played = read_design(tmp_path / "design.csv")
    centre = np.hypot(*played["points"].T).argmin()
    assert played["echo"][centre] == te / 5 - 1
    count = {"--acceleration": 150}.get(more[0] if more else "", 75)
    assert len(np.unique(played["points"], axis=0)) == len(played["points"])
    assert (len(played["points"]) == count) == ("--calibration" not in more)
    np.testing.assert_allclose(played["flips_rad"], JOINT["flips_rad"], rtol=5e-7)
    assert (found[0] == found[1]) == (te == 15)  # the last echo is the nearest to 80 ms


def test_flips_alone_are_played_with_another_run_s_lines(tmp_path, capsys):
    pytest.importorskip("pypulseq")
    write_design(tmp_path / "design.npz", FLIPS)
    write_design(tmp_path / "lines.npz", LINES | {"points": JOINT["points"][:5]})
    assert main([str(tmp_path), "--to", "seq", "--lines", str(tmp_path / "lines.npz")]) == 0
    assert "2 trains of 3 echoes, 5 ms apart" in capsys.readouterr().out
    found = read_positions(tmp_path / "design.seq")
    np.testing.assert_allclose(np.sort(found["points"], 0), np.sort(JOINT["points"][:5], 0), atol=1e-5)
    np.testing.assert_allclose(found["flips_rad"], JOINT["flips_rad"], rtol=1e-5)


def test_every_flag_changes_the_sequence_or_is_refused(tmp_path, capsys):
    """Of trains, or of single lines; by what is written or by what is said of it."""
    pytest.importorskip("pypulseq")
    (tmp_path / "own.asc").write_text("")
    changes = {
        "samples": 16, "system": "prisma", "dwell_ms": 0.01, "tr_ms": 900, "te_ms": 5, "flip_deg": 20, "dummies": 3,
        "refocusing_ms": 1.5, "excitation_ms": 1.5, "slab_mm": 150, "crusher": 2, "no_noise_scan": None,
        "pns_asc": tmp_path / "own.asc", "pulseq_version": "1.4",
    }  # fmt: skip
    others = {"run_dir", "to", "out", "overwrite", "lines", "shape", "fov_mm", "acceleration", "calibration"}
    others |= {"ordering", "te_eff_ms"}  # see the tests below
    assert set(changes) == {field.name for field in dataclasses.fields(ExportOptions)} - others

    def written(name, *more):
        code = main([str(tmp_path / f"{name}.npz"), "--to", "seq", "--overwrite", *map(str, more)])
        return code, capsys.readouterr().out, code == 0 and (tmp_path / "design.seq").read_bytes()

    write_design(tmp_path / "trains.npz", JOINT)
    write_design(tmp_path / "lines.npz", LINES)
    plain = {name: written(name) for name in ("trains", "lines")}
    for name, value in changes.items():
        design = "lines" if name in ("te_ms", "flip_deg") else "trains"
        flag = "--" + name.replace("_", "-")
        assert written(design, flag, *([] if value is None else [value])) != plain[design], name


OWN = """
import numpy as np
from acqdesign.export import Format

class Csv(Format):
    ending, about = "csv", "positions, a line each"

    def write(self, design, path):
        np.savetxt(path, design["points"], delimiter=",")

    def read(self, path):
        return {"points": np.loadtxt(path, delimiter=",")}

class Late:
    ending = "late"
"""


def test_a_format_of_ones_own_is_written(run, capsys):
    """And what is none is refused by the flag."""
    (run / "mine.py").write_text(OWN)
    assert main([str(run), "--to", f"{run / 'mine.py'}:Csv"]) == 0
    assert f"wrote {run / 'design.csv'}" in capsys.readouterr().out
    np.testing.assert_allclose(np.loadtxt(run / "design.csv", delimiter=","), JOINT["points"], atol=1e-6)
    for name, message in (("Late", "expected a class derived from Format"), ("Cvs", "expected one of Csv, Late")):
        assert main([str(run), "--to", f"{run / 'mine.py'}:{name}"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert error.startswith("export: --to: got")
        assert message in error


def test_the_list_says_what_each_format_keeps_and_loses(capsys):
    """Without a design; and the formats that lose nothing do hold every entry."""
    assert main(["--list"]) == 0
    rows = capsys.readouterr().out.splitlines()
    names = [name for name, kind in FORMATS.items() if writes(kind)]
    assert [row.split(":")[0] for row in rows[::3]] == names
    assert all(len(kind.keeps) > 5 and kind.loses for kind in FORMATS.values() if writes(kind))
    assert [name for name in names if FORMATS[name].loses == "nothing"] == ["npz", "mat"]


def test_help_teaches(capsys):
    """What each format is, what cannot be exported, units, defaults and examples."""
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for words in ("SPARKLING", "learn_flips have no lines", "[ms]", "Exit codes", "--to seq --system prisma"):
        assert words in text
