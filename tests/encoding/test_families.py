"""Families of trajectories: each within k-space, by its own formula, learned by a few numbers, in both precisions."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.encoding import EPI, TRAJECTORIES, Cones, FreeForm, Hardware, Kooshball, Played, Spiral, Splines, Stack
from acqdesign.optim import project_onto
from acqdesign.scene import Scene, system_limits

KEY = jax.random.key(3)
FAMILIES = [name for name in TRAJECTORIES if name not in ("lines", "grid")]
SOLID = {"kooshball", "stars", "spirals", "cones"}


def scene_of(name, real=jnp.float64, side=12):
    shape = (side, side, 4) if name in SOLID else (1, side, side)
    return Scene(jnp.ones((1, 1, *shape), real), fov=(0.2, 0.2, 0.2))


def start(name, real=jnp.float64, **more):
    return TRAJECTORIES[name].start(scene_of(name, real), KEY, **{"lines": 8, "samples": 64} | more)


@pytest.mark.parametrize("real", [jnp.float32, jnp.float64], ids=["single", "double"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_start_lies_within_k_space_and_encodes_its_scene(name, real):
    """Also with as few readouts as planes, and in a precision of its own; all numbers have a finite gradient."""
    trajectory, scene = start(name, real), scene_of(name, real)
    points = trajectory.coordinates()
    assert points.shape == (8, 64, 3 if name in SOLID else 2)
    assert points.dtype == real
    assert np.abs(points).max() <= 0.5 + 1e-6
    assert np.abs(points).max() >= 0.4
    weights = jnp.asarray(np.random.default_rng(0).normal(size=points.shape), real)
    slopes = jax.tree.leaves(eqx.filter_grad(lambda t: jnp.sum(weights * t.coordinates() ** 2))(trajectory))
    assert slopes
    assert all(np.isfinite(slope).all() and np.any(slope) for slope in slopes)
    assert trajectory.operator(scene).samples == (8, 64)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_stays_within_k_space_whatever_is_learned(name, rng):
    """Its arrays moved far, then projected onto its own limits."""
    trajectory = start(name)
    moved = jax.tree.map(lambda x: x + rng.normal(0, 3, x.shape), trajectory)
    for limit in trajectory.limits():
        moved = project_onto(moved, [limit], {})
    assert np.abs(moved.coordinates()).max() <= 0.5 + 1e-12


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_in_another_order_is_its_readouts_in_that_order(name, rng):
    trajectory, source = start(name), rng.permutation(8)
    moved = trajectory.permuted(source)
    np.testing.assert_array_equal(moved.coordinates(), trajectory.coordinates()[source])
    assert jax.tree.leaves(moved.learned())


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("free", "splines")])
def test_a_family_of_the_wrong_dimension_is_told_by_its_name(name):
    with pytest.raises(UsageError, match=r"^trajectory: got .*expected a scene of"):
        TRAJECTORIES[name].start(scene_of("radial" if name in SOLID else "cones"), KEY)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.usefixtures("unchecked_types")
def test_a_number_in_place_of_a_key_is_told(name):
    with pytest.raises(UsageError, match=r"^key: got 0, expected a random key"):
        TRAJECTORIES[name].start(scene_of(name), 0)


# By their own formulas


def test_an_archimedean_spiral_rises_evenly_with_its_angle():
    for in_out in (False, True):
        spiral = Spiral(jnp.array([0.3]), jnp.zeros(6), 3.0, 81, in_out)
        points = np.asarray(spiral.coordinates())[0] @ [1, 1j]
        half = points[40:] if in_out else points
        np.testing.assert_allclose(half[0], 0, atol=1e-12)
        angle = np.unwrap(np.angle(half[1:]))
        turned = 0.3 + 2 * np.pi * 3 * np.abs(half[1:]) / 0.5
        np.testing.assert_allclose(np.diff(angle), np.diff(turned), atol=1e-9)
        if in_out:
            np.testing.assert_allclose(points, -points[::-1], atol=1e-12)


def test_density_of_a_spiral_draws_its_turns_together():
    """Larger numbers near the centre keep it there longer; the radius rises all the way to the edge."""
    even, dense = (Spiral(jnp.zeros(1), jnp.asarray(d), 4.0, 200) for d in (np.zeros(8), np.linspace(2, -2, 8)))
    radii = [np.linalg.norm(s.coordinates()[0], axis=-1) for s in (even, dense)]
    assert np.all(radii[1][1:-1] < radii[0][1:-1])
    for radius in radii:
        assert np.all(np.diff(radius) > 0)
        assert radius[-1] == pytest.approx(0.5)


def test_cones_and_spokes_of_a_ball_keep_their_angle():
    polar, azimuth = jnp.array([0.4, 2.0]), jnp.array([1.0, -2.0])
    cones, spokes = Cones(polar, azimuth, jnp.zeros(5), 2.0, 33), Kooshball(polar, azimuth, 33)
    for points in (cones.coordinates(), spokes.coordinates()[:, 17:]):
        inner = np.asarray(points)[:, 1:]
        cosine = inner[..., 2] / np.linalg.norm(inner, axis=-1)
        np.testing.assert_allclose(cosine, np.broadcast_to(np.cos(polar)[:, None], cosine.shape), atol=1e-12)
    ends = np.asarray(spokes.coordinates())[:, [0, -1]]
    np.testing.assert_allclose(ends[:, 0], -ends[:, 1], atol=1e-12)


def test_golden_means_cover_the_ball_evenly():
    """The mean of squares along every axis is that of the ball."""
    points = np.asarray(Kooshball.start(scene_of("cones"), KEY, lines=600, samples=2).coordinates())[:, 1] / 0.5
    np.testing.assert_allclose(points.T @ points / 600, np.eye(3) / 3, atol=0.01)


def test_a_stack_is_its_plane_turned_and_shifted(rng):
    flat = FreeForm(jnp.asarray(rng.uniform(-0.3, 0.3, (2, 5, 2))))
    stack = Stack(flat, jnp.array([-0.5, 0.25]), jnp.array([0.0, 0.7]))
    points = np.asarray(stack.coordinates()).reshape(2, 2, 5, 3)
    np.testing.assert_array_equal(points[..., 2], np.broadcast_to([[[-0.5]], [[0.25]]], (2, 2, 5)))
    plane = np.asarray(flat.points) @ [1, 1j]
    np.testing.assert_allclose(points[1, ..., :2] @ [1, 1j], plane * np.exp(0.7j), atol=1e-14)
    with pytest.raises(UsageError, match=r"^of: got .*expected coordinates with two columns"):
        Stack(stack, stack.kz, stack.angles).coordinates()
    with pytest.raises(UsageError, match=r"^lines: got 7, expected a multiple of the 4 planes. The nearest: 8"):
        start("stars", lines=7)


def test_echo_planar_lines_lie_where_they_are_encoded(rng):
    encodes = rng.uniform(-0.5, 0.5, (2, 3))
    points = np.asarray(EPI(jnp.asarray(encodes), 301).coordinates())
    for line in range(3):
        inside = points[:, 100 * line + 12 : 100 * line + 88]
        np.testing.assert_allclose(inside[..., 1], np.broadcast_to(encodes[:, line : line + 1], (2, 76)), atol=1e-12)
        np.testing.assert_allclose(np.diff(inside[..., 0]), (-1) ** line * 0.01, atol=1e-12)
    assert np.abs(points[..., 0]).max() == pytest.approx(0.5)


@pytest.mark.parametrize("degree", [2, 3])
def test_finer_splines_are_the_same_readouts(rng, degree):
    """Twice the intervals between the same knots."""
    coarse = Splines(jnp.asarray(rng.uniform(-0.5, 0.5, (2, 7, 3))), 90, degree)
    fine = coarse.refined()
    assert fine.control.shape == (2, 2 * (7 - degree) + degree, 3)
    np.testing.assert_allclose(fine.coordinates(), coarse.coordinates(), atol=1e-10)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Spiral(jnp.zeros(1), jnp.zeros(4), 0.0, 20), "^turns: got 0.0"),
        (lambda: Spiral(jnp.zeros(1), jnp.zeros(4), 1.0, 1), "^samples: got 1"),
        (lambda: Spiral(jnp.zeros(1), jnp.zeros(20), 1.0, 20), "^density: got .*fewer numbers than samples"),
        (lambda: EPI(jnp.zeros((2, 8)), 12), "^samples: got 12, expected an integer >= 16"),
        (lambda: EPI(jnp.zeros(8), 12), r"^encodes: got .*shape \(shots, lines\)"),
        (lambda: Splines(jnp.zeros((2, 8)), 12), r"^control: got .*shape \(readouts, control, D\)"),
        (lambda: Splines(jnp.zeros((2, 8, 2)), 6), "^control_points: got 8, expected 2 to 6"),
        (lambda: Splines(jnp.full((2, 8, 2), jnp.nan), 16), "^control: got 32 non-finite"),
    ],
)
def test_parameters_that_give_no_trajectory_are_told_by_name(make, says, unchecked_types):
    with pytest.raises(UsageError, match=says):
        make()


# As a scanner plays them


def broken(points, scene, system, dwell=10e-6):
    """Largest gradient and slew over the scanner's, from rest to rest, in T/m and T/m/s."""
    voxel = [f / n for f, n in zip(scene.fov, scene.shape, strict=True) if n > 1]
    k = np.asarray(points, np.float64) / voxel
    gradient = np.pad(np.diff(k, axis=1), ((0, 0), (1, 1), (0, 0))) / (42.577478518e6 * dwell)
    slew = np.diff(gradient, axis=1) / dwell
    return [
        np.linalg.norm(x, axis=-1).max() / limit
        for x, limit in ((gradient, system.max_gradient_t_per_m), (slew, system.max_slew_t_per_m_s))
    ]


