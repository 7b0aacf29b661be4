"""Files that other programs write are read: pypulseq's, ismrmrd's and h5py's, MATLAB's own, and the layouts of BART and
mri-nufft, made here from their descriptions."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from acqdesign.base.checks import UsageError
from acqdesign.export import Bart, mat, read_design, read_positions

# Every cell of a small matrix, as any Cartesian scan has them.
SHAPE, FOV = np.array([8, 4, 4]), np.array([0.192, 0.1, 0.08])
CELLS = np.array(list(itertools.product(range(-2, 2), range(-2, 2))))
HALF_OPEN, BETWEEN = (np.arange(8) - 4) / 8, (np.arange(8) - 3.5) / 8


def samples(readout=HALF_OPEN):
    """`(lines, samples, 3)` in cycles per voxel."""
    return np.stack(np.broadcast_arrays(readout, *(c[:, None] / 4 for c in CELLS.T)), -1)


def assert_lines(found, readout, atol, fov=FOV):
    np.testing.assert_allclose(found["points"], CELLS / 4, rtol=0, atol=atol)
    np.testing.assert_allclose(found["readout"], readout, rtol=0, atol=atol)
    np.testing.assert_array_equal(found["shape"], SHAPE)
    np.testing.assert_allclose(found["fov_m"], fov, rtol=1e-6)


# Pulseq, by pypulseq


def pulseq_file(path, flips, version_1_4=False):
    """A spoiled gradient echo, or with flips a train of spin echoes 8 ms apart; k = 0 lies between two samples."""
    pp = pytest.importorskip("pypulseq")
    system = pp.Opts(max_grad=40, grad_unit="mT/m", max_slew=150, slew_unit="T/m/s")
    seq, pause = pp.Sequence(system), pp.make_delay
    make = {"system": system}
    excite = pp.make_block_pulse(
        np.pi / 2 if flips else 0.2, duration=0.4e-3, phase_offset=np.pi / 2, use="excitation", **make
    )
    read = pp.make_trapezoid("x", flat_area=8 / FOV[0], flat_time=0.64e-3, rise_time=0.1e-3, **make)
    adc = pp.make_adc(8, duration=0.64e-3, delay=0.1e-3, **make)
    half = pp.make_trapezoid("x", area=(0.5 if flips else -0.5) * read.area, duration=1e-3, **make)
    step = max(len(flips), 1)
    for n, (y, z) in enumerate(CELLS / FOV[1:]):
        there, back = (
            [pp.make_trapezoid(c, area=sign * k, duration=1e-3, **make) for c, k in (("y", y), ("z", z))]
            for sign in (1, -1)
        )
        if n % step == 0:
            seq.add_block(excite)
            seq.add_block(half, pause(3.5e-3))
        if flips:
            seq.add_block(pp.make_block_pulse(flips[n % step], duration=0.6e-3, use="refocusing", **make))
        seq.add_block(*there, pause(3.28e-3))
        seq.add_block(read, adc, *([] if flips else [pp.make_label("LIN", "SET", n)]))
        seq.add_block(*back, pause(3.28e-3))
        if n % step == step - 1:
            seq.add_block(pause(50e-3))
    seq.set_definition("FOV", list(FOV))
    seq.set_definition("ImgSize", SHAPE.tolist())
    seq.set_definition("Name", "foreign")
    seq.write(str(path), create_signature=True, v141_compat=version_1_4)


@pytest.mark.parametrize("version_1_4", [False, True])
def test_a_gradient_echo_of_pypulseq_is_read(tmp_path, version_1_4):
    pulseq_file(tmp_path / "a.seq", (), version_1_4)
    found = read_design(tmp_path / "a.seq")
    assert_lines(found, BETWEEN, 1e-5)
    assert not {"train", "echo"} & set(found)
    np.testing.assert_allclose(found["flips_rad"], [0.2], rtol=1e-5)
    np.testing.assert_allclose(found["te_s"], [0.2e-3 + 3.5e-3 + 3.28e-3 + 0.42e-3], rtol=1e-5)
    np.testing.assert_allclose(found["tr_s"], [0.4e-3 + 3.5e-3 + 2 * 3.28e-3 + 0.84e-3 + 50e-3], rtol=1e-5)
    np.testing.assert_allclose(found["dwell_s"], 80e-6, rtol=1e-6)


@pytest.mark.parametrize("version_1_4", [False, True])
def test_a_spin_echo_train_of_pypulseq_is_read(tmp_path, version_1_4):
    """Version 1.4 doesn't say what a pulse is for: over 90° refocuses."""
    flips = (3.1, 2.6, 2.1, 1.8)
    pulseq_file(tmp_path / "a.seq", flips, version_1_4)
    found = read_design(tmp_path / "a.seq")
    assert_lines(found, BETWEEN, 1e-5)
    np.testing.assert_array_equal(found["train"], np.repeat(np.arange(4), 4))
    np.testing.assert_array_equal(found["echo"], np.tile(np.arange(4), 4))
    np.testing.assert_allclose(found["flips_rad"], flips, rtol=1e-5)
    np.testing.assert_allclose(found["phases_rad"], 0, atol=1e-6)
    np.testing.assert_allclose(found["excitation_rad"], np.pi / 2, rtol=1e-5)
    np.testing.assert_allclose(found["esp_s"], 8e-3, rtol=1e-5)
    np.testing.assert_allclose(found["te_s"], 8e-3 * np.arange(1, 5), rtol=1e-5)
    np.testing.assert_allclose(found["tr_s"], [0.4e-3 + 3.5e-3 + 4 * 8e-3 - 0.3e-3 + 0.3e-3 + 50e-3], rtol=1e-5)


