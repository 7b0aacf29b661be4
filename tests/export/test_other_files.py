"""Raw data, masks and arrays as other programs write them, and what no file of any format may say."""

import itertools
import logging
import os
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from acqdesign.base.checks import UsageError
from acqdesign.export import FORMATS, Bart, Format, Mask, read_design, read_positions, trajectory, write_design
from acqdesign.export.formats import reads, writes

from ._designs import DESIGN

SHAPE, FOV = np.array([8, 6, 4]), np.array([0.192, 0.15, 0.12])
CELLS = np.array(list(itertools.product(range(-3, 3), range(-2, 2))))
READOUT = (np.arange(8) - 4) / 8
LINES = CELLS / SHAPE[1:]


def samples(readout=READOUT, axes=(0, 1, 2)):
    """`(lines, samples, 3)` in cycles/voxel; axis `n` of the design along axis `axes[n]`."""
    out = np.stack(np.broadcast_arrays(readout, *LINES.T[..., None]), -1)
    return out[..., np.argsort(axes)]


def cfl(path, array):
    path.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(map(str, array.shape)) + " \n")
    array.astype("<c8").ravel(order="F").tofile(path.with_suffix(".cfl"))
    return path.with_suffix(".cfl")


# Units, in one place for all


class Own(Format):
    def __init__(self, found):
        self.found = found

    def read(self, path):
        return self.found


UNITS = {
    "radians": (2 * np.pi, r"radians: {} / \(2 \* np.pi\)"),
    "cycles per field of view": (None, r"cycles per field of view: {} / np.array\(\[\d"),
    "1/m": (1 / 0.024, r"1/m: {} \* np.array\(\[0.02"),
    "1/mm": (1 / 0.4, r"1/mm: {} \* 1e3 \* np.array\(\[0.0004"),
}


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("name", ["points", "readout", "coordinates"])
def test_positions_in_another_unit_are_refused_with_the_conversion(unit, name):
    """A format of one's own too, and every axis: the range that came, the unit that it looks like, what to type."""
    factor, message = UNITS[unit]
    shape = np.array([8, 8, 8])
    good = {"points": samples()[:, 0, 1:], "readout": READOUT, "coordinates": samples()}
    one = np.array([1.0]) if factor is None else np.array([factor])
    found = {name: good[name] * (8 if factor is None else one)}
    found |= {"shape": shape, "fov_m": shape * (0.4e-3 if unit == "1/mm" else 0.024)}
    with pytest.raises(UsageError, match=rf"Own.read of x: {name}: got positions from -.*" + message.format(name)):
        read_design("x", by=Own(found))


@pytest.mark.parametrize("ending", ["npz", "mat", "cfl", "mrd"])
def test_every_file_format_s_units_are_checked(ending, tmp_path):
    """Cycles per field of view where cycles per voxel belong, and lengths in mm."""
    path = tmp_path / f"a.{ending}"
    if ending in ("npz", "mat"):
        for name, arrays in (("a", {"points": CELLS}), ("b", {"points": LINES, "fov_m": [192.0, 150.0, 120.0]})):
            save = np.savez if ending == "npz" else lambda path, **held: scipy.io.savemat(path, held)
            save(tmp_path / f"{name}.{ending}", **arrays)
        with pytest.raises(UsageError, match=r"fov_m: .*expected metres.*looks like mm: \(0.192, 0.15, 0.12\)"):
            read_design(tmp_path / f"b.{ending}")
    elif ending == "cfl":
        cfl(path, (samples() * SHAPE * SHAPE).transpose(2, 1, 0))
    else:
        raw_data(path, points=samples() * SHAPE)
    by = Bart(shape=SHAPE.tolist()) if ending == "cfl" else None
    with pytest.raises(
        UsageError, match=rf"{ending.title() if by is None else 'Bart'}.read.*look like cycles per field"
    ):
        read_design(path, by=by)


