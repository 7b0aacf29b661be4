"""What every trajectory gets for its coordinates, a user's own as the package's: operator, order, design, limits."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.encoding import (
    ORDERINGS,
    TRAJECTORIES,
    FreeForm,
    Lines,
    Radial,
    Trajectory,
    initial_lines,
    order_readouts,
    uniform_readout,
)
from acqdesign.encoding.trajectory import checked_coordinates
from acqdesign.optim import Box, Scaled, held, project_onto
from acqdesign.scene import Scene

from . import _exact
from ._exact import error, some_complex

KEY = jax.random.key(5)
KINDS = [(jnp.float32, jnp.complex64), (jnp.float64, jnp.complex128)]
PLANE, SOLID = (1, 6, 5), (4, 5, 6)


class RotatedSpokes(Trajectory):
    """A user's own trajectory, as short as can be."""

    angles: jax.Array
    samples: int = eqx.field(static=True, default=9)

    def coordinates(self):
        r = jnp.linspace(-0.5, 0.5, self.samples, dtype=self.angles.dtype)
        return r[:, None] * jnp.stack([jnp.cos(self.angles), jnp.sin(self.angles)], -1)[:, None, :]


class TiltedSpokes(RotatedSpokes):
    """The same out of the plane, with a tilt that is not learned, a limit, and places to order by."""

    tilt: jax.Array = held(default=None)

    def coordinates(self):
        flat = RotatedSpokes.coordinates(self)
        return jnp.concatenate([flat * jnp.cos(self.tilt), flat[..., :1] * jnp.sin(self.tilt)], axis=-1)

    def limits(self):
        return (Box("angles", 0.0, 1.0),)

    def positions(self):
        return RotatedSpokes.coordinates(self)[:, -1]


def scene_of(shape, real=jnp.float64, coils=0, rng=None):
    smaps = some_complex(rng, (coils, *shape), jnp.result_type(real, jnp.complex64)) if coils else None
    return Scene(jnp.ones((1, 1, *shape), real), smaps=smaps)


def spokes(real=jnp.float64, count=7):
    return RotatedSpokes(jnp.linspace(0.1, 2.9, count, dtype=real))


def tilted(real=jnp.float64, count=8):
    return TiltedSpokes(jnp.linspace(0.1, 2.9, count, dtype=real), 9, jnp.asarray(0.3, real))


def straight(real=jnp.float64, count=8):
    points = np.random.default_rng(2).uniform(-0.5, 0.5, (count, 2))
    return Lines(jnp.asarray(points, real), readout=jnp.linspace(-0.5, 0.5, 9, dtype=real))


def loss_of(encoding, image):
    """A number, and the samples on the way."""
    kspace = encoding.forward(image)
    return jnp.sum(jnp.abs(encoding.adjoint(kspace)) ** 3), kspace


# What a subclass gets for its coordinates


@pytest.mark.parametrize(
    ("make", "shape", "columns", "kinds"),
    [
        (spokes, PLANE, (1, 2), KINDS[1]),
        (spokes, PLANE, (1, 2), KINDS[0]),
        (spokes, (6, 1, 5), (0, 2), KINDS[1]),
        (tilted, SOLID, (0, 1, 2), KINDS[1]),
        (straight, SOLID, (0, 1, 2), KINDS[1]),
    ],
    ids=["plane", "plane, single", "other plane", "3D", "lines"],
)
def test_coordinates_alone_give_an_encoding_of_the_scene(rng, make, shape, columns, kinds):
    """The exact DFT at them along the scene's axes, with its coils; jit and gradient take the trajectory itself."""
    real, dtype = kinds
    trajectory, scene, image = make(real), scene_of(shape, real, 2, rng), some_complex(rng, shape, dtype)
    encoding = trajectory.encoding(scene)
    assert encoding.shape == shape
    assert encoding.samples == (2, trajectory.readouts(), 9)

    @jax.jit
    def step(trajectory, image):
        return eqx.filter_grad(lambda t: loss_of(t.encoding(scene), image), has_aux=True)(trajectory)

    def exact(trajectory, image):
        points = trajectory.coordinates().reshape(-1, len(columns))
        whole = jnp.zeros((len(points), 3)).at[:, columns].set(points)
        kspace = _exact.forward(scene.smaps * image, whole, jnp) / math.sqrt(math.prod(shape))
        back = _exact.adjoint(kspace, whole, shape, jnp) / math.sqrt(math.prod(shape))
        return jnp.sum(jnp.abs(jnp.sum(jnp.conj(scene.smaps) * back, axis=0)) ** 3), kspace

    gradient, kspace = step(trajectory, image)
    assert (kspace.shape, kspace.dtype) == (encoding.samples, dtype)
    double = jax.tree.map(lambda x: x.astype(jnp.float64) if eqx.is_inexact_array(x) else x, trajectory)
    tolerance = 1e-5 if real == jnp.float32 else 1e-11
    want, samples = eqx.filter_jit(eqx.filter_grad(exact, has_aux=True))(double, image)
    assert error(kspace.reshape(2, -1), samples) <= tolerance
    for got, wanted in zip(jax.tree.leaves(gradient), jax.tree.leaves(want), strict=True):
        assert got.dtype == real
        assert error(got, wanted) <= 10 * tolerance


