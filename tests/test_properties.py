"""The algebra, on values that hypothesis chooses: few by default, hundreds by `nox -s properties`.

Shapes are fixed and values vary, so that everything is compiled once.
"""

import dataclasses
import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from acqdesign.commands.config import flat_options, read_config
from acqdesign.encoding import nufft_adjoint, nufft_forward
from acqdesign.export import read_positions, write_design
from acqdesign.learn_joint import JointOptions
from acqdesign.optim import Limits, Scaled, load_checkpoint, project_onto, save_checkpoint
from acqdesign.scene import Tissue, load_image
from acqdesign.signal import FSE, crlb
from acqdesign.signal.engine import State, rotate

SHAPE, POINTS = (6, 7), 9
finite = functools.partial(st.floats, allow_nan=False, allow_infinity=False)
places = arrays(np.float64, (POINTS, 2), elements=finite(-0.5, 0.5))
numbers = finite(-100.0, 100.0)
backends = pytest.mark.parametrize("backend", ["finufft", "dft"])


def complexes(shape):
    return arrays(np.complex128, shape, elements=st.complex_numbers(max_magnitude=10.0, allow_nan=False))


@functools.cache
def transform(backend):
    forward = jax.jit(lambda f, k: nufft_forward(f, k, backend=backend))
    return forward, jax.jit(lambda y, k: nufft_adjoint(y, k, SHAPE, backend=backend))


def assert_close(got, expected, scale, tolerance=1e-10):
    assert np.abs(np.asarray(got) - expected).max() <= tolerance * (1e-30 + scale)


# NUFFT


@backends
@given(image=complexes(SHAPE), samples=complexes(POINTS), points=places)
def test_the_adjoint_is_the_conjugate_transpose(backend, image, samples, points):
    forward, adjoint = transform(backend)
    left, right = np.vdot(samples, forward(image, points)), np.vdot(adjoint(samples, points), image)
    assert_close(left, right, np.linalg.norm(image) * np.linalg.norm(samples) * math.sqrt(image.size * POINTS))


@backends
@given(one=complexes(SHAPE), other=complexes(SHAPE), a=st.complex_numbers(max_magnitude=10), points=places)
def test_the_transform_is_linear(backend, one, other, a, points):
    forward, _ = transform(backend)
    expected = a * np.asarray(forward(one, points)) + np.asarray(forward(other, points))
    assert_close(forward(a * one + other, points), expected, np.abs(a * one).sum() + np.abs(other).sum())


@backends
@given(image=complexes((4, 5)), points=places, shift=st.tuples(st.integers(0, 2), st.integers(0, 2)))
def test_a_shift_of_the_image_is_a_phase_ramp(backend, image, points, shift):
    """`f(r - s)` has samples `y_j exp(-2πi k_j·s)`."""
    forward, _ = transform(backend)
    there, here = np.zeros(SHAPE, complex), np.zeros(SHAPE, complex)
    here[:4, :5] = image
    there[shift[0] : shift[0] + 4, shift[1] : shift[1] + 5] = image
    ramp = np.exp(-2j * np.pi * points @ np.array(shift))
    assert_close(forward(there, points), ramp * np.asarray(forward(here, points)), np.abs(image).sum())