def test_positions_that_fill_little_are_warned_of():
    """1/mm at voxels of 2 mm reach ±0.25."""
    grid = samples()[:, 0, 1:] / 2
    with pytest.warns(UserWarning, match=r"points reach only ±0.25, ±0.25 of ±0.5 cycles/voxel: .* such as 1/mm"):
        read_design("x", by=Own({"points": grid}))
    read_design("x", by=Own({"points": np.stack([LINES[:, 0], np.zeros(24)], 1)}))  # one plane of many
    read_design("x", by=Own({"points": LINES + 0.1}))  # within a cell


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("ending", ["cfl", "mrd", "bin"])
def test_readouts_along_any_axis_rising_or_falling_are_read(ending, axes, sign, tmp_path):
    """Axes are permuted with shape and field of view, and it is said."""
    shape, fov = SHAPE[np.argsort(axes)], FOV[np.argsort(axes)]
    design = {"coordinates": samples(sign * READOUT, axes), "shape": shape, "fov_m": fov}
    path, said = tmp_path / f"a.{ending}", []
    if ending == "mrd":
        pytest.importorskip("ismrmrd")
    write_design(path, design)
    found = read_design(path, tell=said.append)
    np.testing.assert_allclose(found["readout"], sign * READOUT, atol=2e-6)
    np.testing.assert_allclose(found["points"], LINES, atol=2e-6)
    np.testing.assert_array_equal(found["shape"], SHAPE)
    np.testing.assert_allclose(found["fov_m"], FOV, rtol=1e-6)
    named = "x" if axes[0] == 0 else f"{'xyz'[axes[0]]} (axes {', '.join('xyz'[a] for a in axes)})"
    assert f"readout along {named}" in said[0]
    assert ("from + to -" in said[0]) == (sign < 0)


# ISMRM Raw Data


def raw_data(
    path, points=None, *, recon=True, encoded=(SHAPE, FOV), center=(3, 2), train=None, group="dataset", more=()
):
    """A Cartesian scan by ismrmrd, one line each; with trajectories where there are points."""
    ismrmrd = pytest.importorskip("ismrmrd")
    xsd = ismrmrd.xsd

    def space(shape, fov):
        sizes = {axis: int(n) for axis, n in zip("xyz", shape, strict=True)}
        lengths = {axis: float(1e3 * n) for axis, n in zip("xyz", fov, strict=True)}
        return xsd.encodingSpaceType(
            matrixSize=xsd.matrixSizeType(**sizes), fieldOfView_mm=xsd.fieldOfViewMm(**lengths)
        )

    def encoding():
        limits = [xsd.limitType(minimum=0, maximum=9, center=n) for n in center]
        return xsd.encodingType(
            encodedSpace=space(*encoded), reconSpace=space(SHAPE, FOV) if recon else None,
            trajectory=xsd.trajectoryType.CARTESIAN if points is None else xsd.trajectoryType.OTHER,
            echoTrainLength=train,
            encodingLimits=xsd.encodingLimitsType(kspace_encoding_step_1=limits[0], kspace_encoding_step_2=limits[1]),
        )  # fmt: skip

    header = xsd.ismrmrdHeader(
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=123_200_000),
        encoding=[encoding(), encoding()],
    )
    with ismrmrd.Dataset(str(path), group) as file:
        file.write_xml_header(xsd.ToXML(header))
        count = int(encoded[0][0])
        for n, cell in enumerate(CELLS):
            held = None if points is None else points[n].astype(np.float32)
            one = ismrmrd.Acquisition.from_array(np.ones((2, count if held is None else len(held)), np.complex64), held)
            one.idx.kspace_encode_step_1, one.idx.kspace_encode_step_2 = (int(c) for c in cell + center)
            one.center_sample = count // 2
            one.idx.user[0], one.idx.user[5] = 7, 3
            file.append_acquisition(one)
        for count, space_ref, flag in more:
            one = ismrmrd.Acquisition.from_array(np.ones((2, count), np.complex64))
            one.encoding_space_ref = space_ref
            if flag:
                one.setFlag(getattr(ismrmrd, flag))
            file.append_acquisition(one)
    return path


def assert_lines(found):
    np.testing.assert_allclose(found["points"], LINES, atol=1e-7)
    np.testing.assert_allclose(found["readout"], READOUT, atol=1e-7)
    np.testing.assert_array_equal(found["shape"], SHAPE)
    np.testing.assert_allclose(found["fov_m"], FOV, rtol=1e-6)


def test_lines_of_cartesian_raw_data_are_those_of_its_encoding_steps(tmp_path):
    """About the header's centre; also without reconSpace, in a group of another name, with scans of no image."""
    more = [(32, 0, "ACQ_IS_NOISE_MEASUREMENT"), (4, 0, "ACQ_IS_NAVIGATION_DATA"), (4, 1, None)]
    for name, how in {
        "plain": {},
        "bare": {"recon": False},
        "named": {"group": "measurement_1"},
        "centre": {"center": (5, 4)},
        "others": {"more": more},
    }.items():
        said = []
        assert_lines(read_design(raw_data(tmp_path / f"{name}.h5", **how), tell=said.append))
        assert "positions from encoding steps" in said[0]
    assert "2 noise or calibration scans left out; 1 acquisitions of other encodings left out" in said[0]


