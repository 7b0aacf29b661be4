"""Laws of the loaders: what was written is read; whatever is wrong is a ValueError that names the file."""

import contextlib
import gzip
import io
import os
import struct
import sys
import types
import zipfile

import nibabel
import numpy as np
import pytest

from acqdesign.scene import load_brain, load_image, load_scene, weighted_image
from acqdesign.scene.files import MAX_VOXELS
from acqdesign.scene.loaders import image_fov


@pytest.fixture
def volume(rng):
    return rng.uniform(0.1, 2.0, (5, 6, 7))


def npy_header(shape, descr="<f4"):
    """The header alone of an array that was never written."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def test_brain_is_the_packaged_one():
    np.testing.assert_array_equal(load_image("brain", shape=(5, 6, 5)), load_brain(shape=(5, 6, 5)))
    assert image_fov("brain") == (0.16, 0.192, 0.16)


@pytest.mark.parametrize("dtype", ["f4", "f8", ">f4", "u1", "i2", "?", "f2", "c8", "c16"])
def test_npy_round_trip_up_to_scale(tmp_path, volume, dtype):
    given = (100 * volume).astype(dtype) if "c" not in dtype else (volume * (1 - 2j)).astype(dtype)
    np.save(tmp_path / "a.npy", given)
    got = np.asarray(load_image(str(tmp_path / "a.npy")))
    assert got.dtype == (np.complex64 if given.dtype.kind == "c" else np.float32)
    want = given.astype(np.complex128 if given.dtype.kind == "c" else np.float64)
    np.testing.assert_allclose(got, want / np.abs(want).max(), rtol=1e-6)
    assert image_fov(str(tmp_path / "a.npy")) is None


def test_npy_resampled_keeps_its_sum(tmp_path, volume):
    np.save(tmp_path / "a.npy", volume)
    got = np.asarray(load_image(str(tmp_path / "a.npy"), shape=(3, 4, 9)), np.float64)
    np.testing.assert_allclose(got.mean(), (volume / volume.max()).mean(), rtol=1e-6)


def test_npy_fills_the_grid_asked_for(tmp_path, volume):
    """It knows no voxel size: a field of view beside a shape changes nothing, and none alone can be met."""
    path = str(tmp_path / "a.npy")
    np.save(path, volume)
    np.testing.assert_array_equal(load_image(path, shape=(3, 4, 4), voxel_size=0.05), load_image(path, shape=(3, 4, 4)))
    with pytest.raises(ValueError, match="voxel_size"):
        load_image(path, voxel_size=0.05)


def test_one_plane_of_a_file_is_its_middle(tmp_path):
    """Not its projection; and a file that is a plane stays what it is."""
    volume = np.zeros((9, 8, 8))
    volume[4] = np.arange(1, 65).reshape(8, 8)
    np.save(tmp_path / "a.npy", volume)
    got = np.asarray(load_image(str(tmp_path / "a.npy"), shape=(1, 8, 8)))
    np.testing.assert_allclose(got[0], volume[4] / 64, rtol=1e-6)
    np.save(tmp_path / "b.npy", volume[4:5])
    got = np.asarray(load_image(str(tmp_path / "b.npy"), shape=(1, 4, 4)))
    np.testing.assert_allclose(got[0], volume[4].reshape(4, 2, 4, 2).mean((1, 3)) / 64, rtol=1e-6)


def test_npz_image_and_maps(tmp_path, volume):
    np.savez(tmp_path / "one.npz", anything=volume)
    np.savez(tmp_path / "named.npz", image=volume, voxel=np.ones(3))
    want = volume / volume.max()
    for name in ("one.npz", "named.npz"):
        np.testing.assert_allclose(load_image(str(tmp_path / name)), want, rtol=1e-6)
    maps = np.stack([volume, volume, volume]) / 6.1
    np.savez_compressed(tmp_path / "maps.npz", gm=maps[0], wm=maps[1], csf=maps[2])
    got = load_image(str(tmp_path / "maps.npz"), contrast="maps")
    np.testing.assert_allclose(got, maps, rtol=1e-6)
    np.testing.assert_allclose(
        load_image(str(tmp_path / "maps.npz"), contrast="T2w", field="1.5T"), weighted_image(got, "T2w", "1.5T")
    )
    with pytest.raises(ValueError, match=r"one\.npz.*gm, wm and csf"):
        load_image(str(tmp_path / "one.npz"), contrast="maps")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_nifti_round_trip_in_any_orientation(tmp_path, volume, ending, kind):
    """A head stored in any axis order is one image: x to the head, y to the back, z to the left."""
    spl = volume.astype(np.float32)
    # Columns are the axes of the array: superior 2 mm, posterior 3 mm, left 4 mm.
    affine = np.array([[0, 0, -4.0, 0], [0, -3.0, 0, 0], [2.0, 0, 0, 0], [0, 0, 0, 1]])
    reference = kind(spl, affine)
    for codes in ("SPL", "RAS", "LPI", "ASR"):
        turn = nibabel.orientations.ornt_transform(
            nibabel.orientations.io_orientation(affine), nibabel.orientations.axcodes2ornt(codes)
        )
        path = tmp_path / f"{codes}{ending}"
        nibabel.save(reference.as_reoriented(turn), path)
        np.testing.assert_allclose(load_image(str(path)), spl / spl.max(), rtol=1e-6)
        np.testing.assert_allclose(image_fov(str(path)), [10e-3, 18e-3, 28e-3], rtol=1e-6)
    coarse = load_image(str(tmp_path / f"RAS{ending}"), voxel_size=0.01)
    assert coarse.shape == (1, 2, 3)


def test_nifti_scaling_and_trailing_axes(tmp_path, volume):
    image = nibabel.Nifti1Image((10 * volume).astype(np.int16)[..., None], np.diag([-1.0, -1, 1, 1])[[2, 1, 0, 3]])
    image.header.set_slope_inter(0.5, 3.0)
    nibabel.save(image, tmp_path / "a.nii.gz")
    read = nibabel.load(tmp_path / "a.nii.gz").get_fdata()[..., 0]
    got = np.asarray(load_image(str(tmp_path / "a.nii.gz")))
    np.testing.assert_allclose(np.sort(got.ravel()), np.sort(read.ravel() / read.max()), rtol=1e-6)


BAD_ARRAYS = {
    "two axes": (np.ones((4, 4)), "2 axes"),
    "five axes": (np.ones((1, 4, 4, 4, 2)), "5 axes"),
    "several volumes": (np.ones((1, 4, 4, 3)), r"holds 3 volumes \(1, 4, 4, 3\), expected one: --volume 0 to 2"),
    "empty": (np.ones((0, 4, 4)), "empty"),
    "zeros": (np.zeros((4, 4, 4)), "zeros"),
    "nan": (np.full((4, 4, 4), np.nan), "64 NaN voxels"),
    "complex nan": (np.full((4, 4, 4), complex(1, np.nan)), "64 NaN voxels"),
    "beyond float32": (np.full((4, 4, 4), 1e300), "beyond float32"),
    "text": (np.full((4, 4, 4), "a"), "dtype"),
    "dates": (np.zeros((4, 4, 4), "M8[s]"), "dtype"),
    "objects": (np.full((4, 4, 4), None), "dtype object"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_bad_arrays_are_refused_with_file_and_reason(tmp_path, case, ending):
    array, reason = BAD_ARRAYS[case]
    path = tmp_path / f"bad{ending}"
    np.save(path, array) if ending == ".npy" else np.savez(path, array)
    with pytest.raises(ValueError, match=rf"bad{ending}.*{reason}"):
        load_image(str(path))


@pytest.mark.parametrize("axes", [(4, 4), (4, 4, 4, 1, 3)])
def test_nifti_with_other_axes_is_refused(tmp_path, axes):
    nibabel.save(nibabel.Nifti1Image(np.ones(axes, np.float32), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(ValueError, match=r"a\.nii.*axes"):
        load_image(str(tmp_path / "a.nii"))


def test_nifti_with_nan_is_refused(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.full((3, 3, 3), np.nan), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(ValueError, match=r"a\.nii.*27 NaN voxels"):
        load_image(str(tmp_path / "a.nii"))


@pytest.mark.parametrize("ending", [".npy", ".npz", ".nii", ".nii.gz"])
def test_no_prefix_or_damage_of_a_file_gives_anything_but_a_value_error(tmp_path, volume, rng, ending):
    good = tmp_path / f"good{ending}"
    if ending == ".npy":
        np.save(good, volume)
    elif ending == ".npz":
        np.savez_compressed(good, volume)
    else:
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), good)
    content = good.read_bytes()
    path = tmp_path / f"bad{ending}"
    for length in [0, 1, 5, 11, 100, 300, 347, 351, len(content) // 2, len(content) - 20]:
        path.write_bytes(content[: min(length, len(content) - 20)])
        with pytest.raises(ValueError, match="bad"):
            load_image(str(path))
    for _ in range(100):
        damaged = bytearray(content)
        for place in rng.integers(0, min(len(content), 500), 8):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        # A changed voxel may go unnoticed; anything but a ValueError fails the test.
        with contextlib.suppress(ValueError):
            load_image(str(path))


def test_sizes_are_checked_before_memory_is_taken(tmp_path):
    """Headers that claim a terabyte, and archives that would unpack to one, are refused at once."""
    huge = (10_000, 10_000, 10_000)
    (tmp_path / "a.npy").write_bytes(npy_header(huge))
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", npy_header(huge) + bytes(10**7))
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape(huge)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    with gzip.open(tmp_path / "c.nii.gz", "wb") as file:
        file.write(header.binaryblock + bytes(10**7))
    for name in ("a.npy", "b.npz", "c.nii.gz"):
        reason = "whose image has 10000128 bytes" if name == "b.npz" else r"1e\+12 voxels"
        with pytest.raises(ValueError, match=rf"{name}.*{reason}"):
            load_image(str(tmp_path / name))
    assert MAX_VOXELS < 10**9
    header["vox_offset"] = 1e9
    header.set_data_shape((3, 3, 3))
    (tmp_path / "d.nii").write_bytes(header.binaryblock)
    with pytest.raises(ValueError, match=r"d\.nii"):
        load_image(str(tmp_path / "d.nii"))


def test_an_archive_member_shorter_than_its_header_claims_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("image.npy", npy_header((100, 100, 100)) + bytes(40))
    with pytest.raises(ValueError, match=r"a\.npz, whose image has 168 bytes"):
        load_image(str(tmp_path / "a.npz"))


def test_pickles_are_never_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return (sys.exit, ("the pickle ran",))

    np.save(tmp_path / "a.npy", np.array([[[Trap()]]], object), allow_pickle=True)
    (tmp_path / "b.npy").write_bytes(b"\x80\x04" + struct.pack("<Q", 0) + bytes(50))
    for name in ("a.npy", "b.npy"):
        with pytest.raises(ValueError, match=name):
            load_image(str(tmp_path / name))


def test_bad_maps_are_refused(tmp_path):
    ones = np.ones((3, 3, 3))
    cases = {
        "sum": {"gm": ones, "wm": ones, "csf": ones},
        "negative": {"gm": -ones, "wm": ones, "csf": ones},
        "shapes": {"gm": ones[:1], "wm": ones, "csf": ones},
        "complex": {"gm": ones * 1j, "wm": ones, "csf": ones},
        "zeros": {"gm": 0 * ones, "wm": 0 * ones, "csf": 0 * ones},
        "names": {"grey": ones, "white": ones},
    }
    for name, arrays in cases.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
        with pytest.raises(ValueError, match=name):
            load_image(str(tmp_path / f"{name}.npz"))


@pytest.mark.parametrize("spec", ["brian", "nowhere/image.npy", "image.png", "", "brainweb:3", "brainweb:", "."])
def test_unknown_phantoms_are_refused(spec):
    with pytest.raises(ValueError, match="brainweb"):
        load_image(spec)


def test_a_missing_reader_names_the_extra_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    monkeypatch.setitem(sys.modules, "brainweb_dl", None)
    (tmp_path / "a.nii").write_bytes(b"")
    with pytest.raises(ValueError, match=r"acqdesign\[nifti\]"):
        load_image(str(tmp_path / "a.nii"))
    with pytest.raises(ValueError, match=r"acqdesign\[brainweb\]"):
        load_image("brainweb:4")


@pytest.fixture
def brainweb(monkeypatch):
    """A stand-in for the downloader, whose answer each test sets."""
    module = types.ModuleType("brainweb_dl")
    monkeypatch.setitem(sys.modules, "brainweb_dl", module)
    return module


def test_brainweb_labels_become_maps(brainweb, rng):
    labels = rng.integers(0, 12, (4, 6, 8)).astype(np.uint16)
    # Axes right, anterior, superior at half a millimetre.
    brainweb.get_mri = lambda subject, kind, with_affine: (labels, np.diag([0.5, 0.5, 0.5, 1.0]))
    maps = np.asarray(load_image("brainweb:4", contrast="maps"))
    assert maps.shape == (3, 4, 3, 2)
    np.testing.assert_allclose(image_fov("brainweb:4"), (4e-3, 3e-3, 2e-3))
    for fraction, label in zip(maps, (2, 3, 1), strict=True):
        want = (labels == label).reshape(2, 2, 3, 2, 4, 2).mean((1, 3, 5)).transpose(2, 1, 0)[:, ::-1, ::-1]
        np.testing.assert_array_equal(fraction, want.astype(np.float32))


def test_brainweb_failures_are_explained(brainweb):
    def offline(subject, kind, with_affine):
        raise ConnectionError("no route to host")

    brainweb.get_mri = offline
    with pytest.raises(ValueError, match=r"brainweb:4.*download failed.*no route"):
        load_image("brainweb:4")
    brainweb.get_mri = lambda *a, **k: (np.full((4, 4, 4), 400), np.eye(4))
    with pytest.raises(ValueError, match="labels"):
        load_image("brainweb:0")


def test_phantoms_of_different_fields_of_view_are_shown_in_one(tmp_path):
    """The same voxels at 8 mm and at 12.8 mm are objects of two sizes."""
    blob = np.exp(-((np.indices((20, 24, 20)) - 10) ** 2).sum(0) / 30).astype(np.float32)
    paths = [str(tmp_path / f"{size}.nii") for size in (8.0, 12.8)]
    for path, size in zip(paths, (8.0, 12.8), strict=True):
        nibabel.save(nibabel.Nifti1Image(blob, np.diag([size, size, size, 1.0])), path)
    with pytest.warns(UserWarning, match="different fields of view: all are shown in 256 x 307.2 x 256 mm"):
        scene = load_scene(*paths, shape=(20, 24, 20), tissue_names=None)
    np.testing.assert_allclose(scene.fov, (0.256, 0.3072, 0.256), rtol=1e-6)
    widths = [np.count_nonzero(np.abs(image) > 0.5 * np.abs(image).max()) for image in np.asarray(scene.maps[0])]
    assert widths[1] / widths[0] == pytest.approx(1.6**3, rel=0.25)


def test_a_packed_volume_with_a_wrong_checksum_is_refused(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 6), np.float32), np.eye(4)), tmp_path / "a.nii.gz")
    content = bytearray((tmp_path / "a.nii.gz").read_bytes())
    content[-6] ^= 1
    (tmp_path / "a.nii.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.nii\.gz \(BadGzipFile: CRC check failed"):
        load_image(str(tmp_path / "a.nii.gz"))


SAVED = {
    "a.npy": lambda path, array: np.save(path, array),
    "a.npz": lambda path, array: np.savez(path, image=array),
    "a.nii": lambda path, array: nibabel.save(nibabel.Nifti1Image(array, np.diag([2.0, 3.0, 4.0, 1.0])), path),
    "a.nii.gz": lambda path, array: nibabel.save(nibabel.Nifti1Image(array, np.diag([2.0, 3.0, 4.0, 1.0])), path),
    "a.mgz": lambda path, array: nibabel.save(nibabel.MGHImage(array, np.diag([2.0, 3.0, 4.0, 1.0])), path),
    "a.mgh": lambda path, array: nibabel.save(nibabel.MGHImage(array, np.diag([2.0, 3.0, 4.0, 1.0])), path),
}


@pytest.mark.parametrize("name", SAVED)
def test_one_of_several_volumes_is_read_where_it_is_said(name, tmp_path):
    """Each as a file of its own would be; and said in the line of what was understood."""
    both = np.random.default_rng(0).uniform(1, 2, (4, 5, 6, 2)).astype(np.float32)
    path, alone = tmp_path / name, tmp_path / f"alone.{name}"
    SAVED[name](path, both)
    for volume in (0, 1):
        SAVED[name](alone, both[..., volume])
        np.testing.assert_array_equal(load_image(str(path), volume=volume), load_image(str(alone), volume=0))
        assert image_fov(str(path), volume=volume) == image_fov(str(alone))
    with pytest.raises(ValueError, match=rf"{name}, which holds 2 volumes .* expected one: --volume 0 to 1"):
        load_image(str(path))
    with pytest.raises(ValueError, match=rf"volume: got 2, expected 0 to 1, of the volumes in .*{name}"):
        load_image(str(path), volume=2)


@pytest.mark.parametrize("name", SAVED)
def test_voxels_that_are_nan_are_counted_or_filled(name, tmp_path):
    array = np.random.default_rng(0).uniform(1, 2, (4, 5, 6)).astype(np.float32)
    hollow = np.where(array > 1.5, array, np.nan)
    SAVED[name](tmp_path / name, hollow)
    missing = np.isnan(hollow).sum()
    with pytest.raises(ValueError, match=rf"{name}, which holds {missing} NaN voxels, expected numbers: --fill 0"):
        load_image(str(tmp_path / name))
    SAVED[name](tmp_path / f"b.{name}", np.nan_to_num(hollow))
    np.testing.assert_array_equal(load_image(str(tmp_path / name), fill=0.0), load_image(str(tmp_path / f"b.{name}")))
    SAVED[name](tmp_path / name, np.where(array > 1.5, array, np.inf))
    with pytest.raises(ValueError, match="infinite or beyond float32"):
        load_image(str(tmp_path / name), fill=0.0)


@pytest.mark.parametrize("direction", [np.eye(3), np.array([[0, 0, 1.0], [1, 0, 0], [0, -1, 0]])])
def test_freesurfer_s_volumes_lie_as_nifti_s(direction, tmp_path):
    """With the same affine: the same voxels and field of view."""
    array = np.random.default_rng(0).integers(0, 99, (4, 5, 6)).astype(np.uint8)
    affine = np.eye(4)
    affine[:3, :3] = direction * [1.0, 2.0, 3.0]
    nibabel.save(nibabel.MGHImage(array, affine), tmp_path / "a.mgz")
    nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / "a.nii")
    found, wanted = (load_image(str(tmp_path / name)) for name in ("a.mgz", "a.nii"))
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_allclose(image_fov(str(tmp_path / "a.mgz")), image_fov(str(tmp_path / "a.nii")), rtol=1e-6)
    content = gzip.decompress((tmp_path / "a.mgz").read_bytes())
    for damaged in (content[:200], b"\0" * 300 + content[300:], content[:-150]):
        (tmp_path / "b.mgh").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"b\.mgh"):
            load_image(str(tmp_path / "b.mgh"))


@pytest.mark.parametrize("ending", ["npy", "npz", "nii", "nii.gz", "mgz"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_a_phantom_that_is_no_regular_file_does_not_block(kind, ending, tmp_path):
    path = tmp_path / f"a.{ending}"
    {"pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "folder": os.mkdir}[kind](path)
    with pytest.raises(ValueError, match="which is no file"):
        load_image(str(path))
