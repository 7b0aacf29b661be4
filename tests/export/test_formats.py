"""The seam of file formats: what every one of them keeps to, and that a user's own is one small class."""

import csv
import sys

import numpy as np
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.export import FORMATS, POSITION_FILES, Format, read_design, read_positions, write_design
from acqdesign.export.formats import reads, writes
from acqdesign.export.npz import DESIGN_KEYS

from ._designs import DESIGN, IN_SPACE, READOUT, SPOKES

# How closely positions come back [cycles/voxel], and which formats hold the order of echoes and any trajectory.
PRECISION = {"npz": 0.0, "mat": 0.0, "cfl": 6e-8, "mrd": 6e-8, "csv": 1e-7, "bin": 1e-6, "seq": 1e-5}
NEEDS = {"seq": "pypulseq", "mrd": "ismrmrd"}
HOLD_TRAINS, HOLD_READOUTS = {"npz", "mat", "mrd", "seq", "csv"}, {"bin", "cfl", "mrd", "seq"}
HOLD_ANY = {"npz", "mat"}


@pytest.fixture(params=PRECISION)
def ending(request):
    pytest.importorskip(NEEDS.get(request.param, "numpy"))
    return request.param


@pytest.fixture
def file(ending, tmp_path):
    return tmp_path / f"design.{ending}"


def test_every_format_is_held_to_these_laws():
    """But masks, which hold lines of the grid alone (`encoding/test_grid.py`)."""
    assert {name for name, kind in FORMATS.items() if writes(kind)} == {*PRECISION, "npy"}


def test_straight_lines_come_back_to_the_format_s_precision(ending, file):
    """Positions, readout, matrix and field of view from all; flips and times from those that hold trains."""
    write_design(file, DESIGN)
    found = read_positions(file)
    np.testing.assert_allclose(found["points"], DESIGN["points"], rtol=0, atol=PRECISION[ending])
    np.testing.assert_array_equal(found["shape"], DESIGN["shape"])
    np.testing.assert_allclose(found["fov_m"], DESIGN["fov_m"], rtol=1e-7)
    assert found["learned"].all()
    assert int(found["samples_per_line"]) == 32
    if ending in HOLD_READOUTS:
        np.testing.assert_allclose(found["readout"], READOUT, rtol=0, atol=1e-5 if ending == "seq" else 1e-6)
    if ending in HOLD_TRAINS:
        for name in ("train", "echo"):
            np.testing.assert_array_equal(found[name], DESIGN[name])
        for name in ("flips_rad", "te_s", "esp_s", *(["tr_s"] if ending != "seq" else [])):
            np.testing.assert_allclose(found[name], DESIGN[name], rtol=1e-5 if ending == "seq" else 1e-6)


def test_a_design_has_the_same_dtypes_out_of_any_format(ending, file):
    write_design(file, DESIGN)
    for name, array in read_design(file).items():
        assert (array.dtype, array.ndim) == DESIGN_KEYS[name], name


def test_other_trajectories_come_back_or_are_refused_by_name(ending, file):
    """Two formats hold any readouts, three are written but read as lines; one needs lines, one samples by four."""
    if ending in ("seq", "csv"):
        with pytest.raises(
            UsageError, match=r"65 samples, expected a multiple of 4|neither lines nor flips.*bin and cfl take any"
        ):
            write_design(file, SPOKES)
        return
    write_design(file, SPOKES)
    if ending not in HOLD_ANY:
        with pytest.raises(UsageError, match=r"design\.\w+: lines that leave straight ones along z by 0\.\d+"):
            read_design(file)
        return
    found = read_design(file)
    np.testing.assert_array_equal(found["coordinates"], SPOKES["coordinates"])
    np.testing.assert_array_equal(np.squeeze(found["trajectory.angles"]), SPOKES["trajectory.angles"])
    np.testing.assert_array_equal(found["shape"], SPOKES["shape"])
    with pytest.raises(UsageError, match=rf"design\.{ending} without line positions"):
        read_positions(file)


def test_the_folder_of_a_run_is_its_design(tmp_path):
    write_design(tmp_path / "design.npz", DESIGN)
    np.testing.assert_array_equal(read_design(tmp_path)["points"], DESIGN["points"])
    np.testing.assert_array_equal(read_positions(str(tmp_path))["points"], DESIGN["points"])