def test_encoding_steps_are_in_cycles_per_encoded_field_of_view(tmp_path):
    """Oversampled twice along the readout, and by 4/3 along y: each step is finer, and k-space as large."""
    encoded = (np.array([16, 8, 4]), FOV * [2, 4 / 3, 1])
    found = read_design(raw_data(tmp_path / "a.h5", encoded=encoded))
    np.testing.assert_allclose(found["readout"], (np.arange(16) - 8) / 16, atol=1e-7)
    np.testing.assert_allclose(found["points"], CELLS / [8, 4], atol=1e-7)


def test_counters_of_vendors_are_not_taken_for_trains(tmp_path):
    """Siemens converters keep centre lines in user counters; ours hold trains, as the header says."""
    said = []
    found = read_design(raw_data(tmp_path / "a.h5", samples(), train=4), tell=said.append)
    assert_lines(found)
    assert not {"train", "echo", "flips_rad", "te_s"} & set(found)
    assert "trains of 4 echoes not taken" in said[0]
    write_design(tmp_path / "b.mrd", DESIGN)
    np.testing.assert_array_equal(read_design(tmp_path / "b.mrd")["train"], DESIGN["train"])


def test_packed_datasets_are_read_and_other_faults_named(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = raw_data(tmp_path / "a.h5")
    for name, how in {
        "gzip": {"compression": "gzip", "chunks": (5,)},
        "shuffled": {"compression": "gzip", "shuffle": True, "chunks": (7,)},
        "checked": {"fletcher32": True, "chunks": (24,)},
        "other": {"compression": "lzf", "chunks": (5,)},
    }.items():
        with h5py.File(path) as old, h5py.File(tmp_path / f"{name}.h5", "w") as new:
            group = new.create_group("dataset")
            group.create_dataset("xml", data=old["dataset/xml"][:], dtype=h5py.special_dtype(vlen=bytes))
            group.create_dataset("data", data=old["dataset/data"][:], **how)
        if name == "other":
            with pytest.raises(UsageError, match=r"packed by the HDF5 filter \d+, expected gzip.*h5repack"):
                read_design(tmp_path / f"{name}.h5")
        else:
            assert_lines(read_design(tmp_path / f"{name}.h5"))
    with pytest.raises(UsageError, match="acquisitions of different samples: 1 of 4, 24 of 8"):
        read_design(raw_data(tmp_path / "b.h5", more=[(4, 0, None)]))
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["images"] = np.zeros(3)
    with pytest.raises(UsageError, match=r"groups \['images'\], 0 of them with a header"):
        read_design(tmp_path / "c.h5")
    with h5py.File(path) as old, h5py.File(tmp_path / "d.h5", "w") as new:
        new.create_group("dataset")["xml"] = h5py.SoftLink("/elsewhere")
    with pytest.raises(UsageError, match="xml, a link, expected xml, in the file itself"):
        read_design(tmp_path / "d.h5")


def test_written_raw_data_is_oriented_flagged_and_limited(tmp_path):
    """Directions make a rotation, as mrpro's loader asks; every counter has its limit, first and last are marked."""
    ismrmrd = pytest.importorskip("ismrmrd")
    write_design(tmp_path / "a.mrd", DESIGN)
    with ismrmrd.Dataset(str(tmp_path / "a.mrd"), "dataset", mode="r") as file:
        header = ismrmrd.xsd.CreateFromDocument(file.read_xml_header())
        every = [file.read_acquisition(n) for n in range(file.number_of_acquisitions())]
    for one in every:
        directions = np.array([list(one.read_dir), list(one.phase_dir), list(one.slice_dir)])
        np.testing.assert_array_equal(directions, np.eye(3))
        np.testing.assert_array_equal(list(one.position), np.zeros(3))
        assert one.center_sample == 16
        assert not one.flags & 0b111100  # of FIRST and LAST in ENCODE_STEP2 and AVERAGE: mrpro drops such lines
    for flag, last in (("FIRST_IN_SLICE", False), ("LAST_IN_SLICE", True), ("LAST_IN_MEASUREMENT", True)):
        held = [one.isFlagSet(getattr(ismrmrd, f"ACQ_{flag}")) for one in every]
        assert held == [n == (len(every) - 1 if last else 0) for n in range(len(every))]
    limits = header.encoding[0].encodingLimits
    for name in ("average", "slice", "contrast", "phase", "repetition", "set"):
        assert (getattr(limits, name).maximum, getattr(limits, name).center) == (0, 0)
    assert (limits.kspace_encoding_step_1.maximum, limits.kspace_encoding_step_1.center) == (19, 10)
    assert (limits.kspace_encoding_step_0.maximum, limits.kspace_encoding_step_0.center) == (31, 16)


# BART and masks

MASK = np.zeros((6, 4), bool)
MASK[::2, 1:] = True


@pytest.mark.parametrize("kind", ["bool.npy", "float.npy", "a.txt", "comma.txt", "a.cfl"])
@pytest.mark.parametrize("whole", [False, True])
def test_masks_give_their_lines(kind, whole, tmp_path):
    """Cell `n` of `N` at `(n - N//2)/N`; along x one plane, the mask's own readout, or that of the shape said."""
    if whole and kind.endswith("txt"):
        return
    path, mask = tmp_path / kind, np.broadcast_to(MASK, (8, 6, 4)) if whole else MASK
    if path.suffix == ".npy":
        np.save(path, mask if kind == "bool.npy" else mask.astype("f4"))
    elif path.suffix == ".txt":
        np.savetxt(path, mask, "%d", delimiter="," if kind == "comma.txt" else " ")
    else:
        cfl(path, mask.reshape(-1, 6, 4))
    found = read_positions(path)
    cells = np.argwhere(MASK) - [3, 2]
    np.testing.assert_allclose(found["points"], cells / [6, 4], atol=1e-7)
    np.testing.assert_array_equal(found["shape"], [8 if whole else 1, 6, 4])
    form = Bart if path.suffix == ".cfl" else Mask
    found = read_design(path, by=form(shape=(8, 6, 4)))
    np.testing.assert_allclose(found["readout"], READOUT, atol=1e-7)
    assert trajectory(found).shape == (9, 8, 3)
    with pytest.raises(UsageError, match=r"for the shape \[8, 5, 4\]"):
        read_design(path, by=form(shape=(8, 5, 4)))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((6, 4), 2), "other values than 0 and 1"),
        (np.zeros((6, 4)), "of zeros, expected at least one line"),
        (np.ones((2, 2, 6, 4)), r"shape \(2, 2, 6, 4\), expected a mask"),
        (np.array([[[1, 0]], [[0, 1]]]), "varies along its first axis"),
        (np.full((6, 4), np.nan), "other values than 0 and 1"),
        (np.array(["a"]), "of <U1|for .* of <U1"),
        (np.array([{}], object), "sound .npy header|dtype object"),
    ],
)
def test_what_is_no_mask_is_refused_by_name(array, message, tmp_path):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(UsageError, match=message) as caught:
        read_design(tmp_path / "a.npy")
    assert "a.npy" in str(caught.value)


