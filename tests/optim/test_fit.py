"""The fit loop: one compilation, several starts, arrays that a start brings along, and errors that say what broke."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from acqdesign.optim import Box, Checkpoints, Limits, NonFiniteError, Snapshots, make_optimizer, project_onto

from ._fits import KEY, bowl, run, start

both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@both_dtypes
def test_adam_finds_the_best_point_of_a_power_limit(dtype):
    """Of all x of one root mean square, c·x is largest at x ∝ c; entry-wise scaling alone would end at equal ones."""
    slopes, limits = jnp.arange(1, 6, dtype=dtype), Limits(0.0, 9.0, rms=1.0)
    result = run(
        lambda params, key: (-jnp.sum(slopes * params["x"]), {}),
        start(dtype),
        steps=200,
        optimizer=make_optimizer("adam", 0.05, steps=200, schedule="cosine"),
        project=lambda params: {"x": limits.project(params["x"])},
    )
    np.testing.assert_allclose(result.params["x"], slopes / jnp.sqrt(jnp.mean(slopes**2)), rtol=2e-3)


def test_constraints_that_do_not_bind_change_nothing():
    free, boxed = run(), run(project=lambda params: {"x": jnp.clip(params["x"], -9, 9)})
    np.testing.assert_array_equal(free.params["x"], boxed.params["x"])


@both_dtypes
def test_equals_the_plain_optax_loop(dtype):
    result = run(params=start(dtype), steps=8)
    params, tool = start(dtype), optax.adam(0.05)
    state, losses = tool.init(params), []
    for step in range(8):
        (loss, _), grads = jax.value_and_grad(bowl, has_aux=True)(params, jax.random.fold_in(KEY, step))
        updates, state = tool.update(grads, state)
        params = optax.apply_updates(params, updates)
        losses.append(loss)
    tolerance = 1e-6 if dtype == np.float32 else 1e-13
    np.testing.assert_allclose(result.params["x"], params["x"], rtol=tolerance)
    np.testing.assert_allclose(result.history["loss"][:8], losses, rtol=tolerance)
    assert result.params["x"].dtype == dtype


def test_the_log_holds_values_before_each_update_and_the_final_ones():
    result = run(steps=10, log_every=4)
    np.testing.assert_array_equal(result.history["step"], [0, 4, 8, 10])
    first, _ = bowl(start(), jax.random.fold_in(KEY, 0))
    last, _ = bowl(result.params, jax.random.fold_in(KEY, 10))
    np.testing.assert_allclose(result.initial_loss, first, rtol=1e-14)
    np.testing.assert_allclose(result.final_loss, last, rtol=1e-14)
    assert list(result.history) == ["step", "loss", "square"]
    assert result.verdict == "improving"


@pytest.mark.parametrize("starts", [None, 3])
def test_the_loss_is_traced_once_and_never_again(starts):
    traces = 0

    def counted(params, key):
        nonlocal traces
        traces += 1
        return bowl(params, key)

    params = start(shape=(5,) if starts is None else (starts, 5))
    run(counted, params, starts=starts, log_every=3, callbacks=[Snapshots(5)])
    assert traces == 1


def test_between_log_points_nothing_is_moved_to_the_host():
    """The guard refuses every implicit transfer that the loop could make; log points ask explicitly."""
    with jax.transfer_guard_device_to_host("disallow"):
        result = run(steps=20, log_every=10)
    assert result.steps == 20


def test_how_often_the_host_looks_changes_nothing():
    often, seldom = (run(steps=17, log_every=n) for n in (1, 8))
    np.testing.assert_array_equal(seldom.params["x"], often.params["x"])
    np.testing.assert_array_equal(seldom.history["step"], [0, 8, 16, 17])
    np.testing.assert_array_equal(seldom.history["loss"], often.history["loss"][[0, 8, 16, 17]])


class Two(eqx.Module):
    """A tree of modules for projections."""

    x: jax.Array


@pytest.mark.parametrize("name", ["adamw", "lbfgs"])
def test_held_entries_stay_to_the_bit_whatever_the_optimizer_and_projection_do(name):
    """Held entries may lie outside the limits, and where the loss's derivative is infinite."""
    learned = np.array([True, False, True, False, True])
    params = Two(jnp.array([0.1, 0.7, -0.2, 9.3, 0.4]))

    def broken_where_held(params, key):
        x = jnp.where(learned, params.x, jax.lax.stop_gradient(params.x))
        loss, terms = bowl({"x": x}, key)
        return loss + jnp.where(x[1] > 0, jnp.sqrt(x[1] - 0.7), 0.0), terms

    kept = {"x": (learned, params.x)}
    result = run(
        broken_where_held,
        params,
        optimizer=make_optimizer(name, 0.1, steps=30),
        project=lambda p: project_onto(p, [Box("x", 0.0, 3.0)], kept),
    )
    moved = np.asarray(result.params.x)
    np.testing.assert_array_equal(moved[[1, 3]], [0.7, 9.3])
    assert np.abs(moved[[0, 2, 4]] - np.asarray(params.x)[[0, 2, 4]]).min() > 0.05