def test_one_column_is_a_line_of_voxels(rng):
    points, image = jnp.asarray(rng.uniform(-0.5, 0.5, (3, 4, 1))), some_complex(rng, (1, 7, 1))
    kspace = FreeForm(points).operator(scene_of((1, 7, 1))).forward(image)
    want = _exact.forward(image.ravel(), np.asarray(points).reshape(-1, 1)) / math.sqrt(7)
    assert error(kspace.ravel(), want) <= 1e-12


def test_starts_are_learned_side_by_side(rng):
    """Trajectories stacked along their first axis go through `vmap` with their encodings."""
    scene, image = scene_of(PLANE, coils=2, rng=rng), some_complex(rng, PLANE)
    stacked = RotatedSpokes(jnp.asarray(rng.uniform(0, 3, (2, 4))))
    slope = jax.jit(jax.grad(lambda t: loss_of(t.encoding(scene), image)[0]))
    together = jax.jit(jax.vmap(slope))(stacked)
    for got, angles in zip(together.angles, stacked.angles, strict=True):
        assert error(got, slope(RotatedSpokes(angles)).angles) <= 1e-12


def test_arrays_made_of_other_numbers_are_the_arrays():
    """A `Parametrised` in the place of an array: what counts readouts and writes the design sees its value."""
    plain, scaled = spokes(), RotatedSpokes(Scaled(10 * spokes().angles, 0.1))
    assert scaled.readouts() == plain.readouts() == 7
    np.testing.assert_allclose(scaled.design()["coordinates"], plain.coordinates(), rtol=1e-14)
    np.testing.assert_allclose(scaled.design()["trajectory.angles"], plain.angles, rtol=1e-14)


