"""Laws of the starting patterns: counts, bounds, grid membership, distances, density, the recipe's centre."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import cKDTree

from acqdesign.encoding.patterns import INITIALISERS, initial_lines

KEY = jax.random.key(11)
OFF_GRID = ("poisson", "spiral")
ON_GRID = ("caipi", "full")


def on_grid(points, shape):
    """Whether each point is exactly (n − N//2) / N in float32."""
    valid = [((np.arange(n) - n // 2) / n).astype(np.float32) for n in shape[1:]]
    return np.isin(points[:, 0], valid[0]) & np.isin(points[:, 1], valid[1])


def grid_units(points, shape):
    return np.asarray(points, np.float64) * np.array(shape[1:])


def test_reference_recipe_is_exact():
    """81 points on a 9×9 grid with half-width 9/2/23, frozen; 172 more, uniform, learned."""
    points, learned = initial_lines("reference", (23, 28, 23), lines=253, key=KEY)
    steps = np.linspace(-9 / 2 / 23, 9 / 2 / 23, 9)
    centre = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
    assert points.shape == (253, 2)
    np.testing.assert_allclose(points[:81], centre, rtol=1e-6)
    np.testing.assert_array_equal(learned, np.arange(253) >= 81)
    others = np.asarray(points[81:])
    assert np.abs(others).max() <= 0.5
    # Mean and variance of 344 uniform numbers, within four standard errors.
    assert abs(others.mean()) < 4 * (1 / 12 / others.size) ** 0.5
    assert abs(others.var() - 1 / 12) < 4 * (1 / 180 / others.size) ** 0.5


def test_a_reference_centre_wider_than_kspace_is_refused():
    with pytest.raises(ValueError, match="lines"):
        initial_lines("reference", (23, 28, 23), lines=2500, key=KEY)


CASES = [
    ("reference", {"lines": 253}),
    ("poisson", {"lines": 253}),
    ("poisson", {"lines": 200, "calibration": 7, "shutter": True}),
    ("spiral", {"lines": 253}),
    ("spiral", {"lines": 200, "calibration": (7, 4), "shutter": True}),
    ("caipi", {"lines": 253}),
    ("caipi", {"lines": 200, "calibration": 7, "shutter": True}),
    ("full", {"lines": 28 * 23}),
]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_count_bounds_dtype_no_line_twice_and_the_same_by_key(name, options):
    once, twice, other = (initial_lines(name, (23, 28, 23), key=jax.random.key(k), **options) for k in (3, 3, 4))
    points, learned = once
    assert points.shape == (options["lines"], 2)
    assert points.dtype == jnp.float32
    assert learned.shape == (options["lines"],)
    assert learned.dtype == bool
    assert np.abs(points).max() <= 0.5
    assert len(np.unique(np.asarray(points), axis=0)) == len(points)
    np.testing.assert_array_equal(once.points, twice.points)
    assert np.array_equal(once.points, other.points) == (name in (*ON_GRID, "spiral"))


@pytest.mark.parametrize("name", ["reference", *OFF_GRID])
@pytest.mark.parametrize("acceleration", [2.0, 4.5])
def test_acceleration_is_grid_over_lines(name, acceleration):
    points, _ = initial_lines(name, (40, 30, 20), acceleration=acceleration, key=KEY)
    assert len(points) == round(600 / acceleration)


@pytest.mark.parametrize("name", [*OFF_GRID, *ON_GRID])
@pytest.mark.parametrize(("shape", "block"), [((1, 24, 20), 6), ((5, 23, 21), (5, 4))])
def test_calibration_block_is_fully_sampled_frozen_and_holds_the_centre(name, shape, block):
    lines = None if name == "full" else 150
    points, learned = initial_lines(name, shape, lines=lines, calibration=block, key=KEY)
    sides = (block, block) if isinstance(block, int) else block
    fixed = np.asarray(points)[~np.asarray(learned)]
    assert len(fixed) == sides[0] * sides[1]
    assert on_grid(fixed, shape).all()
    want = [
        (y, z)
        for y in range(-(sides[0] // 2), sides[0] - sides[0] // 2)
        for z in range(-(sides[1] // 2), sides[1] - sides[1] // 2)
    ]
    np.testing.assert_array_equal(np.rint(grid_units(fixed, shape)), want)
    assert (fixed == 0).all(axis=1).sum() == 1
    # Nothing else is spent where the block already is.
    others = grid_units(np.asarray(points)[np.asarray(learned)], shape)
    low = np.array([-(s // 2) for s in sides]) - 0.5
    assert not ((others > low + 1e-3) & (others < low + sides - 1e-3)).all(axis=1).any()


@pytest.mark.parametrize("name", [*OFF_GRID, *ON_GRID])
def test_shutter_is_the_ellipse(name):
    acceleration = None if name == "full" else 2
    points, _ = initial_lines(name, (1, 24, 16), acceleration=acceleration, shutter=True, key=KEY)
    radius = np.hypot(*(2 * np.asarray(points, np.float64)).T)
    assert radius.max() <= 1 + 1e-6
    assert radius.max() > 0.9


@pytest.mark.parametrize("name", OFF_GRID)
def test_without_calibration_one_line_is_the_centre(name):
    points, _ = initial_lines(name, (1, 30, 31), lines=100, key=KEY)
    assert (np.asarray(points) == 0).all(axis=1).sum() == 1


@pytest.mark.parametrize("shape", [(1, 24, 20), (1, 23, 21), (4, 1, 9), (4, 8, 1)])
@pytest.mark.parametrize("shutter", [False, True])
def test_full_grid_is_every_line_of_it(shape, shutter):
    points = np.asarray(initial_lines("full", shape, shutter=shutter, key=KEY).points)
    assert on_grid(points, shape).all()
    y, z = (((np.arange(n) - n // 2) / n) for n in shape[1:])
    inside = np.add.outer((2 * y) ** 2, (2 * z) ** 2) <= 1 + 1e-9
    assert len(points) == (inside.sum() if shutter else inside.size)


@pytest.mark.parametrize("acceleration", [1, 4, 7, 12])
@pytest.mark.parametrize("shape", [(1, 24, 30), (1, 25, 21)])
def test_caipi_is_a_lattice_of_its_index(shape, acceleration):
    """On the grid, a group under addition (but for the edge), with one point in so many."""
    points = np.asarray(initial_lines("caipi", shape, acceleration=acceleration, key=KEY).points)
    assert on_grid(points, shape).all()
    index = np.rint(grid_units(points, shape)).astype(int)
    lattice = {tuple(i) for i in index}
    near = index[(np.abs(index) <= np.array(shape[1:]) // 4).all(axis=1)]
    for a in near:
        assert {tuple(a + b) for b in near if (np.abs(a + b) <= np.array(shape[1:]) // 2 - 1).all()} <= lattice
    cells = shape[1] * shape[2] / acceleration
    assert abs(len(points) - cells) <= (sum(shape[1:]) / 2 if acceleration > 1 else 0)


@pytest.mark.parametrize(("acceleration", "distance"), [(2, 2**0.5 / 2), (4, 0.5), (8, 0.125**0.5)])
def test_caipi_aliases_lie_as_far_apart_as_known_patterns(acceleration, distance):
    """By the FFT of the mask: the nearest alias of checkerboard, sheared 2×2 and 2×4, in fields of view."""
    shape = (1, 48, 48)
    points = np.asarray(initial_lines("caipi", shape, acceleration=acceleration, key=KEY).points)
    mask = np.zeros(shape[1:])
    mask[tuple(np.rint(grid_units(points, shape)).astype(int).T)] = 1
    psf = np.abs(np.fft.fft2(mask))
    alias = np.argwhere(psf > 0.5 * psf[0, 0])[1:] / 48
    alias -= np.rint(alias)
    assert len(alias) == acceleration - 1
    np.testing.assert_allclose(np.hypot(*alias.T).min(), distance, rtol=1e-12)


def test_caipi_of_four_is_sheared():
    """2×2 has its nearest alias as far away as the sheared lattice, but more of them that near."""
    points = grid_units(initial_lines("caipi", (1, 24, 24), acceleration=4, key=KEY).points, (1, 24, 24))
    rows = [set(points[points[:, 0] == y, 1] % 4) for y in np.unique(points[:, 0])]
    assert any(a != b for a in rows for b in rows)


def test_poisson_disc_keeps_its_distance_when_uniform():
    """Every pair at least 0.78 sqrt(area / lines) apart, where uniform random points come 30 times closer."""
    points = grid_units(initial_lines("poisson", (1, 48, 64), lines=500, decay=0.0, key=KEY).points, (1, 48, 64))
    nearest = cKDTree(points).query(points, k=2)[0][:, 1]
    assert nearest.min() > 0.78 * (48 * 64 / 500) ** 0.5
    # No holes either: no place is further from a point than 1.6 such distances.
    places = np.random.default_rng(0).uniform(-0.5, 0.5, (4000, 2)) * [48, 64]
    assert cKDTree(points).query(places)[0].max() < 1.6 * (48 * 64 / 500) ** 0.5


def test_poisson_disc_keeps_its_distance_where_density_varies():
    """Nearest neighbours over the local spacing 1/sqrt(density) have one bound at every radius."""
    shape = (1, 64, 64)
    points = grid_units(initial_lines("poisson", shape, lines=900, decay=1.5, key=KEY).points, shape)
    nearest = cKDTree(points).query(points, k=2)[0][:, 1]
    radius = np.hypot(*points.T) / 32
    # Outside the fully sampled core the density is c |k|^-1.5; c from the outer lines.
    core = radius < 0.35
    scaled = nearest[~core] * radius[~core] ** -0.75
    assert scaled.min() > 0.55 * np.median(scaled)
    # The core is one line a cell: spacing about 0.83, never below.
    assert 0.75 < nearest[core].min() < 1.0


@pytest.mark.parametrize("name", OFF_GRID)
@pytest.mark.parametrize("decay", [0.0, 2.0])
def test_density_falls_with_the_radius_as_asked(name, decay):
    shape, lines = (1, 96, 64), 1500
    points = np.asarray(initial_lines(name, shape, lines=lines, decay=decay, shutter=True, key=KEY).points)
    radius = np.hypot(*(2 * points.astype(np.float64)).T)
    edges = np.linspace(0, 1, 9)
    count, _ = np.histogram(radius, edges)
    density = count / (np.pi / 4 * 96 * 64 * np.diff(edges**2))
    # c of min(1, c r^-decay) that gives this many lines, by its own sum over rings.
    r = (np.arange(4000) + 0.5) / 4000
    ring = np.pi / 2 * 96 * 64 * r / 4000
    scales = np.exp(np.linspace(-5, 3, 4000))
    totals = np.array([(np.minimum(1, c * r**-decay) * ring).sum() for c in scales])
    c = np.interp(lines, totals, scales)
    want, _ = np.histogram(r, edges, weights=np.minimum(1, c * r**-decay) * ring)
    np.testing.assert_allclose(density, want / (np.pi / 4 * 96 * 64 * np.diff(edges**2)), rtol=0.2)
    if decay:
        assert density[0] > 2 * density[-1]


def test_spiral_turns_by_the_golden_angle():
    points = np.asarray(initial_lines("spiral", (1, 64, 64), lines=400, shutter=True, key=KEY).points, np.float64)
    angle = np.arctan2(points[1:, 1], points[1:, 0])
    steps = np.diff(angle) % (2 * np.pi)
    np.testing.assert_allclose(steps, np.pi * (3 - 5**0.5), atol=1e-4)
    assert (np.diff(np.hypot(*points.T)) > 0).all()


def test_ten_thousand_poisson_lines_take_seconds():
    start = time.perf_counter()
    points, _ = initial_lines("poisson", (1, 220, 220), lines=10_000, key=KEY)
    assert len(points) == 10_000
    assert time.perf_counter() - start < 20


@pytest.mark.parametrize("name", ["poisson", "spiral", "caipi"])
def test_any_sensible_request_is_met_exactly(name, rng):
    for i in range(8):
        shape = (1, *(int(n) for n in rng.integers(2, 30, 2)))
        lines = int(rng.integers(1, shape[1] * shape[2] * 0.7 + 2))
        points, _ = initial_lines(name, shape, lines=lines, decay=float(rng.choice([0, 1, 2])), key=jax.random.key(i))
        assert len(points) == lines
        assert np.abs(points).max() <= 0.5


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("posson", {"lines": 10}, "poisson"),
        ("poisson", {}, "lines"),
        ("poisson", {"lines": 10, "acceleration": 2.0}, "lines"),
        ("poisson", {"lines": 0}, "lines"),
        ("poisson", {"lines": -3}, "lines"),
        ("spiral", {"acceleration": 0.5}, "acceleration"),
        ("spiral", {"acceleration": float("nan")}, "acceleration"),
        ("spiral", {"acceleration": 1e9}, "acceleration"),
        ("poisson", {"lines": 10, "calibration": 4}, "16"),
        ("poisson", {"lines": 100, "calibration": 99}, "calibration"),
        ("poisson", {"lines": 100, "calibration": -1}, "calibration"),
        ("poisson", {"lines": 100, "calibration": (1, 2, 3)}, "calibration"),
        ("poisson", {"lines": 100, "decay": -1.0}, "decay"),
        ("caipi", {"acceleration": 2.5}, "acceleration"),
        ("caipi", {"lines": 10_000}, "lines"),
        ("full", {"lines": 10}, "lines"),
        ("full", {"acceleration": 3.0}, "acceleration"),
        ("reference", {"lines": 100, "shutter": True}, "init"),
        ("reference", {"lines": 100, "calibration": 4}, "init"),
    ],
)
def test_impossible_requests_are_refused_by_name(name, options, says):
    with pytest.raises(ValueError, match=says):
        initial_lines(name, (23, 28, 23), key=KEY, **options)


@pytest.mark.parametrize("shape", [(28, 23), (1, 0, 5), (4, 1, 9)])
def test_shapes_without_a_plane_are_refused(shape):
    with pytest.raises(ValueError, match="shape"):
        initial_lines("poisson", shape, lines=5, key=KEY)


def test_names_are_listed():
    assert set(INITIALISERS) == {"reference", *OFF_GRID, *ON_GRID}