def test_every_point_the_loss_sees_is_in_the_set():
    def project(params):
        return {"x": jnp.clip(params["x"], 0.5, 2.5)}

    shots = Snapshots(1)
    result = run(params={"x": jnp.full(5, 9.0)}, project=project, steps=200, callbacks=[shots])
    seen = np.stack([params["x"] for params in shots.of(None)])
    assert len(seen) == 201
    assert seen.min() >= 0.5
    assert seen.max() <= 2.5
    np.testing.assert_allclose(result.params["x"], [0.5, 1, 2, 2.5, 2.5], atol=0.02)


def test_several_starts_go_side_by_side_and_the_best_is_kept():
    def two_valleys(params, key):
        x = params["x"]
        return jnp.sum((x**2 - 1) ** 2 + 0.3 * x), {}

    starts, shots = {"x": jnp.array([[0.8], [-0.7], [2.0]])}, Snapshots(50)
    together = run(two_valleys, starts, starts=3, steps=200, callbacks=[shots])
    alone = [run(two_valleys, {"x": row}, steps=200) for row in starts["x"]]
    np.testing.assert_allclose(together.start_losses, [one.final_loss for one in alone], rtol=1e-10)
    assert together.start == 1
    np.testing.assert_allclose(together.params["x"], alone[1].params["x"], rtol=1e-10)
    np.testing.assert_allclose(together.history["loss"], alone[1].history["loss"], rtol=1e-10)
    assert [params["x"].shape for params in shots.of(together.start)] == 5 * [(1,)]
    assert [params["x"].shape for params in shots.of(None)] == 5 * [(3, 1)]
    np.testing.assert_array_equal(shots.of(together.start)[-1]["x"], together.params["x"])


def test_a_start_that_breaks_is_left_behind():
    def root(params, key):
        return jnp.sum(jnp.sqrt(params["x"])), {}

    result = run(root, {"x": jnp.array([[-1.0], [2.0]])}, starts=2, steps=5)
    assert result.start == 1
    assert np.isnan(result.start_losses[0])
    assert np.isfinite(result.final_loss)


@pytest.mark.parametrize("starts", [None, 3])
def test_what_a_start_brings_along_reaches_its_own_loss_and_projection_and_stays(starts):
    """Each start has a goal and a ceiling of its own; none of them is learned."""
    goals = jnp.array([[1.0, 2.0], [3.0, 4.0], [0.5, -1.0]])
    ceilings = jnp.array([5.0, 2.5, 0.0])
    brought = {"goal": goals, "ceiling": ceilings}
    params = {"x": jnp.zeros((3, 2))}
    if starts is None:
        params, brought = jax.tree.map(lambda leaf: leaf[1], (params, brought))

    shots = Snapshots(200)
    result = run(
        lambda p, key, given: (jnp.sum((p["x"] - given["goal"]) ** 2), {}),
        params,
        starts=starts,
        given=brought,
        project=lambda p, given: {"x": jnp.minimum(p["x"], given["ceiling"])},
        optimizer=optax.sgd(0.1),
        steps=200,
        callbacks=[shots],
    )
    reached = np.minimum(goals, ceilings[:, None])
    found = shots.of(None)[-1]["x"]
    np.testing.assert_allclose(found, reached if starts else reached[1], atol=1e-12)
    if starts:
        assert result.start == 0
        np.testing.assert_allclose(result.start_losses, [0, 0.25 + 2.25, 0.25], atol=1e-12)
    np.testing.assert_array_equal(goals, [[1.0, 2.0], [3.0, 4.0], [0.5, -1.0]])


