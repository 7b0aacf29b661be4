"""Steps on some planes and anatomies: their mean is that of all, whichever they are; what mixes them is refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.design import Problem, bound, dissimilarity, driver, judge, learn, nrmse, run, squared_error
from acqdesign.design.figures import shown
from acqdesign.encoding import FreeForm
from acqdesign.optim import Callback
from acqdesign.recon import CG, DensityAdjoint, Subspace
from acqdesign.scene import load_scene
from acqdesign.scene.scene import _some_of

from ._problems import KEY, gradient, joint, of_lines, points

SHAPE = (6, 8, 7)


def scene(**more):
    return load_scene("brain", "brain", shape=SHAPE, dtype=np.float64, **more)


def problems():
    images = {"tissue_names": None, "coils": 2, "key": KEY}
    return {
        "lines": of_lines(scene=scene(**images), terms=squared_error(), noise=0.1),
        "joint": joint(scene=scene(), terms=squared_error() + 0.1 * bound("t2"), noise=0.1),
        "subspace": joint(scene=scene(), terms=squared_error(), reconstruction=Subspace(rank=2)),
    }


@pytest.mark.parametrize("name", ["lines", "joint", "subspace"])
def test_the_mean_gradient_over_parts_is_that_of_all(name):
    """To 1e-10 in float64, noise of the same key included: planes as they come, each in one part."""
    problem = problems()[name]
    rest = problem.scene
    parts = [gradient(problem.judged_on(rest.part(planes=p)), KEY) for p in ([4, 0], [1, 5], [3, 2])]
    total, _, slope = gradient(problem)
    np.testing.assert_allclose(np.mean([part[0] for part in parts]), total, rtol=1e-10)
    means = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *(part[2] for part in parts))
    for found, wanted in zip(jax.tree.leaves(means), jax.tree.leaves(slope), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-10 * np.abs(wanted).max())


def test_the_mean_over_anatomies_is_that_of_all():
    problem = of_lines(scene=scene(tissue_names=None, key=KEY), terms=squared_error())
    each = [gradient(problem.judged_on(problem.scene.part(anatomies=[n])))[0] for n in (0, 1)]
    assert abs(each[0] - each[1]) > 1e-6
    np.testing.assert_allclose(np.mean(each), gradient(problem)[0], rtol=1e-10)


@pytest.mark.parametrize(("count", "there"), [(3, 8), (8, 28), (5, 5), (1, 4)])
def test_every_plane_is_taken_as_often(count, there):
    """Each once a step at most; in 4000 steps within five standard deviations of the mean."""
    found = np.asarray(jax.vmap(lambda key: _some_of(key, count, there))(jax.random.split(KEY, 4000)))
    assert all(len(set(row)) == count for row in found[:200].tolist())
    share = count / there
    times = np.bincount(found.ravel(), minlength=there)
    assert np.abs(times - 4000 * share).max() <= 5 * np.sqrt(4000 * share * (1 - share))


def test_a_step_takes_what_its_key_says():
    """The loss is that of the planes drawn; another key draws others; judging takes all."""
    whole = of_lines(scene=scene(tissue_names=None, coils=2), terms=squared_error(), noise=0.1)
    problem = Problem(
        whole.scene, whole.trajectory, terms=squared_error(), noise=0.1, planes_per_step=2, anatomies_per_step=1
    )
    drawn = problem.scan(key=KEY).scene
    assert drawn.shape == (2, 8, 7)
    assert drawn.maps.shape[1] == 1
    np.testing.assert_array_equal(drawn.maps[0, 0], whole.scene.maps[0, 0][drawn.planes[0]])
    losses = [float(gradient(problem, jax.random.key(n))[0]) for n in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    np.testing.assert_allclose(gradient(problem.judged_on(whole.scene))[0], gradient(whole)[0], rtol=1e-12)


def test_as_many_as_there_are_change_nothing():
    problem = of_lines(scene=scene(tissue_names=None))
    same = Problem(problem.scene, problem.trajectory, planes_per_step=6, anatomies_per_step=2)
    assert same.of_a_step is None
    assert eqx.tree_equal(gradient(problem), gradient(same))


def test_a_run_reports_and_resumes_on_all(tmp_path):
    """Losses of the summary are those of the whole; a run in two parts is the run, to the bit."""
    made = of_lines(shape=SHAPE, terms=squared_error(), dtype=np.float32)
    problem = Problem(made.scene, made.trajectory, terms=squared_error(), planes_per_step=2)
    plain = {"figures": False, "progress": False, "optimizer": None, "key": KEY}
    found = run(problem, 6, out=tmp_path / "whole", **plain)
    assert found.result.final_loss == pytest.approx(found.numbers["nrmse"] ** 2, rel=1e-4)
    assert found.result.final_loss < found.result.initial_loss
    # The log, and so its figure, says the same as the summary.
    ends = found.history["loss_on_all"][[0, -1]]
    np.testing.assert_array_equal(ends, [found.result.initial_loss, found.result.final_loss])

    class Stop(Callback):
        def after(self, fit):
            fit.stop = "time" if fit.done == 3 else ""

    run(problem, 6, out=tmp_path / "parts", callbacks=[Stop()], **plain)
    again = run(problem, 6, out=tmp_path / "parts", resume=True, **plain)
    np.testing.assert_array_equal(again.design.trajectory.points, found.design.trajectory.points)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"planes_per_step": 7}, "planes_per_step: got 7, expected 1 to 6"),
        ({"planes_per_step": 0}, "planes_per_step: got 0, expected 1 to 6"),
        ({"anatomies_per_step": 3}, "anatomies_per_step: got 3, expected 1 to 2"),
        ({"planes_per_step": 2, "terms": dissimilarity()}, "planes_per_step: got 2 with the term dissimilarity"),
        ({"planes_per_step": 2, "terms": squared_error() + nrmse()}, "planes_per_step: got 2 with the term nrmse"),
        ({"planes_per_step": 2, "reconstruction": DensityAdjoint()}, "planes_per_step: got 2 with DensityAdjoint"),
        (
            {"planes_per_step": 2, "trajectory": FreeForm(points(8).reshape(4, 2, 2))},
            "got 2 with FreeForm, which mixes",
        ),
    ],
)
def test_what_is_not_the_mean_of_its_parts_is_refused(changes, said):
    made = of_lines(scene=scene(tissue_names=None))
    arguments = {"terms": squared_error(), "reconstruction": CG(), "trajectory": made.trajectory} | changes
    with pytest.raises(UsageError, match=said):
        Problem(made.scene, arguments.pop("trajectory"), **arguments)


def test_planes_of_a_step_that_devices_cannot_share_are_refused():
    made = of_lines(shape=SHAPE)
    problem = Problem(made.scene, made.trajectory, terms=squared_error(), planes_per_step=2)
    with pytest.raises(UsageError, match="mesh: got planes=3 with 2 planes a step, expected a divisor of 2"):
        learn(problem, 1, mesh=jax.sharding.Mesh(jax.devices() * 3, ("planes",)))


def test_the_held_out_curve_of_a_large_volume_looks_at_planes_spread_over_it(monkeypatch):
    """What is found is judged on all of it; of a volume that steps take whole, the curve is of all too."""
    monkeypatch.setattr(driver, "CURVE_PLANES", 3)
    images = {"tissue_names": None, "dtype": np.float64}
    here, other = (load_scene("brain", shape=SHAPE, **images, **more) for more in ({}, {"contrast": "T2w"}))
    for some, seen in (({"planes_per_step": 2}, [1, 3, 5]), ({}, range(6))):
        problem = of_lines(scene=here, terms=squared_error(), **some)
        found = run(problem, 2, held=other, figures=False, progress=False)
        judging = problem.judged_by(nrmse())
        errors = [
            float(judge(judging.judged_on(scene), found.design, KEY, jnp.int32(1))[0]["nrmse"])
            for scene in (other.part(planes=list(seen)), other)
        ]
        assert found.history["nrmse_held_out"][-1] == pytest.approx(errors[0], rel=1e-9)
        assert found.numbers["nrmse_held_out"] == pytest.approx(errors[1], rel=1e-9)


def test_where_planes_are_apart_a_point_spreads_in_its_own():
    """What the figures show: of one plane, and the same as of the whole volume."""
    problem = of_lines(scene=scene(tissue_names=None, coils=2), terms=squared_error())
    found = run(problem, 1, figures=False, progress=False)
    whole = problem.judged_by(reconstruction=DensityAdjoint()).scan(found.design).point_spread
    np.testing.assert_allclose(shown(found)["psf"], whole, rtol=1e-12)
