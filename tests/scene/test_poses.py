"""Laws of the augmentation: one rigid motion for all maps, random by key alone, exact where a symmetry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.scene import augment, fine_shape, load_brain, random_pose

KEY = jax.random.key(7)


moved_by = jax.jit(augment, static_argnames=("max_rotation", "max_scale", "mirror", "voxel_size"))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.complex64, jnp.complex128])
@pytest.mark.parametrize("shape", [(5, 6, 7), (1, 9, 8), (2, 3, 4, 4, 4)])
def test_shape_and_precision_are_kept(dtype, shape):
    moved = jax.eval_shape(augment, jnp.ones(shape, dtype), KEY)
    assert moved.shape == shape
    assert moved.dtype == dtype


@pytest.mark.parametrize("shape", [(5, 6, 7), (1, 9, 8)])
def test_no_motion_is_the_identity(rng, shape):
    image = jnp.asarray(rng.standard_normal(shape))
    still = moved_by(image, KEY, max_rotation=0.0, max_scale=0.0, mirror=())
    np.testing.assert_allclose(still, image, atol=1e-12)


def test_mirrors_alone_are_mirror_images(rng):
    """Over many keys every combination of mirrors turns up, about equally often, and nothing else."""
    image = rng.standard_normal((4, 5, 3))
    mirrors = {(a, b): np.flip(image, [x for x, yes in ((1, a), (2, b)) if yes]) for a in (0, 1) for b in (0, 1)}
    keys = jax.random.split(KEY, 200)
    one = lambda key: moved_by(jnp.asarray(image), key, max_rotation=0.0, max_scale=0.0, mirror=(1, 2))  # noqa: E731
    moved = jax.jit(jax.vmap(one))(keys)
    counts = [sum(np.allclose(one, mirror, atol=1e-10) for one in np.asarray(moved)) for mirror in mirrors.values()]
    assert sum(counts) == 200
    assert min(counts) > 25


def test_maps_move_as_one_and_stay_fractions():
    maps = load_brain(shape=(20, 24, 20), contrast="maps")
    moved = moved_by(maps, KEY)
    np.testing.assert_allclose(moved_by(maps[1], KEY), moved[1], atol=1e-6)
    np.testing.assert_allclose(moved.sum(0), moved_by(maps.sum(0), KEY), atol=1e-6)
    assert float(moved.min()) >= 0
    assert float(moved.sum(0).max()) <= 1 + 1e-5
    assert float(jnp.abs(moved - maps).max()) > 0.1


def test_scale_changes_volume_within_its_range():
    x = np.linspace(-1, 1, 41)
    ball = jnp.asarray((np.add.outer(np.add.outer(x**2, x**2), x**2) < 0.4).astype(np.float64))
    keys = jax.random.split(KEY, 20)
    one = lambda key: moved_by(ball, key, max_rotation=0.0, max_scale=0.2, mirror=()).sum()  # noqa: E731
    factors = np.cbrt(np.array([one(key) for key in keys]) / ball.sum())
    assert factors.min() > 0.79
    assert factors.max() < 1.21
    assert np.ptp(factors) > 0.2


def test_a_plane_turns_within_itself():
    plane = load_brain(shape=(1, 48, 48))
    moved = moved_by(plane, KEY, max_scale=0.0)
    np.testing.assert_allclose(moved.sum(), plane.sum(), rtol=0.01)
    assert float(jnp.abs(moved - plane).max()) > 0.1


def test_same_key_same_motion():
    image = load_brain(shape=(12, 14, 12))
    once = moved_by(image, KEY)
    np.testing.assert_array_equal(moved_by(image, KEY), once)
    assert float(jnp.abs(moved_by(image, jax.random.key(8)) - once).max()) > 0.01


def test_gradient_reaches_the_image():
    """The motion is linear: its gradient is its adjoint."""
    image = jnp.asarray(np.random.default_rng(0).standard_normal((5, 6, 7)))
    probe = jnp.asarray(np.random.default_rng(1).standard_normal((5, 6, 7)))
    value, adjoint = jax.jit(jax.value_and_grad(lambda f: jnp.vdot(probe, augment(f, KEY))))(image)
    np.testing.assert_allclose(jnp.vdot(adjoint, image), value, rtol=1e-10)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"max_rotation": -1.0}, "max_rotation"),
        ({"max_scale": 1.0}, "max_scale"),
        ({"mirror": (3,)}, "mirror"),
        ({"voxel_size": (1.0, 0.0, 1.0)}, "voxel_size"),
    ],
)
def test_impossible_motions_are_refused(arguments, name):
    with pytest.raises(ValueError, match=name):
        augment(jnp.ones((3, 3, 3)), KEY, **arguments)


@pytest.mark.parametrize(("shape", "dtype"), [((4, 5, 6), np.complex128), ((1, 6, 5), np.float32)])
def test_a_pose_is_the_block_mean_of_the_moved_fine_image(rng, shape, dtype):
    """The fine grid halves every voxel, but for the one voxel across a single plane."""
    fine = jnp.asarray(rng.standard_normal((2, *fine_shape(shape))), dtype)
    assert fine.shape == (2, *(n if n == 1 else 2 * n for n in shape))
    found = jax.jit(random_pose, static_argnames="shape")(fine, KEY, shape=shape)
    assert (found.shape, found.dtype) == ((2, *shape), dtype)
    moved = np.asarray(moved_by(fine, KEY))
    across = range(1) if shape[0] == 1 else range(2)
    want = np.mean([moved[:, a :: len(across), b::2, c::2] for a in across for b in (0, 1) for c in (0, 1)], axis=0)
    np.testing.assert_allclose(found, want, atol=1e-6)


@pytest.mark.slow
def test_poses_are_nearly_as_sharp_as_the_image_itself():
    """Turned on the fine grid, a head loses less than half as much contrast as when turned on its own."""
    shape = (20, 24, 20)
    fine, plain = load_brain(shape=fine_shape(shape)), load_brain(shape=shape)
    keys = jax.random.split(KEY, 4)

    def sharpness(image):
        return float(sum(jnp.mean(jnp.diff(image, axis=axis) ** 2) for axis in (-1, -2, -3)))

    poses = jax.vmap(lambda key: random_pose(fine, key, shape))(keys)
    blurred = jax.vmap(lambda key: augment(plain, key))(keys)
    lost, lost_on_its_own = (1 - sharpness(moved) / sharpness(plain) for moved in (poses, blurred))
    assert lost < 0.5 * lost_on_its_own
    assert lost < 0.15


def test_poses_are_new_with_every_key_and_know_the_voxel():
    fine = load_brain(shape=(16, 20, 16))
    pose = jax.jit(random_pose, static_argnames=("shape", "voxel_size"))
    first, again, other = (pose(fine, jax.random.key(k), shape=(8, 10, 8)) for k in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert float(jnp.abs(first - other).max()) > 0.05
    flat = pose(fine, jax.random.key(1), shape=(8, 10, 8), voxel_size=(1.0, 1.0, 3.0))
    assert float(jnp.abs(first - flat).max()) > 0.05


def test_a_pose_from_another_grid_is_refused():
    with pytest.raises(ValueError, match=r"fine: got an array of shape \(4, 5, 6\).*shape \(..., 8, 10, 12\)"):
        random_pose(jnp.ones((4, 5, 6)), KEY, (4, 5, 6))
