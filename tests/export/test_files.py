"""Other packages' files: each gives back what was written, in its own precision, and refuses what is damaged."""

import struct
import sys

import numpy as np
import pytest
import scipy.io

from acqdesign.export import (
    POSITION_FILES,
    bart,
    mat,
    mrd,
    read_bart,
    read_mat,
    read_mrd,
    read_positions,
    read_sparkling,
    sparkling,
    write_bart,
    write_design,
    write_mat,
    write_mrd,
    write_sparkling,
)
from acqdesign.scene.scanner import system_limits

RNG = np.random.default_rng(7)
DESIGN = {
    "points": RNG.uniform(-0.5, 0.5, (12, 2)).astype(np.float32),
    "shape": np.array([16, 20, 15]),
    "fov_m": np.array([0.192, 0.22, 0.18]),
    "samples_per_line": np.array(32),
    "train": np.repeat(np.arange(3), 4),
    "echo": np.tile(np.arange(4), 3),
    "flips_rad": np.linspace(0.5, 2.5, 4).astype(np.float32),
    "te_s": 5e-3 * np.arange(1, 5),
    "tr_s": np.array([2.0]),
    "esp_s": np.array(5e-3),
}
READOUT = (np.arange(32) - 16) / 32
FORMATS = {
    "bin": (write_sparkling, read_sparkling, 1e-6),
    "cfl": (write_bart, read_bart, 6e-8),
    "mat": (write_mat, read_mat, 0.0),
    "mrd": (write_mrd, read_mrd, 6e-8),
}


@pytest.fixture(params=FORMATS)
def form(request):
    if request.param == "mrd":
        pytest.importorskip("ismrmrd")
    return (request.param, *FORMATS[request.param])


def test_a_design_comes_back_to_the_format_s_precision(form, tmp_path):
    """Positions, readout, matrix and field of view: exact in float32, relative to the format's own unit."""
    ending, write, read, tolerance = form
    path = tmp_path / f"design.{ending}"
    write(path, DESIGN)
    found = read(path)
    np.testing.assert_allclose(found["points"], DESIGN["points"], rtol=0, atol=tolerance)
    np.testing.assert_array_equal(found["shape"], DESIGN["shape"])
    np.testing.assert_allclose(found["fov_m"], DESIGN["fov_m"], rtol=1e-7)
    assert found["learned"].all()
    assert int(found["samples_per_line"]) == 32
    if ending != "mat":
        np.testing.assert_allclose(found["readout"], READOUT, rtol=0, atol=1e-6)
    if ending in ("mat", "mrd"):
        for name in ("train", "echo"):
            np.testing.assert_array_equal(found[name], DESIGN[name])
        for name in ("flips_rad", "te_s", "tr_s", "esp_s"):
            np.testing.assert_allclose(found[name], DESIGN[name], rtol=1e-6)


def test_read_positions_knows_every_format_by_its_ending(form, tmp_path):
    ending, write, _, _ = form
    write(tmp_path / f"design.{ending}", DESIGN)
    found = read_positions(tmp_path / f"design.{ending}")
    np.testing.assert_allclose(found["points"], DESIGN["points"], atol=1e-6)
    write_design(tmp_path / "design.npz", DESIGN)
    np.testing.assert_array_equal(read_positions(tmp_path / "design.npz")["points"], DESIGN["points"])
    assert f".{ending}" in POSITION_FILES
    with pytest.raises(ValueError, match=r"ending: got '.txt', expected one of .npz"):
        read_positions(tmp_path / "design.txt")


def test_equal_designs_give_equal_bytes(form, tmp_path):
    ending, write, _, _ = form
    for name in "ab":
        write(tmp_path / f"{name}.{ending}", DESIGN)
    for a in tmp_path.glob("a.*"):
        assert a.read_bytes() == a.with_stem("b").read_bytes()