def coordinates_that_are(value):
    """A trajectory named `Mine` of any coordinates at all."""

    class Mine(Trajectory):
        points: jax.Array = eqx.field(default_factory=lambda: jnp.zeros(3))

        def coordinates(self):
            return value

    return Mine()


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([[0.0, 0.0]], r"^Mine.coordinates: got \[\[0.0, 0.0\]\], expected a real floating-point array"),
        (jnp.zeros((4, 3, 2), int), r"^Mine.coordinates: got .*int64, expected a real floating-point array"),
        (jnp.zeros((4, 3, 2), complex), r"^Mine.coordinates: got .*complex128, expected a real"),
        (jnp.zeros((4, 2)), r"^Mine.coordinates: got .*\(4, 2\).*, expected shape \(readouts, samples, D\)"),
        (jnp.zeros((2, 4, 3, 2)), r"^Mine.coordinates: got .*\(2, 4, 3, 2\).*, expected shape"),
        (jnp.zeros((4, 3, 4)), r"^Mine.coordinates: got .*\(4, 3, 4\).*D = 1, 2 or 3"),
        (jnp.zeros((0, 3, 2)), r"^Mine.coordinates: got .*\(0, 3, 2\)"),
    ],
)
def test_wrong_coordinates_are_told_by_the_classs_name(value, says):
    """Whoever asks first, and behind an order too."""
    mine, scene = coordinates_that_are(value), scene_of(PLANE)
    for ask in (
        lambda: mine.operator(scene),
        lambda: mine.readouts(),
        lambda: mine.ordered("random", 2, te_echo=0, key=KEY),
        lambda: mine.permuted(np.arange(4)).operator(scene),
    ):
        with pytest.raises(UsageError, match=says):
            ask()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: spokes().operator(scene_of(SOLID)),
            r"^RotatedSpokes.coordinates: got .*\(7, 9, 2\).*, expected 3 or 3 columns .*\(4, 5, 6\)",
        ),
        (lambda: spokes().operator(scene_of((1, 7, 1))), r"^RotatedSpokes.coordinates: .*expected 1 or 3 columns"),
        (lambda: Trajectory().coordinates(), r"^trajectory: got Trajectory without coordinates\(\)"),
        (lambda: RotatedSpokes.start(scene_of(PLANE), KEY), r"^trajectory: got RotatedSpokes without .* start"),
        (
            lambda: spokes().ordered("linear", 7, te_echo=0, key=KEY),
            r"^ordering: got linear for RotatedSpokes, which has no positions, expected random",
        ),
        (lambda: spokes().ordered("lineal", 7, te_echo=0, key=KEY), r"^ordering: .*Did you mean 'linear'"),
        (lambda: spokes().ordered("random", 2, te_echo=0, key=KEY), r"^lines: got 7, expected a multiple of the 2"),
    ],
)
def test_what_a_trajectory_cannot_do_is_told_by_its_name(call, says):
    with pytest.raises(UsageError, match=says):
        call()


# Order


def same_readouts(trajectory, other, source):
    np.testing.assert_array_equal(other.coordinates(), trajectory.coordinates()[np.asarray(source)])


TRAJECTORY = {
    "own": lambda rng: spokes(count=6),
    "radial": lambda rng: Radial(jnp.asarray(rng.uniform(0, 3, 6)), 9),
    "free": lambda rng: FreeForm(jnp.asarray(rng.uniform(-0.5, 0.5, (6, 9, 2)))),
    "lines": lambda rng: Lines(rng.uniform(-0.5, 0.5, (6, 2)), rng.random(6) < 0.5, samples=4),
}


@pytest.mark.parametrize("name", TRAJECTORY)
def test_permuted_is_the_readouts_in_another_order(rng, name):
    """Once and twice, with as many readouts, and under jit with an order that is traced."""
    trajectory, source = TRAJECTORY[name](rng), rng.permutation(6)
    once = trajectory.permuted(source)
    same_readouts(trajectory, once, source)
    same_readouts(trajectory, once.permuted(source[::-1]), source[source[::-1]])
    assert once.readouts() == 6
    assert isinstance(once, Trajectory)
    traced = jax.jit(lambda t, s: t.permuted(s).coordinates())(trajectory, jnp.asarray(source))
    np.testing.assert_array_equal(traced, once.coordinates())


def test_held_lines_keep_their_mask_where_they_go(rng):
    """`moves` travels with the points, `learned` with it; what else there is stays."""
    moves = rng.random(6) < 0.5
    lines = Lines(rng.uniform(-0.5, 0.5, (6, 2)), moves, readout=np.linspace(-0.5, 0.5, 5), half_width=0.4)
    source = rng.permutation(6)
    moved = lines.permuted(source)
    np.testing.assert_array_equal(moved.moves, moves[source])
    np.testing.assert_array_equal(moved.learned().points, moves[source][:, None])
    np.testing.assert_array_equal(moved.readout, lines.readout)
    assert (type(moved), moved.half_width, moved.samples) == (Lines, 0.4, 5)