def test_equal_designs_give_equal_bytes(ending, tmp_path):
    for name in "ab":
        write_design(tmp_path / f"{name}.{ending}", DESIGN)
    for a in tmp_path.glob("a.*"):
        assert a.read_bytes() == a.with_stem("b").read_bytes()


def test_what_is_none_is_left_out_and_what_is_unknown_refused(ending, file):
    write_design(file, DESIGN | {"readout": None, "phases_rad": None})
    before = file.read_bytes()
    for wrong, message in (
        ({"colour": 1}, "the key 'colour', expected keys out of points, learned"),
        ({"points": DESIGN["points"] * np.nan}, "points: got values that are not finite"),
        ({"echo": np.arange(4)}, "echo: got .*one entry for each of 12 lines"),
    ):
        with pytest.raises(UsageError, match=message):
            write_design(file, DESIGN | wrong)
    assert file.read_bytes() == before


def test_a_write_that_fails_leaves_the_old_file(file, monkeypatch):
    write_design(file, DESIGN)
    before = {path.name: path.read_bytes() for path in file.parent.iterdir()}

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("acqdesign.base.files.os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_design(file, DESIGN | {"points": DESIGN["points"] / 2})
    assert {path.name: path.read_bytes() for path in file.parent.iterdir()} == before


def test_a_design_without_lines_is_kept_or_says_where_to_get_them(ending, file):
    flips = {"flips_rad": np.ones(3)}
    if ending in {*HOLD_ANY, "csv"}:
        write_design(file, flips)
        assert set(read_design(file)) == {"flips_rad"}
        with pytest.raises(UsageError, match="without line positions, expected an array named points"):
            read_positions(file)
        return
    with pytest.raises(UsageError, match=r"none of points.*learn_joint"):
        write_design(file, flips)
    assert not file.exists()


@pytest.mark.parametrize("damage", ["truncated", "foreign", "empty"])
def test_damaged_files_are_refused_by_name(file, damage):
    write_design(file, DESIGN)
    data = file.read_bytes()
    half = data[: len(data) // 2 - 1]
    file.write_bytes({"truncated": half, "foreign": b"GIF89a" * 100, "empty": b""}[damage])
    with pytest.raises(UsageError, match=rf"design\.{file.suffix[1:]}"):
        read_design(file)


@pytest.mark.parametrize("ending", NEEDS)
def test_without_its_package_a_format_says_how_to_get_it(ending, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, NEEDS[ending], None)
    extra = {"seq": "pulseq", "mrd": "mrd"}[ending]
    with pytest.raises(UsageError, match=rf'pip install "acqdesign\[{extra}\]"'):
        write_design(tmp_path / f"design.{ending}", DESIGN)


def test_an_unknown_ending_tells_the_known_ones(tmp_path):
    both = r"expected one of \.npz, \.seq, \.bin, \.cfl, \.hdr, \.mrd, \.h5, \.mat, \.npy, \.txt, \.csv"
    for call in (read_design, lambda path: write_design(path, DESIGN)):
        with pytest.raises(UsageError, match=rf"ending: got '\.matt', {both}. Did you mean '\.mat'"):
            call(tmp_path / "design.matt")
    assert set(POSITION_FILES) == {
        f".{end}" for kind in FORMATS.values() if reads(kind) for end in (kind.ending, *kind.also)
    }


# A format of one's own


class Csv(Format):
    """Positions [cycles/voxel], one line each."""

    ending = "csv"

    def __init__(self, digits=9):
        self.digits = digits

    def write(self, design, path):
        np.savetxt(path, design["points"], f"%.{self.digits}g", delimiter=",", header="ky,kz", comments="")
        return f"{len(design['points'])} lines"

    def read(self, path):
        with open(path) as file:
            rows = list(csv.DictReader(file))
        return {"points": [[float(row[name]) for name in ("ky", "kz")] for row in rows]}


def test_a_format_of_one_s_own_is_written_and_read(tmp_path):
    """Its settings are arguments of its constructor, what it says is passed on, any list of numbers is a design."""
    path = tmp_path / "lines.txt"
    assert write_design(path, DESIGN, to=Csv()) == "12 lines"
    assert path.read_text().splitlines()[0] == "ky,kz"
    found = read_design(path, by=Csv())
    np.testing.assert_array_equal(found["points"], DESIGN["points"])
    assert found["points"].dtype == np.float32
    assert found["learned"].all()
    write_design(path, DESIGN, to=Csv(digits=2))
    np.testing.assert_allclose(read_design(path, by=Csv())["points"], DESIGN["points"], atol=6e-3)


def test_a_format_put_among_the_others_is_found_by_its_ending(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"ending: got '\.lines'"):
        write_design(tmp_path / "design.lines", DESIGN)
    monkeypatch.setitem(FORMATS, "lines", type("Lines", (Csv,), {"ending": "lines"}))
    write_design(tmp_path / "design.lines", DESIGN)
    np.testing.assert_array_equal(read_positions(tmp_path / "design.lines")["points"], DESIGN["points"])


def test_what_a_format_cannot_do_is_told(tmp_path, monkeypatch):
    """One that only writes isn't offered for reading, and asked to read it says so; and the other way round."""
    only_writes = type("Only", (Format,), {"ending": "only", "write": lambda self, design, path: None})
    only_reads = type("Only", (Format,), {"ending": "only", "read": lambda self, path: {"points": np.zeros((1, 2))}})
    monkeypatch.setitem(FORMATS, "only", only_writes)
    write_design(tmp_path / "design.only", DESIGN)
    with pytest.raises(UsageError, match=r"ending: got '\.only', expected one of \.npz"):
        read_design(tmp_path / "design.only")
    with pytest.raises(UsageError, match="format: got Only, which is not read, expected a format with a method read"):
        read_design(tmp_path / "design.only", by=only_writes())
    monkeypatch.setitem(FORMATS, "only", only_reads)
    assert len(read_positions(tmp_path / "design.only")["points"]) == 1
    with pytest.raises(UsageError, match=r"ending: got '\.only', expected one of \.npz"):
        write_design(tmp_path / "design.only", DESIGN)
    with pytest.raises(UsageError, match="format: got Only, which is not written"):
        write_design(tmp_path / "design.only", DESIGN, to=only_reads())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "Wrong.read of x: got None, expected a mapping from names of design.npz to arrays"),
        ({}, "Wrong.read of x: got {}, expected a mapping"),
        (DESIGN["points"], r"Wrong.read of x: got an array of shape \(12, 2\)"),
        ({"ky": np.ones(3)}, "Wrong.read of x: got the key 'ky', expected keys out of points"),
        ({"points": DESIGN["points"].T}, r"Wrong.read of x: points: got an array of shape \(2, 12\)"),
        ({"points": DESIGN["points"] * 1j}, "Wrong.read of x: points: got .* expected real numbers"),
        ({"points": "ky kz"}, "Wrong.read of x: points: got .* expected real numbers"),
        ({"points": np.full((2, 2), np.inf)}, "Wrong.read of x: points: got values that are not finite"),
        ({"points": DESIGN["points"], "echo": np.arange(5)}, "Wrong.read of x: echo: .*each of 12 lines"),
        ({"points": DESIGN["points"], "echo": np.full(12, 0.5)}, "Wrong.read of x: echo: .*that int32 holds"),
    ],
)  # fmt: skip
def test_what_a_format_gives_wrongly_is_told_by_its_name(given, message):
    wrong = type("Wrong", (Format,), {"read": lambda self, path: given})
    with pytest.raises(UsageError, match=message):
        read_design("x", by=wrong())