def test_a_write_that_fails_leaves_the_old_file(form, tmp_path, monkeypatch):
    ending, write, read, _ = form
    path = tmp_path / f"design.{ending}"
    write(path, DESIGN)
    before = sorted(tmp_path.iterdir())

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("acqdesign.base.files.os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write(path, DESIGN | {"points": DESIGN["points"] / 2})
    assert sorted(tmp_path.iterdir()) == before
    np.testing.assert_allclose(read(path)["points"], DESIGN["points"], atol=1e-6)


def test_a_design_without_lines_says_where_to_get_them(form, tmp_path):
    ending, write, _, _ = form
    if ending == "mat":  # which holds any design, and gives back what it holds
        write(tmp_path / "flips.mat", {"flips_rad": np.ones(3)})
        assert set(read_mat(tmp_path / "flips.mat")) == {"flips_rad"}
        with pytest.raises(ValueError, match="without line positions"):
            read_positions(tmp_path / "flips.mat")
        return
    with pytest.raises(ValueError, match=r"none of points.*learn_joint"):
        write(
            tmp_path / f"design.{ending}",
            {"flips_rad": np.ones(3), "shape": [8, 8, 8], "fov_m": [1.0, 1.0, 1.0]},
        )


@pytest.mark.parametrize("damage", ["truncated", "foreign", "empty"])
def test_damaged_files_are_refused_by_name(form, tmp_path, damage):
    ending, write, read, _ = form
    path = tmp_path / f"design.{ending}"
    write(path, DESIGN)
    data = path.read_bytes()
    path.write_bytes(
        {"truncated": data[: len(data) // 2 - 1], "foreign": b"GIF89a" * 100, "empty": b""}[damage]
    )
    with pytest.raises(ValueError, match="design"):
        read(path)


@pytest.mark.parametrize(("module", "read"), [(sparkling, read_sparkling), (mat, read_mat), (mrd, read_mrd)])
def test_oversized_files_are_refused_before_they_are_read(tmp_path, monkeypatch, module, read):
    (tmp_path / "large").write_bytes(bytes(2048))
    monkeypatch.setattr(module, "MAX_BYTES", 1024)
    with pytest.raises(ValueError, match="2048 bytes"):
        read(tmp_path / "large")


# SPARKLING


def edited(path, index, value):
    """The file with one float32 replaced."""
    data = bytearray(path.read_bytes())
    data[4 * index : 4 * index + 4] = struct.pack("<f", value)
    path.write_bytes(bytes(data))


def test_sparkling_header_stands_where_mri_nufft_expects_it(tmp_path):
    """Version, dimensions, field of view, matrix, oversampling, γ, shots, gradients, echo, maximum, tag, reserve."""
    write_sparkling(tmp_path / "design.bin", DESIGN)
    data = np.fromfile(tmp_path / "design.bin", "<f4")
    step = 1 / 32 / 0.012 / (42.577478518e6 * 1e-5)
    expected = [5, 3, 0.192, 0.22, 0.18, 16, 20, 15, 1, 42.577478518e6, 12, 31, 16 / 31, 1e3 * step, 1.1]
    np.testing.assert_allclose(data[:15], expected, rtol=1e-6)
    assert (data[15:25] == 0).all()
    start = data[25 : 25 + 36].reshape(12, 3)
    np.testing.assert_allclose(start[:, 0], -0.5 / 0.012, rtol=1e-6)
    np.testing.assert_allclose(start[:, 1:], DESIGN["points"] / np.array([0.011, 0.012]), rtol=1e-6)
    gradients = data[25 + 72 :].reshape(12, 31, 3)
    np.testing.assert_allclose(gradients, np.broadcast_to([1, 0, 0], gradients.shape), atol=1e-6)


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (0, 3.0, "version 3 at byte 0, expected version 4.1, 4.2, 5.0, 5.1"),
        (0, np.nan, "version nan at byte 0"),
        (1, 2.0, "2 dimensions at byte 4, expected 3"),
        (3, -1.0, "field of view -1 at byte 12"),
        (6, 20.5, "matrix 20.5 at byte 24"),
        (10, 1e9, "shots 1e[+]09 at byte 40"),
        (10, 13.0, r"for 13 shots of 31 gradients \(bytes 40 and 44\)"),
        (13, np.inf, "largest gradient inf at byte 52"),
        (30, np.nan, "positions that are not finite"),
        (25 + 72 + 1, 0.5, "lines that leave straight ones along x"),
    ],
)
def test_sparkling_fields_out_of_range_are_named_by_byte(tmp_path, index, value, message):
    path = tmp_path / "design.bin"
    write_sparkling(path, DESIGN)
    edited(path, index, value)
    with pytest.raises(ValueError, match=message):
        read_sparkling(path)


def test_sparkling_samples_too_far_apart_say_how_many_are_needed(tmp_path):
    """One sample every 10 µs: the scanner's gradient sets how far apart; the remedy works."""
    coarse = DESIGN | {"samples_per_line": np.array(2), "fov_m": np.array([0.05, 0.05, 0.05])}
    with pytest.raises(ValueError, match=r"samples_per_line.*Learn with --samples (\d+) or more") as caught:
        write_sparkling(tmp_path / "design.bin", coarse, system_limits("generic"))
    enough = int(str(caught.value).split("--samples ")[1].split()[0])
    write_sparkling(tmp_path / "design.bin", coarse | {"samples_per_line": np.array(enough)})
    with pytest.raises(ValueError, match="at least 2 samples"):
        write_sparkling(tmp_path / "design.bin", DESIGN | {"samples_per_line": np.array(1)})


# BART


def test_bart_trajectory_is_in_cycles_per_field_of_view(tmp_path):
    """First dimension the three axes, then samples, then lines, first fastest."""
    write_bart(tmp_path / "design.cfl", DESIGN)
    assert (tmp_path / "design.hdr").read_text().splitlines()[1].split()[:4] == ["3", "32", "12", "1"]
    data = np.fromfile(tmp_path / "design.cfl", "<c8").reshape(12, 32, 3)
    np.testing.assert_allclose(data[0, :, 0].real, 16 * READOUT, rtol=1e-6)
    np.testing.assert_allclose(data[:, 5, 1:].real, DESIGN["points"] * [20, 15], rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# Dimensions\n3 32 11\n", r"\d+ bytes, expected 8448 for the dimensions in design.hdr"),
        ("# Dimensions\n2 32 12\n", r"dimensions \[2, 32, 12\]"),
        ("# Dimensions\n3 32 12 4\n", "dimensions"),
        ("# Dimensions\n3 99999 99999\n", "at most"),
        ("# Dimensions\nthree\n", "no sizes after"),
        ("nothing", "no sizes after"),
        ("# Dimensions\n3 32 12\n", "no matrix"),
        ("# Dimensions\n3 32 12\n# acqdesign shape 0 1 2\n", r"matrix \[0.0, 1.0, 2.0\]"),
    ],
)
def test_bart_headers_that_do_not_fit_are_refused(tmp_path, text, message):
    write_bart(tmp_path / "design.cfl", DESIGN)
    (tmp_path / "design.hdr").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_bart(tmp_path / "design.cfl")


