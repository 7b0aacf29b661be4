"""What stands where in other packages' files, and what is wrong with damaged ones, by byte or by name."""

import struct

import numpy as np
import pytest
import scipy.io

from acqdesign.base.checks import UsageError
from acqdesign.export import Bart, Sparkling, mat, mrd, read_design, sparkling, trajectory, with_samples, write_design
from acqdesign.scene.scanner import system_limits

from ._designs import DESIGN, IN_SPACE, READOUT, SPOKES


@pytest.mark.parametrize(("module", "ending"), [(sparkling, "bin"), (mat, "mat"), (mrd, "mrd")])
def test_oversized_files_are_refused_before_they_are_read(tmp_path, monkeypatch, module, ending):
    (tmp_path / f"large.{ending}").write_bytes(bytes(2048))
    monkeypatch.setattr(module, "MAX_BYTES", 1024)
    with pytest.raises(UsageError, match="2048 bytes"):
        read_design(tmp_path / f"large.{ending}")


# Designs as samples


def test_samples_of_a_design_are_those_of_its_lines_or_its_own():
    """Half-open readouts where none is given; two columns go with the axes longer than one, three with all."""
    samples = trajectory(DESIGN)
    assert samples.shape == (12, 32, 3)
    np.testing.assert_allclose(samples[:, :, 0], np.broadcast_to(READOUT, (12, 32)))
    np.testing.assert_array_equal(samples[:, 7, 1:], DESIGN["points"])
    np.testing.assert_array_equal(trajectory(SPOKES), IN_SPACE)
    np.testing.assert_array_equal(trajectory({"coordinates": IN_SPACE}), IN_SPACE)
    turned = trajectory(SPOKES | {"shape": [24, 20, 1]})
    np.testing.assert_array_equal(turned[..., :2], SPOKES["coordinates"])
    assert not turned[..., 2].any()
    with pytest.raises(UsageError, match=r"coordinates: .*3 or 3 columns for an image of shape \[4, 5, 6\]"):
        trajectory(SPOKES | {"shape": [4, 5, 6]})


def test_another_number_of_samples_is_of_lines_alone():
    """A plane gets as many voxels along x, each as thick as it is; readouts with samples of their own get none."""
    found = with_samples(DESIGN | {"readout": READOUT}, 8)
    np.testing.assert_allclose(trajectory(found)[0, :, 0], (np.arange(8) - 4) / 8)
    np.testing.assert_array_equal(found["shape"], DESIGN["shape"])
    plane = with_samples(DESIGN | {"shape": np.array([1, 20, 15])}, 8)
    np.testing.assert_array_equal(plane["shape"], [8, 20, 15])
    np.testing.assert_allclose(plane["fov_m"], DESIGN["fov_m"] * [8, 1, 1])
    with pytest.raises(UsageError, match="samples: got 8 for readouts with samples of their own"):
        with_samples(SPOKES, 8)


# SPARKLING


def edited(path, index, value):
    """The file with one float32 replaced."""
    data = bytearray(path.read_bytes())
    data[4 * index : 4 * index + 4] = struct.pack("<f", value)
    path.write_bytes(bytes(data))


def test_sparkling_header_stands_where_mri_nufft_expects_it(tmp_path):
    """Version, dimensions, field of view, matrix, oversampling, γ, shots, gradients, echo, maximum, tag, reserve."""
    write_design(tmp_path / "design.bin", DESIGN)
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
    write_design(path, DESIGN)
    edited(path, index, value)
    with pytest.raises(UsageError, match=message):
        read_design(path)


def test_sparkling_samples_too_far_apart_say_how_many_are_needed(tmp_path):
    """One sample every 10 µs: the scanner's gradient sets how far apart; the remedy works."""
    coarse = DESIGN | {"samples_per_line": np.array(2), "fov_m": np.array([0.05, 0.05, 0.05])}
    with pytest.raises(UsageError, match=r"samples_per_line.*Learn with --samples (\d+) or more") as caught:
        write_design(tmp_path / "design.bin", coarse, to=Sparkling(system_limits("generic")))
    enough = int(str(caught.value).split("--samples ")[1].split()[0])
    write_design(tmp_path / "design.bin", coarse | {"samples_per_line": np.array(enough)})
    with pytest.raises(UsageError, match="at least 2 samples"):
        write_design(tmp_path / "design.bin", DESIGN | {"samples_per_line": np.array(1)})


# BART