@backends
@given(image=complexes(SHAPE), points=places, by=arrays(np.float64, 2, elements=finite(-0.5, 0.5)))
def test_a_modulation_of_the_image_moves_k_space(backend, image, points, by):
    """`f(r) exp(2πi q·r)` has at `k` what `f` has at `k - q`, which is periodic."""
    forward, _ = transform(backend)
    grid = np.stack(np.meshgrid(*(np.arange(n) - n // 2 for n in SHAPE), indexing="ij"), -1)
    moved = image * np.exp(2j * np.pi * grid @ by)
    assert_close(forward(moved, points), np.asarray(forward(image, points - by)), np.abs(image).sum())


# Extended phase graphs

ECHOES = 8
trains = arrays(np.float64, ECHOES, elements=finite(-math.pi, math.pi))
times = st.tuples(finite(1e-3, 10.0), finite(1e-3, 1.0)).map(lambda t: (max(t), min(t)))
echoes = jax.jit(lambda flips, t1, t2, m0: FSE(flips, 8e-3).signal(Tissue(t1, t2, m0)))


@given(flips=trains, relaxation=times, m0=finite(0.0, 10.0))
def test_no_echo_exceeds_what_was_there(flips, relaxation, m0):
    assert np.abs(echoes(flips, *relaxation, m0)).max() <= m0 * (1 + 1e-12)


@given(flips=trains, relaxation=times)
def test_a_train_turned_the_other_way_gives_the_same_echoes(flips, relaxation):
    """What is stored along z is turned there and back: two changes of sign; 2π more of a flip change nothing."""
    given_back = np.asarray(echoes(flips, *relaxation, 1.0))
    assert_close(echoes(-flips, *relaxation, 1.0), given_back, 1.0)
    assert_close(echoes(2 * np.pi - flips, *relaxation, 1.0), given_back, 1.0)


@given(rows=arrays(np.float64, (3, 5, 2), elements=numbers), angle=finite(-7.0, 7.0))
def test_a_pulse_keeps_the_energy(rows, angle):
    """`Σ |F+|² + |F-|² + 2 |Z|²` before and after."""
    angle = jnp.full(2, angle)
    turned = rotate(State(*map(jnp.asarray, rows)), angle, jnp.cos(angle), jnp.sin(angle))
    before, after = (np.square(s[0]).sum() + np.square(s[1]).sum() + 2 * np.square(s[2]).sum() for s in (rows, turned))
    np.testing.assert_allclose(after, before, rtol=1e-12, atol=1e-300)


# Cramér–Rao bounds

bound = jax.jit(lambda jacobian, noise: crlb(jacobian, noise=noise))
jacobians = arrays(np.float64, (6, 2), elements=finite(-10.0, 10.0))


@given(jacobian=jacobians, noise=finite(1e-3, 1e3), more=finite(1.0, 1e3))
def test_bounds_grow_with_the_square_of_the_noise(jacobian, noise, more):
    quiet, loud = np.asarray(bound(jacobian, noise)), np.asarray(bound(jacobian, noise * more))
    assert (loud >= quiet * (1 - 1e-12)).all()
    seen = np.isfinite(quiet)
    np.testing.assert_allclose(loud[seen], quiet[seen] * more**2, rtol=1e-10)


@given(jacobian=jacobians)
def test_more_samples_never_raise_a_bound_nor_unknowns_lower_it(jacobian):
    assume(np.linalg.cond(jacobian[:4]) < 1e4)
    all_six, four = np.asarray(bound(jacobian, 1.0)), np.asarray(bound(jacobian[:4], 1.0))
    assert (all_six <= four * (1 + 1e-8)).all()
    alone = np.asarray(bound(jacobian[:, :1], 1.0))
    assert alone[0] <= all_six[0] * (1 + 1e-8)


# Projections

SIZE = 8
LIMITS = Limits(0.2, 3.0, rms=1.0, step=0.3)
vectors = arrays(np.float64, SIZE, elements=finite(-10.0, 10.0))
onto_limits = jax.jit(LIMITS.project)
onto_ball = jax.jit(Limits(rms=1.0).project)


@given(x=vectors, y=vectors)
def test_projections_are_feasible_idempotent_and_bring_nothing_apart(x, y):
    once = np.asarray(onto_limits(x))
    assert (once >= 0.2 - 1e-6).all()
    assert (once <= 3.0 + 1e-6).all()
    assert np.abs(np.diff(once)).max() <= 0.3 + 1e-6
    assert np.sqrt(np.mean(once**2)) <= 1.0 + 1e-6
    np.testing.assert_allclose(onto_limits(once), once, atol=1e-6)
    for project in (onto_limits, onto_ball):
        apart = np.linalg.norm(np.asarray(project(x)) - np.asarray(project(y)))
        assert apart <= np.linalg.norm(x - y) + 1e-5


HELD = np.arange(SIZE) % 3 == 0
POWER = Limits(rms=1.25, where="relative")
onto_held = jax.jit(lambda x, own: project_onto(Scaled(x, 1.0), [POWER], {"relative": (~HELD, own)}).relative)


@given(x=vectors, own=arrays(np.float64, SIZE, elements=finite(-2.0, 2.0)))
def test_held_entries_stay_within_a_power_limit(x, own):
    """Where they leave room for it; the others share one factor of at most one."""
    room = SIZE * 1.25**2 - np.sum(own[HELD] ** 2)
    assume(room > 0.1)
    z = np.asarray(onto_held(x, own))
    np.testing.assert_array_equal(z[HELD], own[HELD])
    assert np.sqrt(np.mean(z**2)) <= 1.25 + 1e-6
    size = np.linalg.norm(x[~HELD])
    np.testing.assert_allclose(z[~HELD], x[~HELD] * min(1, np.sqrt(room) / max(size, 1e-30)), atol=1e-6)


# Files

LINES = 6
designs = st.fixed_dictionaries(
    {
        "points": arrays(np.float32, (LINES, 2), elements=finite(-0.5, 0.5, width=32)),
        "shape": st.tuples(*[st.integers(4, 12)] * 3).map(np.array),
        "fov_m": st.tuples(*[finite(0.125, 0.5, width=32)] * 3).map(np.array),
    }
).map(lambda found: found | {"samples_per_line": np.array(64)})
# How exact positions come back.
FORMATS = {"npz": 0.0, "mat": 0.0, "mrd": 6e-8, "cfl": 1.2e-7, "csv": 1e-7, "bin": 1e-6, "seq": 1e-4}


@pytest.mark.parametrize(
    "form", [pytest.param(name, marks=pytest.mark.slow if name == "seq" else ()) for name in FORMATS]
)
@given(design=designs)
def test_every_format_gives_back_the_positions_it_took(form, design, tmp_path_factory):
    path = tmp_path_factory.mktemp("round") / f"design.{form}"
    write_design(path, design)
    found = read_positions(path)
    np.testing.assert_allclose(found["points"], design["points"], rtol=0, atol=FORMATS[form])
    np.testing.assert_array_equal(found["shape"], design["shape"])
    np.testing.assert_allclose(found["fov_m"], design["fov_m"], rtol=1e-6)


@pytest.mark.parametrize("ending", [".npy", ".npz", ".nii", ".nii.gz"])
@given(image=arrays(np.float32, (3, 4, 5), elements=finite(-1e6, 1e6, width=32)))
def test_every_image_comes_back_up_to_its_scale(ending, image, tmp_path_factory):
    nibabel = pytest.importorskip("nibabel")
    assume(np.abs(image).max() > 1e-6)
    path = tmp_path_factory.mktemp("image") / f"image{ending}"
    if ending.startswith(".nii"):
        # Axes as the package has them: x to the head, y to the back, z to the left.
        affine = np.array([[0, 0, -1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
        nibabel.save(nibabel.Nifti1Image(image, affine), path)
    else:
        (np.save if ending == ".npy" else np.savez_compressed)(path, image)
    np.testing.assert_allclose(load_image(str(path)), image / np.abs(image).max(), rtol=1e-6, atol=1e-30)


@given(
    state=st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9_.]{0,9}", fullmatch=True), arrays(np.float64, 3, elements=st.floats()), max_size=4
    ),
    step=st.integers(0, 10**9),
    meta=st.dictionaries(st.text(max_size=5), st.integers() | st.text() | st.booleans() | st.none(), max_size=4),
)
def test_checkpoints_come_back_to_the_bit(state, step, meta, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(folder, step, state, meta=meta)
    found = load_checkpoint(folder)
    assert (found.step, found.meta) == (step, meta)
    assert {name: held.tobytes() for name, held in found.arrays.items()} == {k: v.tobytes() for k, v in state.items()}


@given(
    steps=st.integers(1, 10**6),
    lr=finite(1e-9, 10.0) | st.none(),
    shape=st.tuples(*[st.integers(1, 500)] * 3),
    phantom=st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=3).map(tuple),
    noise=finite(0.0, 10.0) | st.just(math.inf),
)
def test_options_come_back_from_their_json(steps, lr, shape, phantom, noise, tmp_path_factory):
    given_options = JointOptions()
    given_options = dataclasses.replace(
        given_options,
        run=dataclasses.replace(given_options.run, steps=steps, lr=lr),
        scene=dataclasses.replace(given_options.scene, shape=shape, phantom=phantom, noise=noise),
    )
    path = tmp_path_factory.mktemp("config") / "config.json"
    path.write_text(json.dumps({"options": flat_options(given_options)}))
    assert read_config(JointOptions, path) == given_options