def test_bart_files_of_others_are_read_with_a_shape(tmp_path):
    write_bart(tmp_path / "design.cfl", DESIGN)
    (tmp_path / "design.hdr").write_text("# Dimensions\n3 32 12 1 1 \n")
    found = read_bart(tmp_path / "design.hdr", shape=(16, 20, 15))
    np.testing.assert_allclose(found["points"], DESIGN["points"], atol=6e-8)
    assert "fov_m" not in found
    with pytest.raises(ValueError, match=r"ending in .cfl"):
        write_bart(tmp_path / "design.traj", DESIGN)


def test_bart_headers_are_small_text(tmp_path):
    write_bart(tmp_path / "design.cfl", DESIGN)
    (tmp_path / "design.hdr").write_bytes(b"\xff" * 10)
    with pytest.raises(ValueError, match="byte 0 is no text"):
        read_bart(tmp_path / "design.cfl")
    (tmp_path / "design.hdr").write_bytes(b" " * 10**5)
    with pytest.raises(ValueError, match="100000 bytes"):
        read_bart(tmp_path / "design.cfl")
    assert bart  # the module, whose limits these are


# MATLAB


def test_scipy_reads_the_mat_file_by_itself(tmp_path):
    write_mat(tmp_path / "design.mat", DESIGN)
    held = scipy.io.loadmat(tmp_path / "design.mat")
    np.testing.assert_array_equal(held["points"], DESIGN["points"])
    assert held["points"].dtype == np.float32


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"points": np.array([{"a": 1}], object)}, "points, a cell"),
        ({"points": "text"}, "points, a char"),
        ({"points": np.ones((3, 3))}, r"points: got an array of shape \(3, 3\)"),
        ({"points": np.full((3, 2), np.nan)}, "not finite"),
        ({"points": np.ones((3, 2)), "echo": np.ones(4)}, "echo"),
        ({"points": np.ones((3, 2)), "echo": np.full(3, 0.5)}, "echo"),
        ({"points": np.ones((3, 2)), "esp_s": np.ones(4)}, "esp_s"),
        ({"points": np.ones((3, 2)) * 1j}, "real numbers"),
        ({"other": np.ones(3)}, "without any of a design's arrays"),
    ],
)
def test_mat_files_of_the_wrong_content_are_refused_by_name(tmp_path, content, message):
    scipy.io.savemat(tmp_path / "design.mat", content)
    with pytest.raises(ValueError, match=message):
        read_mat(tmp_path / "design.mat")