@pytest.mark.parametrize("name", ["radial", "epi", "cones", "spirals", "free"])
def test_a_trajectory_within_hardware_is_played(name):
    """Each of its readouts from rest to rest within gradient and slew, in single precision too; the rest is its own."""
    scene, system = scene_of(name, jnp.float32, side=64), system_limits("generic")
    wish = TRAJECTORIES[name].start(scene, KEY, lines=4, samples=512 if name == "epi" else 128)
    hardware = Hardware.of(system, scene, 10e-6)
    assert max(broken(wish.coordinates(), scene, system)) > 1
    found = wish.within(hardware)
    if name == "free":
        assert found.limits() == (dataclasses.replace(hardware, where="points"),)
        found = project_onto(found, found.limits(), {})
    else:
        assert isinstance(found, Played)
        assert jax.tree.leaves(found.learned()) == jax.tree.leaves(wish.learned())
        np.testing.assert_array_equal(found.permuted(np.array([1, 0, 2, 3])).coordinates()[0], found.coordinates()[1])
    assert max(broken(found.coordinates(), scene, system)) <= 1
    assert np.abs(found.coordinates()).max() <= 0.5
    assert np.abs(found.coordinates() - wish.coordinates()).max() <= 0.3


def test_gradients_run_through_what_is_played():
    """To the numbers of a spiral, as differences do."""
    scene = scene_of("spiral", side=64)
    wish = Spiral.start(scene, KEY, lines=2, samples=60)
    spiral = wish.within(Hardware.of(system_limits("generic"), scene, 10e-6, held=((0, 0.0),)))
    weights = jnp.asarray(np.random.default_rng(1).normal(size=spiral.coordinates().shape))
    way = jax.tree.map(lambda x: jnp.asarray(np.random.default_rng(2).normal(size=x.shape)), wish)

    @jax.jit
    def value(h):
        moved = jax.tree.map(lambda x, d: x + h * d, wish, way)
        return jnp.sum(weights * Played(moved, spiral.hardware).coordinates())

    want = (value(1e-5) - value(-1e-5)) / 2e-5
    assert abs(jax.jit(jax.grad(value))(0.0) / want - 1) <= 1e-6


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda s, limits: Hardware.of(limits, s, 3e-6), "^dwell: got 3 us, expected a multiple of 10 us, generic's"),
        (lambda s, limits: Hardware.of(limits, s, 0.0), "^dwell: got 0.0"),
        (lambda s, limits: Hardware.of(limits, Scene(s.maps), 1e-5), "^scene: got one without a field of view"),
        (
            lambda s, limits: start("radial").within(Hardware.of(limits, s, 1e-5, held=((0, -0.5), (40, 0.5)))),
            r"^points: got 64 samples, 0.64 ms, .*expected at least \d+ samples, 0.*ms",
        ),
        (lambda s, limits: start("radial", samples=1).within(Hardware.of(limits, s, 1e-5)), "^points: .*two points"),
    ],
)
def test_hardware_that_plays_nothing_is_told_with_what_it_would(call, says):
    with pytest.raises(UsageError, match=says):
        call(scene_of("radial", side=64), system_limits("generic"))