def test_spokes_stand_in_the_files_of_others_where_they_are_looked_for(tmp_path):
    """BART in cycles per field of view; SPARKLING by steps from the first sample, its echo in the middle."""
    write_design(tmp_path / "a.cfl", SPOKES)
    held = np.fromfile(tmp_path / "a.cfl", "<c8").reshape(3, 65, 3)
    np.testing.assert_allclose(held.real, IN_SPACE * SPOKES["shape"], atol=1e-6)
    write_design(tmp_path / "a.bin", SPOKES)
    data = np.fromfile(tmp_path / "a.bin", "<f4")
    np.testing.assert_allclose(data[25 : 25 + 9].reshape(3, 3)[:, 1:], SPOKES["coordinates"][:, 0] * 100, rtol=1e-5)
    assert data[12] == pytest.approx(0.5, abs=1e-6)


def test_the_centre_of_a_spoke_is_where_it_passes_zero(tmp_path):
    """Not where its component along x does, which is zero all along here."""
    ismrmrd = pytest.importorskip("ismrmrd")
    write_design(tmp_path / "a.mrd", SPOKES)
    with ismrmrd.Dataset(str(tmp_path / "a.mrd"), mode="r") as file:
        one = file.read_acquisition(1)
    assert one.center_sample == 32
    np.testing.assert_allclose(one.traj, IN_SPACE[1], atol=1e-7)