def test_mat_files_refuse_unknown_keys(tmp_path):
    with pytest.raises(ValueError, match="the key 'colour'"):
        write_mat(tmp_path / "design.mat", DESIGN | {"colour": 1})


# ISMRM Raw Data


def test_ismrmrd_reads_header_and_trajectory_by_itself(tmp_path):
    """The encoding's matrices, limits and echoes, and a trajectory of three dimensions with each acquisition."""
    ismrmrd = pytest.importorskip("ismrmrd")
    write_mrd(tmp_path / "design.mrd", DESIGN | {"dwell_s": np.array(1e-5)})
    with ismrmrd.Dataset(str(tmp_path / "design.mrd"), "dataset", mode="r") as file:
        header = ismrmrd.xsd.CreateFromDocument(file.read_xml_header())
        assert file.number_of_acquisitions() == 12
        one = file.read_acquisition(5)
        np.testing.assert_allclose(one.traj[:, 1:], np.tile(DESIGN["points"][5], (32, 1)), rtol=1e-6)
        np.testing.assert_allclose(one.traj[:, 0], READOUT, rtol=1e-6)
        assert (one.idx.segment, one.center_sample, one.sample_time_us) == (1, 16, 10)
        assert one.idx.kspace_encode_step_1 == round(float(DESIGN["points"][5, 0]) * 20) + 10
    encoding = header.encoding[0]
    assert encoding.trajectory.value == "other"
    assert encoding.echoTrainLength == 4
    assert (encoding.reconSpace.matrixSize.x, encoding.encodedSpace.matrixSize.x) == (16, 32)
    assert encoding.reconSpace.fieldOfView_mm.y == pytest.approx(220)
    assert encoding.encodingLimits.kspace_encoding_step_2.maximum == 14
    assert header.sequenceParameters.echo_spacing == pytest.approx([5.0])


def test_mrd_files_without_a_trajectory_are_refused(tmp_path):
    ismrmrd = pytest.importorskip("ismrmrd")
    write_mrd(tmp_path / "design.mrd", DESIGN)
    with ismrmrd.Dataset(str(tmp_path / "design.mrd"), "dataset", mode="r+") as file:
        file.append_acquisition(ismrmrd.Acquisition.from_array(np.zeros((1, 32), np.complex64)))
    with pytest.raises(ValueError, match="acquisition 12 with a trajectory of 0 dimensions"):
        read_mrd(tmp_path / "design.mrd")
    with ismrmrd.Dataset(str(tmp_path / "other.mrd"), "dataset", mode="w") as file:
        file.write_xml_header(b"<nothing/>")
    with pytest.raises(ValueError, match=r"other.mrd: \['xml'\] in group dataset"):
        read_mrd(tmp_path / "other.mrd")


def test_without_ismrmrd_the_error_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ismrmrd", None)
    with pytest.raises(ValueError, match=r'pip install "acqdesign\[mrd\]"'):
        write_mrd(tmp_path / "design.mrd", DESIGN)
