"""The compiled step: what goes in is given up, and nothing travels between host and device."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from acqdesign.optim.step import State, compile_step, within

KEY = jax.random.key(0)


def compiled(loss, optimizer, state, constrain=lambda params: params):
    return compile_step(loss, optimizer, constrain, state, KEY, (), lambda f, **_: f, None)


def begun(optimizer, params):
    return State(params, optimizer.init(params), jnp.zeros((), jnp.int32))


def test_steps_donate_their_state_and_transfer_nothing():
    """Several steps under JAX's transfer guard; the old state's buffers are the new one's."""
    optimizer = optax.adam(1e-2)
    state = begun(optimizer, {"x": jnp.zeros(256, jnp.float32)})

    def loss(params, key):
        return jnp.sum((params["x"] - jax.random.normal(key, (256,), jnp.float32)) ** 2), {}

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "Some donated buffers were not usable"
        program = compiled(loss, optimizer, state)
        state, _ = program(KEY, state, (), True)
        with jax.transfer_guard("disallow"):
            # A guard that lets this through would show nothing.
            with pytest.raises(Exception, match=r"[Dd]isallowed"):
                jax.jit(lambda x: x + 1)(np.ones(3, np.float32))
            for _ in range(3):
                before = state
                state, record = program(KEY, state, (), True)
    assert before.params["x"].is_deleted()
    assert before.optimizer[0].mu["x"].is_deleted()
    assert int(state.step) == 4
    assert np.isfinite(float(record.loss))


def test_the_part_of_a_gradient_within_a_limit_points_along_it():
    """At a ball's rim the radial part goes; inside, all of the gradient stays."""

    def ball(x):
        return x / jnp.maximum(1.0, jnp.linalg.norm(x))

    gradient = jnp.array([-3.0, 1.0])
    np.testing.assert_allclose(within(ball, jnp.array([1.0, 0.0]), gradient), [0.0, 1.0], atol=0.03)
    np.testing.assert_allclose(within(ball, jnp.array([0.1, 0.2]), gradient), gradient, rtol=1e-12)
