"""A small fit for the laws of this folder, and nearest points by another solver."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.optimize import minimize

from acqdesign.optim import fit

KEY = jax.random.key(7)


def bowl(params, key):
    """A quadratic with its least value at 0, 1, 2, …, and noise that depends on the step's key."""
    square = jnp.sum((params["x"] - jnp.arange(params["x"].size)) ** 2)
    noise = 1e-3 * jax.random.normal(key, dtype=square.dtype) * jnp.sum(params["x"])
    return square + noise, {"square": square}


def start(dtype=np.float64, shape=(5,)):
    return {"x": jnp.ones(shape, dtype)}


def run(loss=bowl, params=None, **options):
    """Thirty steps of Adam unless said otherwise."""
    settings = {"optimizer": optax.adam(0.05), "steps": 30, "key": KEY} | options
    return fit(loss, start() if params is None else params, **settings)


def nearest(x, begin, bounds, *inequalities):
    """The point nearest to `x` within bounds where no inequality is negative, by sequential quadratic programming."""
    found = minimize(
        lambda z: np.sum((z - x) ** 2), begin, jac=lambda z: 2 * (z - x), bounds=bounds, method="SLSQP",
        constraints=[{"type": "ineq", "fun": inequality} for inequality in inequalities],
        options={"ftol": 1e-15, "maxiter": 500},
    )  # fmt: skip
    return found.x