def test_trajectories_of_bart_need_a_shape_and_say_which(tmp_path):
    """Its own are `(3, samples, lines)` without a word on the matrix, or with lines in later dimensions."""
    path = cfl(tmp_path / "a.cfl", (samples() * SHAPE).transpose(2, 1, 0))
    with pytest.raises(
        UsageError, match=r"no matrix.*Bart\(shape=\(nx, ny, nz\)\); its samples fill about \(8, 6, 4\)"
    ):
        read_design(path)
    found = read_design(path, by=Bart(shape=(8, 6, 4)))
    np.testing.assert_allclose(found["points"], LINES, atol=1e-7)
    path = cfl(tmp_path / "b.cfl", (samples() * SHAPE).transpose(2, 1, 0).reshape((3, 8, 6, 4), order="F"))
    np.testing.assert_allclose(read_design(path, by=Bart(shape=(8, 6, 4)))["points"], LINES, atol=1e-7)


# SPARKLING


def test_gradients_with_prewinders_that_start_at_the_centre_are_read(tmp_path):
    """mri-nufft's `pregrad="prephase"`, `postgrad="slowdown_to_edge"`: lobes of their own for each shot."""
    gamma, raster, k = 42.576e6, 1e-5, samples() * SHAPE / FOV
    before, after = 40, 30
    ramp = np.hanning(before + 2)[1:-1, None] / np.hanning(before + 2).sum()
    lead = ramp * k[:, :1] / (gamma * raster)
    out = np.hanning(after + 2)[1:-1, None] * 1e-3 * np.ones((24, 1, 3))
    played = np.concatenate([lead, np.diff(k, axis=1) / (gamma * raster), out], 1)
    largest = 1e3 * np.abs(played).max()
    reserved = [1.7e9, before, after, *[0.0] * 7]
    head = [5.1, 3, *FOV, *SHAPE, 5, gamma, 24, played.shape[1], 0.5, largest, 1.1, *reserved]
    last = gamma * raster * played.sum(1)
    parts = [head, np.zeros((24, 3)), last.round(4), (1e3 * played / largest).round(6)]
    np.concatenate([np.ravel(part) for part in parts]).astype("<f4").tofile(tmp_path / "a.bin")
    found = read_design(tmp_path / "a.bin")
    np.testing.assert_allclose(found["points"], LINES, atol=5e-5)
    np.testing.assert_allclose(found["readout"], READOUT, atol=5e-5)