# ISMRM Raw Data, by ismrmrd and h5py


@pytest.fixture(scope="module")
def raw_data(tmp_path_factory):
    """A scan of two coils as converters write it: a longer noise scan first, and counters of its own."""
    ismrmrd = pytest.importorskip("ismrmrd")
    xsd, path = ismrmrd.xsd, tmp_path_factory.mktemp("mrd") / "scan.h5"
    space = xsd.encodingSpaceType(
        matrixSize=xsd.matrixSizeType(**dict(zip("xyz", SHAPE.tolist(), strict=True))),
        fieldOfView_mm=xsd.fieldOfViewMm(**dict(zip("xyz", (1e3 * FOV).tolist(), strict=True))),
    )
    header = xsd.ismrmrdHeader(
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=123_200_000),
        acquisitionSystemInformation=xsd.acquisitionSystemInformationType(systemVendor="A vendor"),
        encoding=[
            xsd.encodingType(
                encodedSpace=space, reconSpace=space, encodingLimits=xsd.encodingLimitsType(),
                trajectory=xsd.trajectoryType.OTHER,
            )
        ],
    )  # fmt: skip
    rng = np.random.default_rng(3)
    with ismrmrd.Dataset(str(path), "dataset") as file:
        file.write_xml_header(xsd.ToXML(header))
        noise = ismrmrd.Acquisition.from_array(np.ones((2, 32), np.complex64))
        noise.setFlag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
        file.append_acquisition(noise)
        for n, points in enumerate(samples().astype("f4")):
            one = ismrmrd.Acquisition.from_array(rng.normal(size=(2, 8)).astype(np.complex64), points)
            one.idx.user[0], one.idx.repetition, one.scan_counter = 7, 2, n + 1
            file.append_acquisition(one)
    return path


def test_a_scan_of_ismrmrd_is_read(raw_data):
    found = read_design(raw_data)
    assert_lines(found, HALF_OPEN, 1e-7)
    assert set(found) == {"points", "learned", "samples_per_line", "readout", "shape", "fov_m"}


@pytest.mark.parametrize(
    "layout",
    [{}, {"chunks": (5,), "maxshape": (None,)}, {"libver": "latest"}, {"libver": "latest", "chunks": (5,)},
     {"text": "fixed"}],
    ids=["contiguous", "chunks of five", "newest", "newest in chunks", "text of fixed length"],
)  # fmt: skip
def test_layouts_of_other_writers_of_hdf5_are_read(raw_data, tmp_path, layout):
    h5py = pytest.importorskip("h5py")
    how = dict(layout)
    with h5py.File(raw_data) as old, h5py.File(tmp_path / "a.h5", "w", libver=how.pop("libver", None)) as new:
        text, group = old["dataset/xml"][0], new.create_group("dataset")
        kind = "S" if how.pop("text", "") else h5py.special_dtype(vlen=bytes)
        group.create_dataset("xml", data=np.array([text], kind))
        group.create_dataset("data", data=old["dataset/data"][:], **how)
    assert_lines(read_design(tmp_path / "a.h5"), HALF_OPEN, 1e-7)


# MATLAB


MATLAB = Path(scipy.io.__file__).parent / "matlab" / "tests" / "data"
PLATFORMS = ("6.1_SOL2", "6.5.1_GLNX86", "7.1_GLNX86", "7.4_GLNX86")  # of both byte orders, plain and compressed


