"""Optimisers and schedules by name: each descends, and L-BFGS reaches the minimum over a convex set."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.optim import OPTIMIZERS, SCHEDULES, Limits, make_optimizer, make_schedule

from ._fits import run, start


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - {"lbfgs"}))
def test_every_optimizer_descends(name):
    rate = {"lion": 0.02, "sgd": 0.05, "momentum": 0.02}.get(name, 0.05)
    tool = make_optimizer(name, rate, steps=120)
    result = run(params=start(np.float32), optimizer=tool, steps=120)
    assert result.final_loss < 0.5 * result.initial_loss


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_peak_at_lr_and_end_where_they_say(name):
    rates = np.array([make_schedule(name, 0.3, 50)(step) for step in range(51)])
    np.testing.assert_allclose(rates.max(), 0.3, rtol=1e-6)
    ends = {"constant": 0.3, "exponential": 0.003}.get(name, 0.0)
    np.testing.assert_allclose(rates[-1], ends, atol=1e-7)


def test_clipping_bounds_the_step():
    tool = make_optimizer("sgd", 1.0, steps=1, clip=0.1)
    result = run(optimizer=tool, steps=1)
    np.testing.assert_allclose(np.linalg.norm(result.params["x"] - 1.0), 0.1, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "adm"}, "optimizer: got 'adm', expected one of adam.* Did you mean 'adam'"),
        ({"lr": 0.0}, "lr: got 0.0"),
        ({"lr": -1.0}, "lr: got -1.0"),
        ({"schedule": "cos"}, "schedule: got 'cos'.*Did you mean"),
        ({"steps": 0}, "steps: got 0"),
        ({"clip": -1.0}, "clip: got -1.0"),
        ({"name": "lbfgs", "schedule": "cosine"}, "'lbfgs' with schedule 'cosine'"),
    ],
)
def test_make_optimizer_refuses(options, message):
    settings = {"name": "adam", "lr": 0.1, "steps": 10} | options
    with pytest.raises(ValueError, match=message):
        make_optimizer(settings.pop("name"), settings.pop("lr"), **settings)


@pytest.mark.parametrize(
    ("limits", "dtype"),
    [
        (Limits(0.0, 2.5), np.float32),
        (Limits(0.2, 3.0, rms=1.5), np.float64),
        pytest.param(Limits(0.0, 9.0, step=0.5), np.float64, marks=pytest.mark.slow),
    ],
    ids=["range", "power", "step"],
)
def test_lbfgs_reaches_the_constrained_minimum(limits, dtype):
    """An ill-conditioned quadratic: the minimum over the set by a projected gradient run to convergence."""
    rng = np.random.default_rng(5)
    basis = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    matrix, target = basis @ np.diag(np.logspace(0, 2, 12)) @ basis.T, np.linspace(-1, 4, 12)

    def loss(params, key):
        misfit = params["x"] - target.astype(dtype)
        return 0.5 * misfit @ jnp.asarray(matrix, dtype) @ misfit, {}

    def descend(x, _):
        return limits.project(x - 0.01 * matrix @ (x - target)), None

    exact = jax.lax.scan(descend, limits.project(jnp.ones(12)), length=4000)[0]
    tool, project = make_optimizer("lbfgs", steps=120), lambda p: {"x": limits.project(p["x"])}
    result = run(loss, start(dtype, (12,)), optimizer=tool, project=project, steps=120)
    best = 0.5 * (exact - target) @ matrix @ (exact - target)
    assert result.final_loss - best <= (1e-4 if dtype == np.float32 else 1e-6) * best
    assert (np.diff(result.history["loss"]) <= 1e-6 * result.history["loss"][1:]).all()
