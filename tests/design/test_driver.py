"""The driver: what a run writes, resumes, compares and judges, for a problem of any halves."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.base.trees import leaf_names
from acqdesign.design import Design, Held, Problem, adam, bound, learn, nrmse, run
from acqdesign.encoding import Lines, Radial
from acqdesign.export import read_design
from acqdesign.optim import Callback, Limits, lbfgs
from acqdesign.plot import write_run
from acqdesign.recon import CG
from acqdesign.scene import brain, tissues
from acqdesign.signal import FSE

from ._problems import KEY, PLANE, joint, loss, of_lines, points

QUIET = {"progress": False, "key": KEY}


def flips(**more):
    train = FSE(jnp.linspace(0.5, 1.2, 6), 0.01)
    limits = [Limits(rms=1.0)]
    return Problem(tissues("wm", "gm"), sequence=train, terms=bound("t2"), limits=limits, **more)


class Interrupted(Callback):
    """Stops after the second step, as a signal would."""

    def after(self, fit):
        if fit.done == 2:
            fit.stop = "SIGTERM"


WRITTEN = {"config.json", "design.npz", "figures.npz", "history.csv", "report.html", "summary.json", "loss.png"}
OF_IMAGES = {"trajectory.png", "reconstruction.png", "psf.png", "learning.gif"}
SUMMARY = {"initial_loss", "final_loss", "seconds_per_step", "compile_seconds", "peak_memory_bytes", "steps"}


def check_written(folder, found, files, numbers):
    """These files and no less of the summary, and the design that was learned."""
    assert WRITTEN | files <= {path.name for path in folder.iterdir()}
    assert SUMMARY | numbers <= set(json.loads((folder / "summary.json").read_text()))
    held = read_design(folder)
    for name, value in found.design.entries().items():
        if value is not None:
            np.testing.assert_array_equal(held[name], np.asarray(value).astype(held[name].dtype))


def test_a_run_writes_what_it_found_and_a_broken_off_one_ends_as_if_it_had_not_been(tmp_path):
    """The design that was learned, its scores and figures; resumed bit for bit."""
    problem = joint()
    whole = run(problem, 4, out=tmp_path / "whole", **QUIET)
    numbers = {"nrmse", "psnr", "nrmse_held_out", "rms_flip_deg"}
    check_written(tmp_path / "whole", whole, OF_IMAGES | {"flips.png", "echoes.png"}, numbers)
    pictures = {path.name: path.read_bytes() for path in (tmp_path / "whole").glob("*.*g*")}
    write_run(tmp_path / "whole")  # draws the same again
    assert {path.name: path.read_bytes() for path in (tmp_path / "whole").glob("*.*g*")} == pictures
    run(problem, 4, out=tmp_path / "half", callbacks=[Interrupted()], figures=False, **QUIET)
    assert json.loads((tmp_path / "half" / "summary.json").read_text())["stopped"] == "SIGTERM"
    again = run(problem, 4, out=tmp_path / "half", resume=True, figures=False, **QUIET)
    for one, other in zip(jax.tree.leaves(again.design), jax.tree.leaves(whole.design), strict=True):
        np.testing.assert_array_equal(one, other)
    # An interrupted run judges what it had; a finished one judges the same as one in one go.
    assert again.numbers == whole.numbers


def test_a_run_of_flips_alone_writes_bounds_and_quasi_newton_steps_lower_them(tmp_path):
    found = run(flips(), 8, optimizer=lbfgs(), out=tmp_path, **QUIET)
    check_written(tmp_path, found, {"flips.png", "echoes.png", "bounds.png", "bound_map.png"}, {"bounds", "gain"})
    assert found.numbers["gain"] > 1.1
    assert np.sqrt(np.mean(found.design.sequence.flips**2)) <= 1.0 + 1e-6


def test_what_is_held_out_is_judged_and_never_learned_on(tmp_path, monkeypatch):
    """It changes no bit of the design, and its error is that of the design on it; with and without a folder."""
    monkeypatch.chdir(tmp_path)
    problem = of_lines(PLANE, samples=1, noise=0.01)
    other = brain(PLANE, contrast="T2w", dtype=np.float64)
    with_it = run(problem, 3, held=Held(other, 0.02), **QUIET)
    assert with_it.numbers["nrmse"] < with_it.numbers["initial_nrmse"]
    assert not list(tmp_path.iterdir())
    without = run(problem, 3, out=tmp_path / "run", **QUIET)
    check_written(tmp_path / "run", without, OF_IMAGES, {"nrmse", "psnr"})
    np.testing.assert_array_equal(with_it.design.trajectory.points, without.design.trajectory.points)
    judged = problem.judged_on(other, 0.02)
    errors = [float(loss(judged, with_it.design, k)) for k in jax.random.split(KEY, 30)]
    assert with_it.numbers["nrmse_held_out"] == pytest.approx(np.mean(errors), rel=0.02)
    curve = with_it.history["nrmse_held_out"]
    assert np.isfinite(curve[[0, -1]]).all()


def test_designs_are_compared_with_those_learned_with_the_same_budget():
    problem = joint()
    found = run(problem, 2, beside={"flips": problem.learning("sequence")}, name="joint", **QUIET)
    assert set(found.numbers["compare"]) == {"none", "joint", "flips"}
    assert all(np.isfinite(score["nrmse"]) for score in found.numbers["compare"].values())
    np.testing.assert_array_equal(found.beside["flips"].trajectory.points, problem.trajectory.points)
    alone = learn(problem.learning("sequence"), 2, key=jax.random.fold_in(KEY, 0))[1]
    np.testing.assert_array_equal(found.beside["flips"].sequence.flips, alone.sequence.flips)


def test_the_best_of_several_starts_is_kept_and_compared_with_the_first():
    problem = of_lines(PLANE, samples=1)
    starts = [Design(Lines(points(20, seed=s), samples=1), None) for s in range(3)]
    found = run(problem, 2, starts=starts, **QUIET)
    losses = found.result.start_losses
    assert found.result.start == int(np.argmin(losses))
    assert found.result.final_loss == min(losses)
    np.testing.assert_array_equal(found.start.trajectory.points, starts[0].trajectory.points)
    np.testing.assert_array_equal(found.origin.trajectory.points, starts[found.result.start].trajectory.points)


@pytest.mark.parametrize(
    "make",
    [
        lambda scene: Problem(scene, Radial.start(scene, KEY, lines=5, samples=10)),
        lambda scene: Problem(scene, Lines.poisson(scene, lines=24), FSE(echoes=6, esp=5e-3)),
    ],
    ids=["spokes", "both"],
)
def test_starts_by_number_are_made_by_the_parts_themselves(make):
    """As many readouts as the problem's own, elsewhere; what moves are each part's own arrays."""
    problem = make(brain(PLANE))
    found = run(problem, 1, starts=3, **QUIET)
    assert len(set(found.result.start_losses.tolist())) == 3
    own, moved = (leaf_names(problem.split(design)[0]) for design in (problem.design, found.design))
    assert all(not np.array_equal(own[name], leaf) for name, leaf in moved.items())


def test_each_half_has_its_own_optimiser():
    problem = joint()
    slow = adam(2, trajectory=1e-9)
    _, found, _ = learn(problem, 2, optimizer=slow, key=KEY)
    np.testing.assert_allclose(found.trajectory.points, problem.trajectory.points, atol=1e-8)
    assert float(jnp.abs(found.sequence.flips - problem.sequence.flips).max()) > 1e-2


def test_another_reconstruction_may_judge():
    problem = of_lines(PLANE, samples=1)
    found = run(problem, 1, judged_by=CG(iterations=3), **QUIET)
    want = float(loss(problem.judged_by(nrmse(), CG(iterations=3)), found.design))
    assert found.numbers["nrmse"] == pytest.approx(want, rel=1e-9)
    assert "loss" not in found.numbers


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda out: run(flips(), 0, **QUIET), "steps: got 0"),
        (lambda out: run(flips(), 2, resume=True, **QUIET), "resume: got True without out"),
        (lambda out: run(flips(), 2, out=out / "run", **QUIET), "--out: got .*which holds a run"),
        (lambda out: run(flips(), 2, out=out / "file", **QUIET), "--out: got .*which is a file"),
        (lambda out: run(flips(), 2, starts=0, **QUIET), "starts: got 0"),
    ],
)
def test_wrong_use_is_told_before_anything_is_written(tmp_path, call, message):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "design.npz").write_bytes(b"mine")
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(UsageError, match=message):
        call(tmp_path)
    assert (tmp_path / "run" / "design.npz").read_bytes() == b"mine"