def test_what_a_start_brings_along_is_an_argument_of_the_compiled_step():
    """Not a constant in it: the loss is traced once, for all starts, and sees no numbers."""
    seen = []

    def loss(params, key, given):
        seen.append(isinstance(given, jax.core.Tracer))
        return jnp.sum((params["x"] - given) ** 2), {}

    run(loss, {"x": jnp.zeros((2, 3))}, starts=2, given=jnp.ones((2, 3)), steps=3)
    assert seen == [True]


@pytest.mark.parametrize("log_every", [1, 4, 10])
def test_what_is_not_finite_stops_with_the_step_the_term_and_the_last_good_state(tmp_path, log_every):
    def falls_off(params, key):
        edge = jnp.sum(jnp.log(params["x"]))
        return jnp.sum(params["x"]) + 0 * edge, {"edge": edge, "sum": jnp.sum(params["x"])}

    with pytest.raises(NonFiniteError, match="step 10: not finite: term 'edge', loss") as caught:
        run(
            falls_off,
            {"x": jnp.full(2, 1.0)},
            optimizer=optax.sgd(0.11),
            log_every=log_every,
            callbacks=[Checkpoints(tmp_path, every=1000)],
        )
    # Nine steps of 0.11 leave 0.01; the tenth goes below zero, where the eleventh cannot be taken.
    assert caught.value.step == 10
    np.testing.assert_allclose(caught.value.params["x"], -0.1, atol=1e-12)
    assert (tmp_path / "step-00000010.json").exists()
    assert caught.value.saved == tmp_path / "step-00000010.json"
    assert f"kept in {caught.value.saved}." in str(caught.value)


def test_a_gradient_that_is_not_finite_is_named():
    def kink(params, key):
        return jnp.sum(jnp.sqrt(params["a"])) + params["b"][0], {}

    with pytest.raises(NonFiniteError, match="step 0: not finite: gradient of a") as caught:
        run(kink, {"a": jnp.zeros(2), "b": jnp.zeros(1)}, optimizer=optax.sgd(0.1))
    assert "gradient of b" not in str(caught.value)


def test_arrays_of_a_loss_that_is_a_pytree_are_arguments():
    class Misfit(eqx.Module):
        target: jax.Array

        def __call__(self, params, key):
            return jnp.sum((params["x"] - self.target) ** 2), {}

    result = run(Misfit(jnp.full(5, 1.5)), optimizer=optax.adam(0.1), steps=200)
    np.testing.assert_allclose(result.params["x"], 1.5, atol=1e-3)


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [(lambda x: jnp.sum(x**2), "settled"), (lambda x: -jnp.sum(x), "improving"), (lambda x: 0 * x[0], "stalled")],
)
def test_the_verdict_names_what_the_loss_did(losses, verdict):
    result = run(lambda p, key: (losses(p["x"]), {}), optimizer=optax.adam(0.1), steps=300)
    assert result.verdict == verdict


def test_a_diverging_run_is_named():
    result = run(lambda p, key: (jnp.sum(p["x"] ** 2), {}), optimizer=optax.sgd(1.1), steps=20)
    assert result.verdict == "diverged"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps: got 0"),
        ({"log_every": 0}, "log_every: got 0"),
        ({"starts": 0}, "starts: got 0"),
        ({"params": {}}, "params: got a tree without arrays"),
        ({"params": {"x": jnp.arange(3)}}, "params: got an array of shape .* and dtype int"),
        ({"starts": 4}, "params: got .* first axis of length starts=4"),
        ({"project": lambda p: {"x": p["x"][:2]}}, "project: got a map from"),
        ({"loss": lambda p, key: jnp.sum(p["x"])}, "loss: got a return value of type"),
        ({"loss": lambda p, key: (p["x"], {})}, "loss: loss: got an array of shape \\(5,\\)"),
        ({"loss": lambda p, key: (p["x"][0], {"step": p["x"][0]})}, "loss: got a term named 'step'"),
    ],
)
def test_fit_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        run(**options)


def test_callers_arrays_survive_and_nothing_warns():
    params = start()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(params=params)
    np.testing.assert_array_equal(params["x"], np.ones(5))