# MATLAB


def version_7_3(path, arrays, **how):
    """As MATLAB writes it: HDF5 behind 512 bytes of text, axes in reverse."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=np.asarray(array).T, **how)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + bytes(8) + b"\x00\x02IM")
    return path


@pytest.mark.parametrize(
    "how", [{}, {"chunks": True, "compression": "gzip"}, {"chunks": (1, 1), "compression": "gzip"}]
)
def test_files_of_matlab_7_3_are_read(how, tmp_path):
    arrays = {"points": LINES, "échos": np.ones((3, 3)), "flips_rad": np.ones((4, 1)), "fov_m": FOV[None]}
    said = []
    found = read_design(version_7_3(tmp_path / "a.mat", arrays, **how), tell=said.append)
    np.testing.assert_allclose(found["points"], LINES, atol=1e-7)
    np.testing.assert_array_equal(found["flips_rad"], np.ones(4))
    np.testing.assert_allclose(found["fov_m"], FOV, rtol=1e-6)
    assert "version 7.3; SI units and cycles/voxel; ignored: échos" in said[0]
    with pytest.raises(UsageError, match="real numbers"):
        read_design(version_7_3(tmp_path / "b.mat", {"points": [b"text"]}))


def test_without_h5py_7_3_says_how_to_get_it(tmp_path, monkeypatch):
    path = version_7_3(tmp_path / "a.mat", {"points": LINES})
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UsageError, match=r'no usable installation of h5py.*pip install "acqdesign\[mrd\]"'):
        read_design(path)


def test_one_name_that_is_not_ascii_refuses_nothing(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"points": LINES, "winkel": np.ones(2)})
    data = (tmp_path / "a.mat").read_bytes()
    (tmp_path / "a.mat").write_bytes(data.replace(b"winkel", "wéke".encode() + b"l"))
    np.testing.assert_allclose(read_design(tmp_path / "a.mat")["points"], LINES, atol=1e-7)


@pytest.mark.parametrize("inside", ["zeros", "garbage"])
def test_a_small_matlab_file_takes_little_work(inside, tmp_path):
    """32 KB that unpack to 32 MiB of parts once took 16 s."""
    import struct
    import zlib

    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    body = bytes(2**24) if inside == "zeros" else struct.pack("<II", 1, 0) * 2**21
    one = zlib.compress(struct.pack("<II", 14, len(body)) + body)
    (tmp_path / "a.mat").write_bytes(head + struct.pack("<II", 15, len(one)) + one)
    begun = time.perf_counter()
    with pytest.raises(UsageError, match=r"a\.mat"):
        read_design(tmp_path / "a.mat")
    assert time.perf_counter() - begun < 2


# Whatever the format


@pytest.mark.parametrize("kind", ["device", "pipe", "folder", "nothing"])
@pytest.mark.parametrize(
    "ending", [end for form in FORMATS.values() if reads(form) for end in (form.ending, *form.also)]
)
def test_only_regular_files_are_read(ending, kind, tmp_path):
    """A link to /dev/zero, a pipe, a folder: refused at once."""
    path = tmp_path / f"a.{ending}"
    if ending in ("cfl", "hdr"):
        path.with_suffix(".hdr" if ending == "cfl" else ".cfl").write_text("# Dimensions\n3 8 24 \n")
    if kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        (path / "x").mkdir(parents=True)
    with pytest.raises((UsageError, OSError)):
        read_design(path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"shape": [-8, 6, 4]}, "shape: got -8, expected 1 to 32768"),
        ({"shape": [0, 6, 4]}, "shape: got 0"),
        ({"shape": [8, 6]}, r"shape: got \[8, 6\], expected three numbers"),
        ({"shape": [2**31 - 1, 6, 4]}, "shape: got 2.14748e"),
        ({"fov_m": [0.0, 0.1, 0.1]}, "fov_m: got 0, expected 1e-06"),
        ({"fov_m": [0.1, 0.1]}, r"fov_m: got \[.*\], expected three numbers"),
        ({"samples_per_line": 0}, "samples_per_line: got 0, expected 1 to"),
        ({"samples_per_line": 2**31 - 1}, "samples_per_line: got 2.14748e"),
        ({"echo": np.full(24, -1)}, "echo: got -1"),
        ({"readout": []}, "readout: got nothing"),
        ({"te_s": [-1.0]}, "te_s: got -1, expected 0 to 3600"),
        ({"esp_s": -1.0}, "esp_s: got -1"),
        ({"readout": READOUT, "samples_per_line": 4}, "readout: .*expected 4 positions, as samples_per_line says"),
    ],
)
@pytest.mark.parametrize("ending", ["npz", "mat"])
def test_a_design_that_cannot_be_is_refused_wherever_it_is_read_or_written(ending, wrong, message, tmp_path):
    path = tmp_path / f"a.{ending}"
    design = {"points": LINES, **wrong}
    if not (ending == "mat" and message.startswith("readout: got nothing")):  # which MATLAB has no vector of
        np.savez(path, **design) if ending == "npz" else scipy.io.savemat(path, design)
        with pytest.raises(UsageError, match=message):
            read_design(path)
    with pytest.raises(UsageError, match=f"design: {message}"):
        write_design(tmp_path / f"b.{ending}", design)
    assert not (tmp_path / f"b.{ending}").exists()


def test_more_samples_than_memory_holds_are_refused_before_they_are_made():
    with pytest.raises(UsageError, match="samples_per_line: got 1048576 for 192 lines"):
        trajectory({"points": np.zeros((192, 2)), "samples_per_line": 2**20})


def test_what_was_understood_is_told_in_one_line(tmp_path, caplog):
    """To a callable, else to the logger `acqdesign` at level INFO."""
    write_design(tmp_path / "design.npz", DESIGN)
    said = []
    read_positions(tmp_path, tell=said.append)
    with caplog.at_level(logging.INFO, "acqdesign"):
        read_design(tmp_path)
    assert (
        said
        == [record.getMessage() for record in caplog.records]
        == [
            f"{tmp_path / 'design.npz'}: Npz: SI units and cycles/voxel; matrix 16 x 20 x 15; "
            "field of view 192 x 220 x 180 mm; 12 lines of 32 samples; 3 trains of 4 echoes"
        ]
    )


def test_the_page_s_table_has_every_format_with_what_it_can():
    """`docs/your_files.md`: a row for each format, its endings, and whether it is written."""
    page = (Path(__file__).parents[2] / "docs" / "your_files.md").read_text()
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("| `.")]
    assert all(len(row) == 6 for row in rows)
    told = {tuple(re.findall(r"`\.(\w+)`", row[0])): row[2].strip() != "not written" for row in rows}
    assert told == {(form.ending, *form.also): writes(form) for form in FORMATS.values()}


@pytest.mark.parametrize("system", ["generic", "prisma", "mr750"])
@pytest.mark.parametrize("count", [15, 18, 30, 130])
def test_readouts_that_scanners_do_not_decimate_are_refused(system, count, tmp_path):
    """pypulseq's own divisor; both neighbours are said, and played."""
    pp = pytest.importorskip("pypulseq")
    from acqdesign.export import Pulseq, PulseqOptions, shapes
    from acqdesign.export.plan import make_plan
    from acqdesign.scene.scanner import system_limits

    assert pp.Opts().adc_samples_divisor == shapes.ADC_DIVISOR
    options = PulseqOptions(system=system_limits(system))
    design = {name: DESIGN[name] for name in ("points", "shape", "fov_m")} | {"samples_per_line": np.array(count)}
    low = count // 4 * 4
    with pytest.raises(UsageError, match=rf"samples_per_line: got {count}, .*--samples {low} or {low + 4}"):
        write_design(tmp_path / "a.seq", design, to=Pulseq(options))
    make_plan(design | {"samples_per_line": np.array(low)}, options)
