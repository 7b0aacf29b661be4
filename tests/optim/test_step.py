"""The compiled step: what goes in is given up, and nothing travels between host and device."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from acqdesign.optim.step import State, compile_step


@pytest.mark.parametrize("steps_per_call", [1, 3])
def test_steps_donate_their_state_and_transfer_nothing(steps_per_call):
    """Several steps under JAX's transfer guard; the old state's buffers are the new one's."""
    optimizer = optax.adam(1e-2)
    params = {"x": jnp.zeros(256, jnp.float32)}
    state = State(params, optimizer.init(params), jnp.zeros((), jnp.int32))

    def loss(params, key):
        return jnp.sum((params["x"] - jax.random.normal(key, (256,), jnp.float32)) ** 2), {}

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "Some donated buffers were not usable"
        program = compile_step(
            loss,
            optimizer,
            lambda new, _: new,
            None,
            state,
            jax.random.key(0),
            steps_per_call,
            lambda f, **_: f,
            None,
        )
        key = jax.random.key(0)
        state, _ = program(key, state, steps_per_call)
        with jax.transfer_guard("disallow"):
            # A guard that lets this through would show nothing.
            with pytest.raises(Exception, match=r"[Dd]isallowed"):
                jax.jit(lambda x: x + 1)(np.ones(3, np.float32))
            for _ in range(3):
                before = state
                state, record = program(key, state, steps_per_call)
    assert before.params["x"].is_deleted()
    assert before.optimizer[0].mu["x"].is_deleted()
    assert int(state.step) == 4 * steps_per_call
    assert np.isfinite(float(record.loss))
