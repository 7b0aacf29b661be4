"""Laws of lines on the grid: distinct cells, the nearest ones, and in them at the end of learning."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.design import Problem, learn
from acqdesign.encoding import GridLines, Lines
from acqdesign.encoding.grid import ToGrid, nearest_cells
from acqdesign.export import read_positions, write_design
from acqdesign.scene import brain

GRID = (7, 6)


def cells_of(points, grid=GRID):
    index = np.asarray(points, np.float64) * grid + np.array(grid) // 2
    np.testing.assert_allclose(index, np.round(index), atol=1e-5)
    return [tuple(cell) for cell in np.round(index).astype(int)]


@pytest.mark.parametrize("real", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("count", [5, 42])
def test_lines_get_distinct_cells(rng, real, count):
    """Wherever they are, crowded or outside, and all cells where there are as many lines."""
    points = jnp.asarray(np.concatenate([np.full((3, 2), 0.1), rng.uniform(-0.9, 0.9, (count - 3, 2))]), real)
    found = jax.jit(nearest_cells, static_argnums=1)(points, GRID)
    assert found.dtype == real
    cells = cells_of(found)
    assert len(set(cells)) == count
    assert all(0 <= y < 7 and 0 <= z < 6 for y, z in cells)


def test_lines_with_room_are_drawn_to_the_nearest_cell_and_those_near_are_there(rng):
    at = rng.permutation(42)[:12]
    exact = (np.stack([at // 6, at % 6], -1) - np.array([3, 3])) / GRID
    away = rng.uniform(0.2, 0.4, exact.shape) * rng.choice([-1, 1], exact.shape) / GRID
    away[:4] /= 10
    moved = jnp.asarray(exact + away)
    np.testing.assert_allclose(nearest_cells(moved, GRID), exact, atol=1e-12)
    found = ToGrid("points", GRID, 1.0).project(moved) - exact
    np.testing.assert_allclose(found[:4], 0, atol=1e-12)
    np.testing.assert_allclose(found[4:], 0.8 * away[4:], atol=1e-12)


@pytest.mark.parametrize("optimizer", [None, optax.adam(1e-2)], ids=["falling", "constant"])
def test_learned_lines_end_on_the_grid_image_better_and_are_a_mask(tmp_path, optimizer):
    """Whatever the learning rate. What is held stays in its cell; the mask written is read as the same lines."""
    scene = brain((4, 24, 20))
    start = GridLines.start(scene, jax.random.key(0), lines=80)
    problem = Problem(scene, start, noise=0.02)
    result, design, _ = learn(problem, 40, optimizer=optimizer)
    assert problem.loss(design, jax.random.key(1))[0] < 0.96 * result.initial_loss
    lines = design.trajectory
    cells = cells_of(lines.points, (24, 20))
    assert len(set(cells)) == 80
    held = Lines.start(scene, jax.random.key(0), lines=80)
    np.testing.assert_array_equal(lines.points[~start.moves], held.points[~held.moves])
    for name in ("a.npy", "a.txt"):
        write_design(tmp_path / name, {**lines.design(), "shape": np.array(scene.shape)})
        assert set(cells_of(read_positions(tmp_path / name)["points"], (24, 20))) == set(cells)


@pytest.mark.parametrize(("points", "says"), [([[0.01, 0.0]], "0.24 cells off"), ([[0.0, 0.0]] * 2, "1 of them where")])
def test_lines_that_are_no_mask_are_refused(points, says, tmp_path):
    with pytest.raises(UsageError, match=f"design: got lines up to .*{says}"):
        write_design(tmp_path / "a.npy", {"points": np.array(points), "shape": np.array([4, 24, 20])})


def test_more_lines_than_cells_are_refused():
    with pytest.raises(UsageError, match=r"^points: got 43 lines, expected at most 42"):
        GridLines(jnp.zeros((43, 2)), grid=GRID, samples=4)
