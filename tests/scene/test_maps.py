"""Maps of coils and of the transmit field from files: axes, field of view, phases and units are those of the scene."""

import nibabel
import numpy as np
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.scene import birdcage_maps, load_b1, load_smaps

SHAPE, FOV = (4, 6, 5), (0.16, 0.18, 0.15)
# Axes of the packaged brain, to the head, the back and the left, in a file's right, front and upper [mm].
AFFINE = np.array([[0, 0, -30, 0], [0, -30, 0, 0], [40, 0, 0, 0], [0, 0, 0, 1]], float)


@pytest.fixture(scope="module")
def maps():
    return np.asarray(birdcage_maps(3, SHAPE)).astype(np.complex64)


def cfl(path, array):
    """As BART writes `(x, y, z, coils)`."""
    sizes = [*array.shape, *[1] * (16 - array.ndim)]
    path.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(map(str, sizes)) + "\n")
    array.astype("<c8").ravel(order="F").tofile(path)


def written(path, maps):
    if path.suffix == ".npy":
        np.save(path, maps)
    elif path.suffix == ".cfl":
        cfl(path, np.moveaxis(maps, 0, -1))
    else:
        nibabel.save(nibabel.Nifti1Image(np.moveaxis(maps, 0, -1), AFFINE), path)
    return path


@pytest.mark.parametrize("ending", ["npy", "nii.gz", "nii", "cfl"])
def test_maps_are_those_of_the_file_up_to_one_scale(ending, maps, tmp_path):
    found = load_smaps(written(tmp_path / f"maps.{ending}", 7 * maps), SHAPE, FOV)
    np.testing.assert_allclose(found, maps, atol=1e-6)
    field = np.linspace(0.7, 1.3, 120).reshape(1, *SHAPE).astype(np.float32)
    if ending != "cfl":  # which is complex
        np.testing.assert_allclose(load_b1(written(tmp_path / f"b1.{ending}", field), SHAPE, FOV), field[0], rtol=1e-6)


def test_a_nifti_file_is_turned_and_resampled_to_the_scene(maps, tmp_path):
    """Stored with other axes, and twice as fine."""
    fine = maps.repeat(2, 1).repeat(2, 2).repeat(2, 3)
    turned = np.moveaxis(fine, 0, -1)[::-1].swapaxes(0, 2)  # z, y, x from the head downwards
    affine = np.array([[-15, 0, 0, 0], [0, -15, 0, 0], [0, 0, -20, 0], [0, 0, 0, 1]], float)
    nibabel.save(nibabel.Nifti1Image(turned, affine), tmp_path / "maps.nii")
    np.testing.assert_allclose(load_smaps(tmp_path / "maps.nii", SHAPE, FOV), maps, atol=1e-6)
    # One plane, out of a slab: the middle of it.
    plane = load_smaps(tmp_path / "maps.nii", (1, 6, 5), (0.01, 0.18, 0.15))
    middle = (maps[:, 1:2] + maps[:, 2:3]) / 2
    np.testing.assert_allclose(plane, middle / np.sqrt((np.abs(middle) ** 2).sum(0)).max(), atol=1e-6)


def test_a_field_is_one_where_nothing_was_measured(tmp_path):
    field = np.full(SHAPE, 0.9)
    field[0] = 0
    head = np.ones(SHAPE)
    head[0] = 0
    np.save(tmp_path / "b1.npy", field)
    np.testing.assert_allclose(
        load_b1(tmp_path / "b1.npy", SHAPE, FOV, head), np.where(field == 0, 1, field), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("load", "array", "message"),
    [
        (load_smaps, lambda maps: np.abs(maps), "smaps: got .* real numbers, .* Their phases are lost"),
        (load_smaps, lambda maps: np.moveaxis(maps, 0, -1), "smaps: got .* Is the coil axis the last one"),
        (load_smaps, lambda maps: maps[:, :, :4], r"smaps: got .*\(3, 4, 4, 5\), expected \(maps, 4, 6, 5\)"),
        (load_smaps, lambda maps: 0 * maps, "smaps: got .* nothing but zeros"),
        (load_smaps, lambda maps: maps * np.nan, "smaps: got .* finite"),
        (load_b1, lambda maps: maps[0], "b1: got .* complex"),
        (load_b1, lambda maps: np.abs(maps), "b1: got .* 3 maps"),
        (load_b1, lambda maps: np.full(SHAPE, 90.0), "b1: got .* up to 90, .* Divide by 100"),
        (load_b1, lambda maps: np.full(SHAPE, -0.5), "b1: got .* negative"),
        (
            lambda *given: load_b1(*given, np.ones(SHAPE)),
            lambda maps: np.zeros(SHAPE),
            "b1: got .* 120 voxels of the head",
        ),
    ],
)
def test_maps_that_do_not_fit_are_told_by_what_is_wrong(load, array, message, maps, tmp_path):
    np.save(tmp_path / "maps.npy", array(maps))
    with pytest.raises(UsageError, match=message):
        load(tmp_path / "maps.npy", SHAPE, FOV)


def test_another_field_of_view_another_ending_and_no_file_are_told(maps, tmp_path):
    path = written(tmp_path / "maps.nii", maps)
    with pytest.raises(UsageError, match=r"smaps: got .* 160 x 180 x 150 mm, expected 200 x 180 x 150 mm"):
        load_smaps(path, SHAPE, (0.2, 0.18, 0.15))
    for other in ("maps.mat", "absent.npy"):
        with pytest.raises(UsageError, match=r"smaps: got .*, expected a file that ends in .npy"):
            load_smaps(tmp_path / other, SHAPE, FOV)
    (tmp_path / "cut.npy").write_bytes(written(tmp_path / "m.npy", maps).read_bytes()[:-9])
    with pytest.raises(UsageError, match=r"smaps: got .*cut"):
        load_smaps(tmp_path / "cut.npy", SHAPE, FOV)
