"""What the commands' scene and line options mean, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.commands.options import LineOptions, SceneOptions, start_lines
from acqdesign.encoding import uniform_readout
from acqdesign.export import write_bart, write_design, write_mat
from acqdesign.scene import FOV_M, fine_shape, load_brain

SHAPE = (6, 8, 7)
KEY = jax.random.key(5)


def phase_image(path, rng, shape=(9, 10, 8)):
    """A complex volume in an .npy file, which knows no voxel size."""
    np.save(path, rng.random(shape) * np.exp(1j * rng.random(shape)))
    return str(path)


def test_images_are_stacked_on_the_grid_in_the_precision_asked_for(rng, tmp_path):
    scene = SceneOptions(phantom=("brain", phase_image(tmp_path / "a.npy", rng)), shape=SHAPE)
    images = scene.images(np.float64)
    assert (images.shape, images.dtype) == ((2, *SHAPE), np.complex128)
    np.testing.assert_allclose(images[0], load_brain(shape=SHAPE))
    assert float(jnp.abs(images[1].imag).max()) > 0.1
    assert scene.images(np.float32, fine=True).shape == (2, *fine_shape(SHAPE))
    assert SceneOptions(shape=SHAPE).images(np.float32).dtype == np.float32


@pytest.mark.parametrize("shape", [pytest.param(SHAPE, marks=pytest.mark.slow), (1, 8, 7)])
def test_two_poses_of_every_phantom_are_held_out(rng, tmp_path, shape):
    """They are near the images learned on, but neither those nor each other."""
    scene = SceneOptions(phantom=("brain", phase_image(tmp_path / "a.npy", rng)), shape=shape)
    images, held = scene.images(np.float32), scene.held_out(KEY, np.float32)
    assert (held.shape, held.dtype) == ((4, *shape), np.complex64)
    assert float(jnp.abs(held[0] - held[1]).max()) > 0.05
    assert float(jnp.abs(held[:2] - images[0]).max(axis=(1, 2, 3)).min()) > 0.05
    np.testing.assert_array_equal(held, scene.held_out(KEY, np.float32))
    assert float(jnp.abs(held - scene.held_out(jax.random.key(6), np.float32)).max()) > 0.05


def test_images_to_hold_out_may_be_named(rng, tmp_path):
    path = phase_image(tmp_path / "a.npy", rng)
    scene = SceneOptions(holdout=(path,), shape=SHAPE)
    np.testing.assert_array_equal(scene.held_out(KEY, np.float32)[0], scene.load(path))


def test_field_and_contrast_reach_the_image():
    default = SceneOptions(shape=SHAPE).images(np.float32)
    for change in ({"field": "1.5T"}, {"contrast": "T2w"}):
        other = SceneOptions(shape=SHAPE, **change).images(np.float32)
        assert float(jnp.abs(other - default).max()) > 0.01


def test_field_of_view_is_asked_for_or_the_phantoms(rng, tmp_path):
    np.testing.assert_allclose(SceneOptions().fov_m(), FOV_M)
    asked = SceneOptions(fov_mm=(100.0, 200.0, 210.0), shape=(10, 10, 7))
    np.testing.assert_allclose(asked.fov_m(), (0.1, 0.2, 0.21))
    np.testing.assert_allclose(asked.voxel_size(), (0.01, 0.02, 0.03))
    unknown = SceneOptions(phantom=(phase_image(tmp_path / "a.npy", rng),))
    assert unknown.fov_m() is None
    assert unknown.voxel_size() == (1.0, 1.0, 1.0)


def test_a_wider_field_of_view_shows_a_smaller_head():
    near, far = (SceneOptions(shape=SHAPE, fov_mm=(s, s, s)).images(np.float32) for s in (150.0, 300.0))
    assert float(jnp.mean(far > 0.1)) < 0.3 * float(jnp.mean(near > 0.1))


def test_one_plane_is_as_thick_as_its_pixels_are_wide():
    fov = SceneOptions(shape=(1, 48, 48)).fov_m()
    np.testing.assert_allclose(fov, (np.mean(FOV_M[1:]) / 48, *FOV_M[1:]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_coils(dtype):
    assert SceneOptions(shape=SHAPE).smaps(dtype) is None
    smaps = SceneOptions(shape=SHAPE, coils=3).smaps(dtype)
    assert (smaps.shape, smaps.dtype) == ((3, *SHAPE), np.result_type(dtype, np.complex64))


def test_default_start_is_poisson_around_a_block_of_a_third_of_the_lines():
    shape = (23, 28, 23)
    points, learned = start_lines(LineOptions(), "poisson", shape, KEY)
    assert points.shape == (253, 2)
    assert int((~learned).sum()) == 81
    assert float((2 * jnp.abs(points)).max()) <= 1
    assert float(jnp.hypot(*(2 * points).T).max()) <= 1 + 1e-5
    again = start_lines(LineOptions(), "poisson", shape, KEY).points
    np.testing.assert_array_equal(points, again)
    assert (
        float(jnp.abs(points - start_lines(LineOptions(), "poisson", shape, jax.random.key(6)).points).max())
        > 0
    )


@pytest.mark.parametrize(
    ("options", "init", "lines", "fixed"),
    [
        ({}, "reference", 56, 16),
        ({"lines": 30}, "reference", 30, 9),
        ({"lines": 30}, "poisson", 30, 9),
        ({"lines": 30, "calibration": 0}, "poisson", 30, 0),
        ({"lines": 30, "calibration": 2}, "spiral", 30, 4),
        ({"acceleration": 2.0}, "spiral", 28, 9),
        ({"acceleration": 4.0}, "reference", 14, 4),
        ({"acceleration": 2.0}, "caipi", 28, 0),
        ({"lines": 20, "calibration": 3}, "caipi", 20, 9),
        ({}, "full", 56, 0),
        ({"calibration": 3}, "full", 56, 9),
    ],
)
def test_every_pattern_has_the_lines_asked_for(options, init, lines, fixed):
    """56 phase encodes make the full grid, which bounds the default of 253 lines."""
    points, learned = start_lines(LineOptions(**options), init, SHAPE, KEY)
    assert points.shape == (lines, 2)
    assert int((~learned).sum()) == fixed


def test_a_run_may_start_where_another_ended(tmp_path):
    points = np.linspace(-0.5, 0.5, 22, dtype=np.float32).reshape(11, 2)
    write_design(tmp_path / "a.npz", {"points": points, "learned": np.arange(11) > 3})
    found = start_lines(LineOptions(), str(tmp_path / "a.npz"), SHAPE, KEY)
    np.testing.assert_array_equal(found.points, points)
    np.testing.assert_array_equal(found.learned, np.arange(11) > 3)


@pytest.mark.parametrize(("write", "ending"), [(write_mat, "mat"), (write_bart, "cfl")])
def test_a_run_may_start_from_another_programs_positions(tmp_path, write, ending):
    points = np.linspace(-0.5, 0.5, 22).reshape(11, 2)
    design = {"points": points, "learned": np.ones(11, bool), "samples_per_line": 8, "shape": SHAPE}
    write(tmp_path / f"a.{ending}", design)
    found = start_lines(LineOptions(), str(tmp_path / f"a.{ending}"), SHAPE, KEY)
    np.testing.assert_allclose(found.points, points, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_uniform_readout_is_told_to_the_operator(dtype):
    """Its Gram along the readout is then a number rather than a matrix."""
    options = LineOptions(samples=9, eps=1e-4)
    uniform = options.encoding(SHAPE, uniform_readout(9, dtype), None, "dft")
    assert uniform.readout_gram().ndim == 0
    assert (uniform.samples_per_line, uniform.points.dtype, uniform.eps, uniform.backend) == (
        9,
        dtype,
        1e-4,
        "dft",
    )
    inclusive = jnp.linspace(-0.5, 0.5, 9, dtype=dtype)
    other = options.encoding(SHAPE, inclusive, None, "dft")
    assert other.readout_gram().shape == (6, 6)
    np.testing.assert_array_equal(other.readout, inclusive)


def test_deterministic_runs_take_the_exact_transform():
    assert LineOptions().resolved_backend(False) == "auto"
    assert LineOptions(backend="finufft").resolved_backend(False) == "finufft"
    assert LineOptions().resolved_backend(True) == "dft"
    with pytest.raises(ValueError, match="--backend: got finufft with --deterministic, expected dft or auto"):
        LineOptions(backend="finufft").resolved_backend(True)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (SceneOptions, {"shape": (6, 0, 7)}, r"--shape: got \(6, 0, 7\)"),
        (SceneOptions, {"coils": 0}, "--coils: got 0"),
        (SceneOptions, {"phantom": ()}, "--phantom: got nothing"),
        (SceneOptions, {"noise": -0.1}, "--noise: got -0.1"),
        (SceneOptions, {"noise": float("nan")}, "--noise: got nan"),
        (SceneOptions, {"fov_mm": (100.0, 0.0, 100.0)}, "--fov-mm: got 0.0"),
        (LineOptions, {"samples": 0}, "--samples: got 0"),
        (LineOptions, {"lines": 0}, "--lines: got 0"),
        (LineOptions, {"calibration": -1}, "--calibration: got -1"),
        (LineOptions, {"acceleration": 0.0}, "--acceleration: got 0.0"),
        (LineOptions, {"acceleration": 2.0, "lines": 5}, "--acceleration: got 2.0 and --lines 5"),
        (LineOptions, {"init": "spirall"}, "--init: got 'spirall'.*Did you mean 'spiral'"),
        (LineOptions, {"eps": 1.0}, "--eps: got 1.0"),
    ],
)
def test_wrong_options_are_named_as_flags(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options).check()


@pytest.mark.parametrize(
    ("options", "init", "message"),
    [
        ({"lines": 20, "calibration": 5}, "poisson", "at most lines = 20 lines in the fixed centre, not 25"),
        ({"lines": 20, "calibration": 2}, "reference", "reference with a shutter or a calibration"),
        ({"lines": 20}, "full", "or the full grid's 56"),
        ({"acceleration": 1e9}, "poisson", "acceleration: got 1000000000.0"),
        ({"lines": 5}, "absent.npz", "--init: got absent.npz with a number of lines"),
        ({}, "absent.npz", "expected a readable design.npz"),
    ],
)
def test_starts_that_cannot_be_are_refused(options, init, message):
    with pytest.raises(ValueError, match=message):
        start_lines(LineOptions(**options), init, SHAPE, KEY)
