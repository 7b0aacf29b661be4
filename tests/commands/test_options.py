"""What the commands' scene and trajectory options mean, and what they refuse."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.commands.devices import DeviceOptions
from acqdesign.commands.options import ImageOptions, RunOptions, SceneOptions, TrajectoryOptions, with_file
from acqdesign.design import Problem, squared_error
from acqdesign.encoding import Lines
from acqdesign.export import write_design
from acqdesign.scene import FOV, brain, fine_shape, load_brain

from ._lines import SMALL, asked, phantom

SHAPE = (6, 8, 7)
KEY = jax.random.key(5)


def loaded(dtype=np.float32, key=None, **options):
    """As `learn_traj` loads it: images, of the contrast asked for."""
    held = {"held": True, "each": 2} if key is not None else {}
    options = ImageOptions(**{"shape": SHAPE} | options)
    return options.load(dtype, key, tissue_names=None, contrast=options.contrast, **held)


def start_lines(shape=SHAPE, *, key=KEY, **options):
    _, lines, held = with_file(ImageOptions(), TrajectoryOptions(**{"init": "poisson"} | options))
    return lines.make(brain(shape), key, deterministic=False, held=held)


def images(scene):
    return scene.image(scene.contrast)


def test_images_are_stacked_on_the_grid_in_the_precision_asked_for(tmp_path):
    both = ("brain", phantom(tmp_path / "a.npy", 0, shape=(9, 10, 8), phase=True))
    found = images(loaded(np.float64, phantom=both))
    assert (found.shape, found.dtype) == ((2, *SHAPE), np.complex128)
    np.testing.assert_allclose(found[0], load_brain(shape=SHAPE), rtol=1e-6)
    assert float(jnp.abs(found[1].imag).max()) > 0.1
    assert loaded(phantom=both, augment=True).poses.fine.shape[1:] == (2, *fine_shape(SHAPE))
    assert images(loaded()).dtype == np.float32


@pytest.mark.parametrize("shape", [pytest.param(SHAPE, marks=pytest.mark.slow), (1, 8, 7)])
def test_two_poses_of_every_phantom_are_held_out(tmp_path, shape):
    """They are near the images learned on, but neither those nor each other."""
    both = ("brain", phantom(tmp_path / "a.npy", 0, shape=(9, 10, 8), phase=True))
    found = images(loaded(phantom=both, shape=shape))
    held, same, other = (images(loaded(key=key, phantom=both, shape=shape)) for key in (KEY, KEY, jax.random.key(6)))
    assert (held.shape, held.dtype) == ((4, *shape), np.complex64)
    assert float(jnp.abs(held[0] - held[1]).max()) > 0.05
    assert float(jnp.abs(held[:2] - found[0]).max(axis=(1, 2, 3)).min()) > 0.05
    np.testing.assert_array_equal(held, same)
    assert float(jnp.abs(held - other).max()) > 0.05


def test_images_to_hold_out_may_be_named(tmp_path):
    path = phantom(tmp_path / "a.npy", 0, phase=True)
    held = images(loaded(key=KEY, holdout=(path,)))
    np.testing.assert_array_equal(held, images(loaded(phantom=(path,))))


def test_field_and_contrast_reach_the_image():
    for change in ({"field": "1.5T"}, {"contrast": "T2w"}):
        assert float(jnp.abs(images(loaded(**change)) - images(loaded())).max()) > 0.01


def test_field_of_view_is_asked_for_or_the_phantoms(tmp_path):
    np.testing.assert_allclose(loaded(shape=(23, 28, 23)).fov, FOV)
    asked = loaded(fov_mm=(100.0, 200.0, 210.0), shape=(10, 10, 7))
    np.testing.assert_allclose(asked.fov, (0.1, 0.2, 0.21))
    np.testing.assert_allclose(asked.voxel_size(), (0.01, 0.02, 0.03))
    unknown = loaded(phantom=(phantom(tmp_path / "a.npy", 0, phase=True),))
    assert unknown.fov is None
    assert unknown.voxel_size() == (1.0, 1.0, 1.0)


def test_a_wider_field_of_view_shows_a_smaller_head():
    near, far = (images(loaded(fov_mm=(s, s, s))) for s in (150.0, 300.0))
    assert float(jnp.mean(far > 0.1)) < 0.3 * float(jnp.mean(near > 0.1))


def test_one_plane_is_as_thick_as_its_pixels_are_wide():
    np.testing.assert_allclose(loaded(shape=(1, 48, 48)).fov, (np.mean(FOV[1:]) / 48, *FOV[1:]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_coils(dtype):
    assert loaded(dtype).smaps is None
    smaps = loaded(dtype, coils=3).smaps
    assert (smaps.shape, smaps.dtype) == ((3, *SHAPE), np.result_type(dtype, np.complex64))


def test_default_start_is_poisson_around_a_block_of_a_third_of_the_lines():
    shape = (23, 28, 23)
    lines = start_lines(shape)
    assert lines.points.shape == (253, 2)
    assert int((~lines.moves).sum()) == 81
    assert float((2 * jnp.abs(lines.points)).max()) <= 1
    assert float(jnp.hypot(*(2 * lines.points).T).max()) <= 1 + 1e-5
    np.testing.assert_array_equal(lines.points, start_lines(shape).points)
    assert float(jnp.abs(lines.points - start_lines(shape, key=jax.random.key(6)).points).max()) > 0


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
    found = start_lines(init=init, **options)
    assert found.points.shape == (lines, 2)
    assert int((~found.moves).sum()) == fixed


@pytest.mark.parametrize("ending", ["npz", "mat", "cfl"])
def test_a_run_may_start_where_another_ended_or_from_another_programs_positions(tmp_path, ending):
    points = np.linspace(-0.5, 0.5, 22, dtype=np.float32).reshape(11, 2)
    learned = np.arange(11) > (3 if ending == "npz" else -1)
    path = tmp_path / f"a.{ending}"
    write_design(path, {"points": points, "learned": learned, "samples_per_line": 8, "shape": SHAPE})
    found = start_lines(init=str(path))
    np.testing.assert_allclose(found.points, points, atol=1e-6 * (ending != "npz"))
    np.testing.assert_array_equal(found.moves, learned)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_uniform_readout_is_told_to_the_operator(dtype):
    """Its Gram along the readout is then a number rather than a matrix."""
    scene = brain(SHAPE, dtype=dtype)
    make = TrajectoryOptions(init="poisson", samples=9, eps=1e-4, backend="dft").make
    uniform = make(scene, KEY, deterministic=False, held={}).operator(scene)
    assert uniform.normal().readout.ndim == 0
    assert (uniform.samples_per_line, uniform.points.dtype, uniform.eps, uniform.backend) == (9, dtype, 1e-4, "dft")
    inclusive = jnp.linspace(-0.5, 0.5, 9, dtype=dtype)
    other = make(scene, KEY, deterministic=False, held={}, readout=inclusive).operator(scene)
    assert other.normal().readout.shape == (6, 6)
    np.testing.assert_array_equal(other.readout, inclusive)


def test_deterministic_runs_take_the_exact_transform():
    scene = brain((1, 8, 7))

    def backend(deterministic, **options):
        made = TrajectoryOptions(lines=12, **options).make(scene, KEY, deterministic=deterministic, held={})
        return made.backend

    assert backend(False) == "auto"
    assert backend(False, backend="finufft") == "finufft"
    assert backend(True) == backend(True, backend="dft") == "dft"
    with pytest.raises(ValueError, match="--backend: got finufft with --deterministic, expected dft or auto"):
        backend(True, backend="finufft")
    with pytest.raises(ValueError, match="--deterministic: got it with --trajectory radial, expected lines"):
        backend(True, trajectory="radial")


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (SceneOptions, {"phantom": ()}, "--phantom: got nothing"),
        (TrajectoryOptions, {"acceleration": 2.0, "lines": 5}, "--acceleration: got 2.0 and --lines 5"),
        (TrajectoryOptions, {"init": "spirall"}, "--init: got 'spirall'.*Did you mean 'spiral'"),
        (TrajectoryOptions, {"init": "a.npz", "lines": 5}, "--init: got a.npz with --lines, expected one of the two"),
    ],
)
def test_wrong_options_are_named_as_flags(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options).check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lines": 20, "calibration": 5}, "at most lines = 20 lines in the fixed centre, not 25"),
        ({"lines": 20, "calibration": 2, "init": "reference"}, "reference with a shutter or a calibration"),
        ({"lines": 20, "init": "full"}, "or the full grid's 56"),
        ({"acceleration": 1e9}, "--acceleration: got 1000000000.0"),
        ({"init": "absent.npz"}, "expected a readable design.npz"),
        ({"init": "absent.npz", "trajectory": "radial"}, "--init: got absent.npz with --trajectory radial"),
        ({"trajectory": "radial", "init": None, "backend": "dft"}, "--backend: got 'dft', for which Radial has no use"),
        ({"trajectory": "radial", "init": None, "eps": 1e-3}, "--eps: got 0.001, for which Radial has no use"),
        ({"trajectory": "spirl"}, "--trajectory: got 'spirl', expected one of lines, .*Did you mean 'spiral'"),
    ],
)
def test_starts_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        start_lines(**options)


@pytest.mark.parametrize("name", ["learn_traj", "learn_joint"])
def test_lines_held_by_calibration_never_move_in_any_command(name, monkeypatch):
    """In any of several starts, wherever an optimiser would take them; the others do."""
    seen = asked(monkeypatch, name, *SMALL[name], "--calibration", 3, "--starts", 2, "--optimizer", "adamw")
    problem, held = seen["problem"], []
    for start in seen["starts"]:
        learned, rest = problem.split(start)
        far = jax.tree.map(lambda leaf: leaf + jax.random.normal(KEY, leaf.shape, leaf.dtype), learned)
        found = eqx.combine(eqx.filter_jit(problem.project)(far, start), rest).trajectory
        moves = np.asarray(start.trajectory.moves)
        assert (~moves).sum() == 9
        np.testing.assert_array_equal(found.points[~moves], start.trajectory.points[~moves])
        assert (np.abs(found.points - start.trajectory.points)[moves] > 0).any(axis=1).all()
        held.append(np.sort(start.trajectory.points[~moves], axis=0))
    np.testing.assert_array_equal(*held)


@pytest.mark.parametrize(
    ("shape", "coils", "some", "cores", "wanted"),
    [
        ((16, 64, 64), 4, None, 6, {"planes": 4}),
        ((40, 64, 64), 8, 8, 6, {"planes": 4}),
        ((64, 64, 64), 8, 9, 3, None),  # 9 of a step, 64 in all
        ((16, 64, 64), 1, None, 6, None),  # too little for it
        ((1, 128, 128), 16, None, 6, None),
        ((16, 64, 64), 4, None, 1, None),
    ],
)
def test_planes_are_shared_among_the_cores_where_they_are_many(monkeypatch, shape, coils, some, cores, wanted):
    scene = brain(shape, coils=coils)
    problem = Problem(scene, Lines(np.zeros((8, 2))), terms=squared_error(), planes_per_step=some)
    monkeypatch.setattr(jax, "local_device_count", lambda: cores)
    monkeypatch.setattr(jax, "devices", lambda: jax.local_devices() * cores)
    monkeypatch.setattr(jax, "device_count", lambda: cores)
    found = RunOptions(device=DeviceOptions()).mesh(problem)
    assert (found and dict(found.shape)) == wanted


@pytest.mark.parametrize(("nx", "wanted"), [(1, 128), (96, 128), (160, 160)])
def test_a_readout_has_as_many_samples_as_voxels_or_more(nx, wanted):
    """Fewer would mix planes across it."""
    shape = (nx, 4, 4)
    assert (
        TrajectoryOptions(lines=4, init="poisson").make(brain(shape), KEY, deterministic=False, held={}).samples
        == wanted
    )