@pytest.mark.parametrize(
    "name", [f"{kind}_{p}" for kind in ("testdouble", "test3dmatrix", "testminus") for p in PLATFORMS]
    + ["testmulti_7.1_GLNX86", "testmulti_7.4_GLNX86", "testbool_8_WIN64"],
)  # fmt: skip
def test_files_that_matlab_itself_wrote_are_read(name, monkeypatch):
    """Those that SciPy is tested on, of any names; also numbers that are stored smaller than their class."""
    path = MATLAB / f"{name}.mat"
    if not path.exists():
        pytest.skip("SciPy was installed without its tests")
    monkeypatch.setattr(mat, "is_key", lambda name: True)
    found = mat.Mat().read(path)
    assert found.pop("said").startswith("version 5")
    expected = {n: array for n, array in scipy.io.loadmat(path).items() if not n.startswith("_")}
    assert set(found) == set(expected)
    for n, array in expected.items():
        np.testing.assert_array_equal(found[n], array)


@pytest.mark.parametrize("options", [{}, {"do_compression": True}, {"oned_as": "column"}])
def test_what_scipy_saves_is_read(tmp_path, options):
    """Doubles, integers and logicals, vectors as rows or columns, among variables that are no design's."""
    scipy.io.savemat(
        tmp_path / "a.mat",
        {"points": CELLS / 4, "echo": np.arange(16) % 4, "train": np.arange(16) // 4, "learned": CELLS[:, 0] > 0,
         "esp_s": 8e-3, "shape": SHAPE.astype("u1"), "notes": "mine", "other": {"a": [1, 2]}},
        **options,
    )  # fmt: skip
    found = read_positions(tmp_path / "a.mat")
    np.testing.assert_array_equal(found["points"], CELLS / 4)
    np.testing.assert_array_equal(found["echo"], np.arange(16) % 4)
    np.testing.assert_array_equal(found["learned"], CELLS[:, 0] > 0)
    np.testing.assert_array_equal(found["shape"], SHAPE)
    assert found["esp_s"] == np.float32(8e-3)
    assert "notes" not in found


# BART


def test_a_trajectory_of_bart_is_read(tmp_path):
    """Cycles per field of view, first dimension fastest, and a header that says how it was made; the matrix from us."""
    held = (samples() * SHAPE).transpose(2, 1, 0)
    held.astype("<c8").ravel(order="F").tofile(tmp_path / "a.cfl")
    sizes = " ".join(map(str, (*held.shape, *[1] * 13)))
    (tmp_path / "a.hdr").write_text(
        f"# Dimensions\n{sizes} \n# Command\ntraj -x8 -y16 a\n# Files\n >a\n# Creator\nBART v0.9.00\n"
    )
    for name in ("a.cfl", "a.hdr"):
        found = read_design(tmp_path / name, by=Bart(shape=SHAPE.tolist()))
        np.testing.assert_allclose(found["points"], CELLS / 4, atol=1e-7)
        np.testing.assert_allclose(found["readout"], HALF_OPEN, atol=1e-7)
        np.testing.assert_array_equal(found["shape"], SHAPE)
    with pytest.raises(UsageError, match="no matrix"):
        read_design(tmp_path / "a.cfl")


# SPARKLING


@pytest.mark.parametrize(
    ("version", "before", "after"), [(4.1, 0, 0), (4.2, 0, 0), (5.0, 0, 0), (5.1, 0, 0), (5.1, 3, 4), (5.1, 0, 6)]
)
def test_gradients_of_mri_nufft_are_read_without_those_that_lead_in_and_out(tmp_path, version, before, after):
    """Numbers of four and six digits. From 4.2 the time stands in the first reserved place, from 5.1 how many gradients
    are no readout in the next two, and from 5 on the last position of each shot after the first ones."""
    gamma, raster = 42.576e6, 1e-5
    k = samples() * SHAPE / FOV
    gradients = np.diff(k, axis=1) / (gamma * raster)
    ramps = [np.linspace(0.0, 0.03, n)[:, None] * [1.0, 0.3, -0.5] for n in (before, after)]
    lead, out = (np.broadcast_to(ramp, (16, *ramp.shape)) for ramp in ramps)
    played = np.concatenate([lead, gradients, out], 1)
    first = k[:, 0] - gamma * raster * played[:, :before].sum(1)
    last = first + gamma * raster * played.sum(1)
    largest = 1e3 * np.abs(played).max()
    reserved = np.zeros(10)
    if version >= 4.2:
        reserved[0] = 1.7e9
    if version >= 5.1:
        reserved[1:3] = before, after
    head = [version, 3, *FOV, *SHAPE, 5, gamma, 16, played.shape[1], 0.5, largest, 1.1, *reserved]
    parts = [head, first.round(4), *([last.round(4)] if version >= 5 else []), (1e3 * played / largest).round(6)]
    np.concatenate([np.ravel(part) for part in parts]).astype("<f4").tofile(tmp_path / "a.bin")
    assert_lines(read_design(tmp_path / "a.bin"), HALF_OPEN, 2e-5)