@pytest.mark.parametrize("name", ORDERINGS)
@pytest.mark.parametrize("kind", ["lines", "own"])
def test_ordered_plays_every_readout_where_the_order_says(rng, name, kind):
    """The s-th readout is echo `s % echoes` of train `s // echoes`, so every echo gets as many."""
    if kind == "lines":
        trajectory = Lines(rng.uniform(-0.5, 0.5, (24, 2)), np.arange(24) >= 5, samples=3)
    else:
        trajectory = tilted(count=24)
    where = np.asarray(trajectory.positions())
    found = trajectory.ordered(name, 6, te_echo=2, key=KEY)
    order = order_readouts(name, where, 6, te_echo=2, key=KEY)
    # Which of the old readouts each of the new ones is.
    gaps = np.abs(np.asarray(found.positions())[:, None] - where[None]).max(-1)
    source = gaps.argmin(axis=1)
    assert sorted(source) == list(range(24))
    same_readouts(trajectory, found, source)
    np.testing.assert_array_equal(order.echo[source], np.arange(24) % 6)
    np.testing.assert_array_equal(order.train[source], np.arange(24) // 6)
    if kind == "lines":
        np.testing.assert_array_equal(found.moves, source >= 5)
    if kind == "lines" and name != "random":
        # Once more, from there: an order goes by where readouts are, not by how they came.
        again = found.ordered(name, 6, te_echo=2, key=KEY)
        np.testing.assert_array_equal(again.points, found.points)


def test_random_order_needs_no_positions_and_follows_its_key():
    own = spokes(count=6)
    one, same, other = (own.ordered("random", 3, te_echo=0, key=jax.random.key(k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(one.source, same.source)
    assert not np.array_equal(one.source, other.source)
    assert sorted(np.asarray(one.source)) == list(range(6))


def test_a_permuted_trajectory_is_learned_as_the_one_it_is_of(rng):
    """The same arrays are learned, by the same gradient, within the same limits; its order never is."""
    own, scene, image = tilted(), scene_of(SOLID), some_complex(rng, SOLID)
    moved = own.permuted(rng.permutation(8))
    mask = moved.learned()
    assert (mask.of.angles, mask.of.tilt, mask.source) == (True, False, False)
    slope = eqx.filter_jit(eqx.filter_grad(lambda t: loss_of(t.operator(scene), image)[0]))
    assert error(slope(moved).of.angles, slope(own).angles) <= 1e-10
    (limit,) = moved.limits()
    assert limit.names == ("of.angles",)
    assert own.limits()[0].names == ("angles",)
    np.testing.assert_array_equal(project_onto(moved, moved.limits(), {}).of.angles, jnp.clip(own.angles, 0, 1))
    found, before = moved.design(), own.design()
    np.testing.assert_array_equal(found["coordinates"], moved.coordinates())
    np.testing.assert_array_equal(found["trajectory.angles"], before["trajectory.angles"])
    np.testing.assert_array_equal(moved.positions(), own.positions()[moved.source])
    assert spokes(count=6).permuted(np.arange(6)).positions() is None


# What is learned, limited and written down


def test_float_arrays_are_learned_but_for_held_ones():
    """Neither Python's numbers nor fields of `held()`, and of lines only those that move."""
    assert spokes().learned().angles is True
    assert (tilted().learned().angles, tilted().learned().tilt) == (True, False)
    lines = Lines(np.zeros((3, 2)), np.array([True, False, True]), readout=np.linspace(-0.5, 0.5, 4))
    mask = lines.learned()
    np.testing.assert_array_equal(mask.points, [[True], [False], [True]])
    assert (mask.readout, mask.moves) == (False, False)
    assert jax.tree.structure(mask) == jax.tree.structure(lines)
    assert Radial(jnp.zeros(3), 5).learned().angles is True
    assert FreeForm(jnp.zeros((3, 4, 2))).learned().points is True


def test_a_design_holds_coordinates_and_every_array_by_name():
    own = tilted()
    found = own.design()
    assert set(found) == {"coordinates", "trajectory.angles", "trajectory.tilt"}
    np.testing.assert_array_equal(found["coordinates"], own.coordinates())
    np.testing.assert_array_equal(found["trajectory.angles"], own.angles)
    radial = Radial(jnp.zeros(3), 5)
    assert set(radial.design()) == {"coordinates", "trajectory.angles"}
    free = FreeForm(jnp.zeros((3, 4, 2))).design()
    np.testing.assert_array_equal(free["coordinates"], free["trajectory.points"])


def test_a_design_of_lines_holds_positions_and_readout(rng):
    points, moves = rng.uniform(-0.5, 0.5, (6, 2)), rng.random(6) < 0.5
    found = Lines(points, moves, samples=4).design()
    assert set(found) == {"points", "learned", "samples_per_line", "readout"}
    np.testing.assert_array_equal(found["points"], points)
    np.testing.assert_array_equal(found["learned"], moves)
    np.testing.assert_array_equal(found["readout"], uniform_readout(4, jnp.float64))
    assert found["samples_per_line"] == 4
    readout = np.linspace(-0.5, 0.5, 5)
    np.testing.assert_array_equal(Lines(points, moves, readout=readout).design()["readout"], readout)
    assert set(Lines(points, moves).design()) == {"points", "learned"}


def test_limits_of_lines_are_their_box(rng):
    points = jnp.asarray(rng.uniform(-0.7, 0.7, (9, 2)))
    (box,) = Lines(points, half_width=0.3).limits()
    np.testing.assert_array_equal(box.project(points), jnp.clip(points, -0.3, 0.3))
    moved = project_onto(Lines(points), Lines(points).limits(), {})
    np.testing.assert_array_equal(moved.points, jnp.clip(points, -0.5, 0.5))
    assert spokes().limits() == Radial(jnp.zeros(3), 5).limits() == ()


# Straight lines


def test_lines_of_a_scene_have_as_many_samples_as_voxels_unless_told():
    lines = Lines(np.zeros((3, 2)))
    assert lines.operator(scene_of(SOLID)).samples == (3, 4)
    assert lines.readouts() == 3
    assert Lines(np.zeros((3, 2)), samples=7).operator(scene_of(SOLID)).samples == (3, 7)
    with pytest.raises(UsageError, match=r"^samples: got None, expected the number of samples of a line"):
        lines.coordinates()


def test_planes_are_apart_where_the_readout_is_uniform_and_full():
    points = np.zeros((3, 2))
    apart = [
        Lines(points, samples=4), Lines(points), Lines(points, samples=3), Lines(points, readout=np.zeros(4))
    ]  # fmt: skip
    assert [lines.planes_apart(scene_of(SOLID)) for lines in apart] == [True, True, False, False]
    assert not spokes().planes_apart(scene_of(PLANE))


@pytest.mark.parametrize(("kind", "real"), [("poisson", jnp.float32), ("caipi", jnp.float64), ("full", jnp.float64)])
def test_lines_start_from_patterns_of_the_scene(kind, real):
    """The pattern's positions in the scene's precision, with what is held, and as many samples as voxels."""
    scene = scene_of((4, 24, 20), real)
    options = {} if kind == "full" else {"lines": 120}
    lines = getattr(Lines, kind)(scene, **options)
    more = {"calibration": 6, "shutter": True} if kind == "poisson" else {}
    points, learned = initial_lines(kind, (4, 24, 20), key=jax.random.key(0), **options, **more)
    assert (lines.points.dtype, lines.samples) == (real, 4)
    np.testing.assert_array_equal(lines.points, points)
    np.testing.assert_array_equal(lines.moves, learned)
    if kind == "poisson":
        other = Lines.poisson(scene, key=jax.random.key(3), half_width=0.45, samples=6, **options)
        assert not np.array_equal(other.points, lines.points)
        assert (other.half_width, other.samples) == (0.45, 6)
        same = Lines.start(scene, jax.random.key(3), **options)
        np.testing.assert_array_equal(other.points, same.points)


def test_lines_start_at_a_quarter_of_the_grid():
    """A fully sampled block of nearly a third of the lines is held; more lines than the ellipse holds leave it."""
    scene = scene_of((1, 24, 20))
    lines = Lines.poisson(scene)
    assert len(lines.points) == 120
    assert int((~lines.moves).sum()) == 6**2
    assert np.hypot(*(2 * np.asarray(lines.points)).T).max() <= 1 + 1e-6
    many = Lines.poisson(scene, lines=400, calibration=4)
    assert int((~many.moves).sum()) == 16
    assert np.hypot(*(2 * np.asarray(many.points)).T).max() > 1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Lines(np.zeros((3, 3))), r"^points: got .*\(3, 3\)"),
        (lambda: Lines(np.zeros((1, 3, 2))), r"^points: got .*\(1, 3, 2\).*, expected shape \(lines, 2\)"),
        (lambda: Lines(np.array([[3.1, 0.0], [-3.1, 1.0]])), r"^points: got positions up to 3.1, .*Divide by 2π"),
        (
            lambda: checked_coordinates(FreeForm(np.full((2, 3, 2), 12.0))),
            r"^FreeForm.coordinates: got positions up to 12",
        ),
        (lambda: Lines(np.zeros((3, 2)), np.ones(2, bool)), r"^moves: got .*\(2,\).*, expected booleans .*\(3,\)"),
        (lambda: Lines(np.zeros((3, 2)), np.ones(3)), r"^moves: got .*float64"),
        (lambda: Lines(np.zeros((3, 2)), samples=0), r"^samples_per_line: got 0"),
        (lambda: Lines(np.zeros((3, 2)), half_width=0.6), r"^half_width: got 0.6, expected a number above 0"),
        (lambda: Lines(np.zeros((3, 2)), eps=2.0), r"^eps: got 2.0"),
        (lambda: Lines(np.zeros((3, 2)), backend="fft"), r"^backend: got 'fft'"),
        (lambda: Lines.start(scene_of(PLANE), KEY, init="posson"), r"^init: got 'posson'.*poisson"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_lines_that_cannot_be_are_refused_by_name(call, says):
    with pytest.raises(UsageError, match=says):
        call()


# Spokes and free samples


@pytest.mark.parametrize("real", [jnp.float32, jnp.float64])
def test_radial_is_spokes_through_the_centre(rng, real):
    """`r (cos φ, sin φ)` for `r` from -0.5 to 0.5, both ends included."""
    angles = rng.uniform(0, 6, 5).astype(real)
    found = Radial(jnp.asarray(angles), 9).coordinates()
    assert (found.shape, found.dtype) == ((5, 9, 2), real)
    for spoke, angle in zip(found, angles, strict=True):
        for sample, r in zip(spoke, np.linspace(-0.5, 0.5, 9), strict=True):
            np.testing.assert_allclose(sample, [r * np.cos(angle), r * np.sin(angle)], atol=1e-7)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        Radial(jnp.asarray(angles), 9).coordinates()


def test_radial_is_its_own_encoding(rng):
    scene, image = scene_of(PLANE, coils=2, rng=rng), some_complex(rng, PLANE)
    angles = jnp.asarray(rng.uniform(0, 3, 4))
    kspace = jax.jit(lambda t: t.encoding(scene).forward(image))
    assert error(kspace(Radial(angles, 9)), kspace(RotatedSpokes(angles, 9))) <= 1e-14


@pytest.mark.parametrize("real", [jnp.float32, jnp.float64])
def test_radial_starts_at_golden_angles(real):
    """From one that follows the key, in the scene's precision; free samples start from the same spokes."""
    scene = scene_of(PLANE, real)
    found = Radial.start(scene, KEY, lines=13, samples=7)
    assert (found.angles.dtype, found.angles.shape, found.samples) == (real, (13,), 7)
    np.testing.assert_allclose(np.diff(np.asarray(found.angles)), np.pi * (5**0.5 - 1) / 2, rtol=1e-5)
    assert 0 <= float(found.angles[0]) < np.pi
    assert float(found.angles[0]) != float(Radial.start(scene, jax.random.key(6)).angles[0])
    free = FreeForm.start(scene, KEY, lines=13, samples=7)
    np.testing.assert_array_equal(free.points, found.coordinates())
    np.testing.assert_array_equal(free.coordinates(), free.points)
    assert np.abs(free.points).max() <= 0.5


def test_trajectories_by_name_start_with_a_scene():
    scene = scene_of((1, 12, 10))
    assert {"lines": Lines, "radial": Radial, "free": FreeForm}.items() <= TRAJECTORIES.items()
    for name in ("lines", "radial", "free", "spiral", "epi", "splines"):
        found = TRAJECTORIES[name].start(scene, KEY, lines=24)
        assert found.readouts() == 24
        assert found.encoding(scene).shape == (1, 12, 10)