def test_bart_trajectory_is_in_cycles_per_field_of_view(tmp_path):
    """First dimension the three axes, then samples, then lines, first fastest."""
    write_design(tmp_path / "design.cfl", DESIGN)
    assert (tmp_path / "design.hdr").read_text().splitlines()[1].split()[:4] == ["3", "32", "12", "1"]
    data = np.fromfile(tmp_path / "design.cfl", "<c8").reshape(12, 32, 3)
    np.testing.assert_allclose(data[0, :, 0].real, 16 * READOUT, rtol=1e-6)
    np.testing.assert_allclose(data[:, 5, 1:].real, DESIGN["points"] * [20, 15], rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# Dimensions\n3 32 11\n", r"\d+ bytes, expected 8448 for the dimensions in design.hdr"),
        ("# Dimensions\n4 32 9\n", r"dimensions \[4, 32, 9\], of other values than 0 and 1"),
        ("# Dimensions\n3 32 12 4\n", "expected 36864 for the dimensions"),
        ("# Dimensions\n3 32 -12\n", "up to 16 positive ones"),
        ("# Dimensions\n3 99999 99999\n", "at most"),
        ("# Dimensions\nthree\n", "no sizes after"),
        ("nothing", "no sizes after"),
        ("# Dimensions\n3 32 12\n", "no matrix"),
        ("# Dimensions\n3 32 12\n# acqdesign shape 0 1 2\n", r"matrix \[0.0, 1.0, 2.0\]"),
    ],
)
def test_bart_headers_that_do_not_fit_are_refused(tmp_path, text, message):
    write_design(tmp_path / "design.cfl", DESIGN)
    (tmp_path / "design.hdr").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_design(tmp_path / "design.cfl")


def test_bart_files_of_others_are_read_with_a_shape(tmp_path):
    write_design(tmp_path / "design.cfl", DESIGN)
    (tmp_path / "design.hdr").write_text("# Dimensions\n3 32 12 1 1 \n")
    found = read_design(tmp_path / "design.hdr", by=Bart(shape=(16, 20, 15)))
    np.testing.assert_allclose(found["points"], DESIGN["points"], atol=6e-8)
    assert "fov_m" not in found
    with pytest.raises(UsageError, match=r"ending in .cfl"):
        write_design(tmp_path / "design.traj", DESIGN, to=Bart())


def test_bart_headers_are_small_text(tmp_path):
    write_design(tmp_path / "design.cfl", DESIGN)
    (tmp_path / "design.hdr").write_bytes(b"\xff" * 10)
    with pytest.raises(UsageError, match="byte 0 is no text"):
        read_design(tmp_path / "design.cfl")
    (tmp_path / "design.hdr").write_bytes(b" " * 10**5)
    with pytest.raises(UsageError, match="100000 bytes"):
        read_design(tmp_path / "design.cfl")


# MATLAB


def test_scipy_reads_the_mat_file_by_itself(tmp_path):
    """Arrays of one's own part have underscores for dots, which MATLAB's names do not know."""
    write_design(tmp_path / "design.mat", DESIGN)
    held = scipy.io.loadmat(tmp_path / "design.mat")
    np.testing.assert_array_equal(held["points"], DESIGN["points"])
    assert held["points"].dtype == np.float32
    write_design(tmp_path / "spokes.mat", SPOKES)
    held = scipy.io.loadmat(tmp_path / "spokes.mat")
    np.testing.assert_array_equal(held["coordinates"], SPOKES["coordinates"])
    np.testing.assert_array_equal(held["trajectory_angles"], SPOKES["trajectory.angles"][None])


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
    with pytest.raises(UsageError, match=message):
        read_design(tmp_path / "design.mat")


# ISMRM Raw Data


def test_ismrmrd_reads_header_and_trajectory_by_itself(tmp_path):
    """The encoding's matrices, limits and echoes, and a trajectory of three dimensions with each acquisition."""
    ismrmrd = pytest.importorskip("ismrmrd")
    write_design(tmp_path / "design.mrd", DESIGN | {"dwell_s": np.array(1e-5)})
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
    write_design(tmp_path / "design.mrd", DESIGN)
    with ismrmrd.Dataset(str(tmp_path / "design.mrd"), "dataset", mode="r+") as file:
        file.append_acquisition(ismrmrd.Acquisition.from_array(np.zeros((1, 32), np.complex64)))
    with pytest.raises(UsageError, match="acquisition 12 with a trajectory of 0 dimensions"):
        read_design(tmp_path / "design.mrd")
    with ismrmrd.Dataset(str(tmp_path / "other.mrd"), "dataset", mode="w") as file:
        file.write_xml_header(b"<nothing/>")
    with pytest.raises(UsageError, match=r"other.mrd: \['xml'\] in group dataset"):
        read_design(tmp_path / "other.mrd")
