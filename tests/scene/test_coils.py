"""Laws of the simulated coils and fields: unit sum of squares, the array's rotation symmetry, smoothness."""

import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.scene import Scene, b1_map, birdcage_maps

SHAPES = [(1, 48, 48), (8, 9, 10), (5, 1, 7), (1, 1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("coils", [1, 8])
def test_sum_of_squares_is_one(shape, coils):
    maps = birdcage_maps(coils, shape)
    assert maps.shape == (coils, *shape)
    assert maps.dtype == jnp.complex64
    np.testing.assert_allclose(np.sum(np.abs(maps) ** 2, axis=0), 1.0, rtol=1e-6)


@pytest.mark.parametrize("n", [9, 15])
def test_turning_by_one_coil_moves_the_array_onto_itself(n):
    """On odd grids, where the centre is a voxel: coil c + 1 is coil c turned by 90° with its phase."""
    maps = np.asarray(birdcage_maps(4, (1, n, n), dtype=jnp.complex128))[:, 0]
    for c in range(4):
        turned = np.rot90(maps[c], -1, axes=(1, 0))
        np.testing.assert_allclose(turned * 1j, maps[(c + 1) % 4], atol=1e-12)


@pytest.mark.parametrize("shape", [(9, 9, 9), (8, 10, 12)])
def test_voxel_zero_sits_at_half_the_length(shape):
    """At voxel N//2 every coil is equally far."""
    maps = np.asarray(birdcage_maps(6, shape))
    centre = maps[:, shape[0] // 2, shape[1] // 2, shape[2] // 2]
    np.testing.assert_allclose(np.abs(centre), 6**-0.5, rtol=1e-6)


def test_maps_are_smooth_and_differ():
    maps = np.asarray(birdcage_maps(8, (1, 64, 64)))[:, 0]
    n = (np.arange(64) - 32) / 32
    within = np.add.outer(n**2, n**2)[1:] < 1
    assert np.abs(np.diff(maps, axis=1))[:, within].max() < 0.06
    flat = maps.reshape(8, -1)
    overlap = np.abs(flat.conj() @ flat.T)
    norm = np.sqrt(np.diag(overlap))
    assert (overlap / np.outer(norm, norm) - np.eye(8)).max() < 0.9


@pytest.mark.parametrize(
    ("arguments", "name"), [({"n_coils": 0}, "n_coils"), ({"n_coils": 8, "shape": (8, 8)}, "shape")]
)
def test_impossible_arrays_are_refused(arguments, name):
    with pytest.raises(ValueError, match=name):
        birdcage_maps(**{"shape": (4, 4, 4), **arguments})


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_given_maps_keep_their_precision(dtype):
    scene = Scene(jnp.ones((1, 1, 3, 4, 5)), smaps=jnp.ones((2, 3, 4, 5), dtype))
    assert scene.smaps.dtype == dtype


@pytest.mark.parametrize(
    "smaps",
    [
        np.ones((3, 4, 5), complex),
        np.ones((2, 3, 4, 6), complex),
        np.ones((0, 3, 4, 5), complex),
        np.ones((2, 3, 4, 5), np.int32),
        np.full((2, 3, 4, 5), np.nan + 0j),
        [1.0, 2.0],
    ],
    ids=["axes", "shape", "none", "integers", "nan", "list"],
)
@pytest.mark.usefixtures("unchecked_types")
def test_maps_that_do_not_fit_are_refused(smaps):
    with pytest.raises(ValueError, match="smaps: got"):
        Scene(jnp.ones((1, 1, 3, 4, 5)), smaps=smaps)


@pytest.mark.parametrize("shape", [(1, 48, 48), (16, 17, 18)])
def test_transmit_field_peaks_in_the_middle_and_stays_in_range(shape):
    field = np.asarray(b1_map(shape, centre=1.3, edge=0.7))
    assert field.dtype == np.float32
    assert np.unravel_index(field.argmax(), shape) == tuple(n // 2 for n in shape)
    np.testing.assert_allclose([field.min(), field.max()], [0.7, 1.3], rtol=1e-6)
    assert np.abs(np.diff(field, axis=1)).max() < 3 / shape[1]


def test_perfect_transmit_field_is_one():
    np.testing.assert_array_equal(b1_map((4, 5, 6), centre=1.0, edge=1.0), np.ones((4, 5, 6)))


@pytest.mark.parametrize(
    ("options", "name"), [({"centre": 0.0}, "centre"), ({"edge": -1.0}, "edge"), ({"shape": (3, 3)}, "shape")]
)
def test_impossible_fields_are_refused(options, name):
    with pytest.raises(ValueError, match=name):
        b1_map(**{"shape": (3, 3, 3), **options})
