"""The fit loop: one compilation, exact freezing, resuming and stopping, and errors that say what broke."""

import os
import signal
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from acqdesign.optim import (
    OPTIMIZERS,
    SCHEDULES,
    CheckpointPolicy,
    NonFiniteError,
    ScheduleLimits,
    fit,
    make_optimizer,
    make_schedule,
    schedule_projection,
)

KEY = jax.random.key(7)
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def bowl(params, key):
    """A quadratic with its least value at 0, 1, 2, …, and noise that depends on the step's key."""
    misfit = params["x"] - jnp.arange(params["x"].size)
    square = jnp.sum(misfit**2)
    noise = 1e-3 * jax.random.normal(key, dtype=square.dtype) * jnp.sum(params["x"])
    return square + noise, {"square": square}


def start(dtype=np.float64, shape=(5,)):
    return {"x": jnp.ones(shape, dtype)}


def run(loss=bowl, params=None, **options):
    settings = {"optimizer": optax.adam(0.05), "steps": 30, "key": KEY, "progress": False} | options
    return fit(loss, start() if params is None else params, **settings)


@both_dtypes
def test_adam_finds_the_best_point_of_a_power_limit(dtype):
    """Of all x of one root mean square, c·x is largest at x ∝ c; entry-wise scaling alone would end at equal ones."""
    slopes = jnp.arange(1, 6, dtype=dtype)
    project = schedule_projection(ScheduleLimits(0.0, 9.0, rms=1.0), 5)
    result = run(
        lambda params, key: (-jnp.sum(slopes * params["x"]), {}),
        start(dtype),
        steps=200,
        optimizer=make_optimizer("adam", 0.05, steps=200, schedule="cosine"),
        project=lambda params: {"x": project(params["x"])},
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
@pytest.mark.parametrize("steps_per_call", [1, 4])
def test_the_loss_is_traced_once_and_never_again(starts, steps_per_call):
    traces = 0

    def counted(params, key):
        nonlocal traces
        traces += 1
        return bowl(params, key)

    params = start(shape=(5,) if starts is None else (starts, 5))
    run(counted, params, starts=starts, steps_per_call=steps_per_call, log_every=3, snapshot_every=5)
    assert traces == 1


def test_between_log_points_nothing_is_moved_to_the_host():
    """The guard refuses every implicit transfer that the loop could make; log points ask explicitly."""
    with jax.transfer_guard_device_to_host("disallow"):
        result = run(steps=20, log_every=10)
    assert result.steps == 20


@pytest.mark.parametrize("log_every", [1, 3])
def test_steps_per_call_changes_nothing(log_every):
    alone, chunked = (run(steps=17, log_every=log_every, steps_per_call=n, snapshot_every=5) for n in (1, 4))
    np.testing.assert_allclose(chunked.params["x"], alone.params["x"], rtol=1e-14)
    np.testing.assert_allclose(chunked.history["loss"], alone.history["loss"], rtol=1e-14)
    np.testing.assert_array_equal(chunked.snapshots.steps, alone.snapshots.steps)


def test_frozen_entries_stay_to_the_bit_whatever_the_optimizer_and_projection_do():
    learned = {"x": jnp.array([True, False, True, False, True])}
    params = {"x": jnp.array([0.1, 0.7, -0.2, 9.3, 0.4])}

    def broken_where_frozen(params, key):
        loss, terms = bowl(params, key)
        return loss + jnp.where(params["x"][1] > 0, jnp.sqrt(params["x"][1] - 0.7), 0.0), terms

    for name in ("adamw", "lbfgs"):
        result = run(
            broken_where_frozen,
            params,
            optimizer=make_optimizer(name, 0.1, steps=30),
            learned=learned,
            project=lambda p: {"x": jnp.clip(p["x"], 0, 3)},
        )
        moved = np.asarray(result.params["x"])
        np.testing.assert_array_equal(moved[[1, 3]], [0.7, 9.3])
        assert np.abs(moved[[0, 2, 4]] - np.asarray(params["x"])[[0, 2, 4]]).min() > 0.05


def test_every_point_the_loss_sees_is_in_the_set():
    def project(params):
        return {"x": jnp.clip(params["x"], 0.5, 2.5)}

    result = run(params={"x": jnp.full(5, 9.0)}, project=project, steps=200, snapshot_every=1)
    seen = result.snapshots.params["x"]
    assert seen.min() >= 0.5
    assert seen.max() <= 2.5
    np.testing.assert_allclose(result.params["x"], [0.5, 1, 2, 2.5, 2.5], atol=0.02)


def test_several_starts_go_side_by_side_and_the_best_is_kept():
    def two_valleys(params, key):
        x = params["x"]
        return jnp.sum((x**2 - 1) ** 2 + 0.3 * x), {}

    starts = {"x": jnp.array([[0.8], [-0.7], [2.0]])}
    together = run(two_valleys, starts, starts=3, steps=200, snapshot_every=50)
    alone = [run(two_valleys, {"x": row}, steps=200) for row in starts["x"]]
    np.testing.assert_allclose(together.start_losses, [one.final_loss for one in alone], rtol=1e-10)
    assert together.start == 1
    np.testing.assert_allclose(together.params["x"], alone[1].params["x"], rtol=1e-10)
    np.testing.assert_allclose(together.history["loss"], alone[1].history["loss"], rtol=1e-10)
    assert together.snapshots.params["x"].shape == (5, 1)


def test_a_start_that_breaks_is_left_behind():
    def root(params, key):
        return jnp.sum(jnp.sqrt(params["x"])), {}

    result = run(root, {"x": jnp.array([[-1.0], [2.0]])}, starts=2, steps=5)
    assert result.start == 1
    assert np.isnan(result.start_losses[0])
    assert np.isfinite(result.final_loss)


@pytest.mark.parametrize(("log_every", "steps_per_call"), [(1, 1), (4, 1), (10, 5)])
def test_what_is_not_finite_stops_with_the_step_the_term_and_the_last_good_state(
    tmp_path, log_every, steps_per_call
):
    def falls_off(params, key):
        edge = jnp.sum(jnp.log(params["x"]))
        return jnp.sum(params["x"]) + 0 * edge, {"edge": edge, "sum": jnp.sum(params["x"])}

    policy = CheckpointPolicy(tmp_path, every=1000)
    with pytest.raises(NonFiniteError, match="step 10: not finite: term 'edge', loss") as caught:
        run(
            falls_off,
            {"x": jnp.full(2, 1.0)},
            optimizer=optax.sgd(0.11),
            log_every=log_every,
            steps_per_call=steps_per_call,
            checkpoint=policy,
        )
    # Nine steps of 0.11 leave 0.01; the tenth goes below zero, where the eleventh cannot be taken.
    assert caught.value.step == 10
    np.testing.assert_allclose(caught.value.params["x"], -0.1, atol=1e-12)
    assert (tmp_path / "step-00000010.json").exists()


def test_a_gradient_that_is_not_finite_is_named():
    def kink(params, key):
        return jnp.sum(jnp.sqrt(params["a"])) + params["b"][0], {}

    with pytest.raises(NonFiniteError, match="step 0: not finite: gradient of a") as caught:
        run(kink, {"a": jnp.zeros(2), "b": jnp.zeros(1)}, optimizer=optax.sgd(0.1))
    assert "gradient of b" not in str(caught.value)


@pytest.mark.parametrize("starts", [None, 2])
def test_resuming_continues_to_the_bit(tmp_path, starts):
    params = {"x": jnp.linspace(0, 1, 10).reshape(2, 5)[slice(None) if starts else 0]}
    options = {"starts": starts, "snapshot_every": 4, "log_every": 3}

    def go(directory, steps, **more):
        policy = CheckpointPolicy(directory, every=5)
        return run(params=params, steps=steps, checkpoint=policy, **options, **more)

    whole = go(tmp_path / "whole", 20)
    go(tmp_path / "parts", 10)
    resumed = go(tmp_path / "parts", 20, resume=True)
    np.testing.assert_array_equal(resumed.params["x"], whole.params["x"])
    for column in whole.history:
        np.testing.assert_array_equal(resumed.history[column], whole.history[column])
    # The stop at step 10 was a snapshot of neither run's plan, nor a row of either's log.
    np.testing.assert_array_equal(resumed.snapshots.steps, whole.snapshots.steps)
    np.testing.assert_array_equal(resumed.snapshots.params["x"], whole.snapshots.params["x"])
    names = sorted(path.name for path in (tmp_path / "parts").iterdir())
    assert names == sorted(f"step-{n:08d}.{end}" for n in (10, 15, 20) for end in ("json", "npz"))


def test_resuming_with_another_seed_optimizer_or_shape_is_refused(tmp_path):
    policy = CheckpointPolicy(tmp_path)
    run(checkpoint=policy)
    with pytest.raises(ValueError, match="key: got another"):
        run(checkpoint=policy, resume=True, key=jax.random.key(8))
    with pytest.raises(ValueError, match="checkpoint entry state"):
        run(checkpoint=policy, resume=True, optimizer=optax.sgd(0.1, momentum=0.9))
    with pytest.raises(ValueError, match=r"checkpoint entry state\.params\.x"):
        run(params=start(shape=(6,)), checkpoint=policy, resume=True)
    with pytest.raises(ValueError, match="resume: got True without"):
        run(resume=True)


def test_minutes_between_checkpoints_count_beside_steps(tmp_path):
    policy = CheckpointPolicy(tmp_path, every=1000, minutes=1e-9, keep=100)
    run(checkpoint=policy, steps=4)
    assert [path.stem for path in sorted(tmp_path.glob("*.json"))] == [f"step-{n:08d}" for n in (1, 2, 3, 4)]


def test_resuming_before_the_first_checkpoint_starts_anew_saying_so(tmp_path):
    """A run killed early has a folder and no checkpoint: `resume` once refused it."""
    (tmp_path / ".step-00000005.npz.x.tmp").write_bytes(b"half")
    (tmp_path / "step-00000005.npz").write_bytes(b"its JSON was yet to come")
    with pytest.warns(UserWarning, match="no checkpoint yet, starting anew"):
        resumed = run(checkpoint=CheckpointPolicy(tmp_path), resume=True)
    np.testing.assert_array_equal(resumed.params["x"], run().params["x"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_says_so(tmp_path, number, capfd):
    def interrupt(step, params, optimizer):
        if step == 7:
            os.kill(os.getpid(), number)
        return params, optimizer

    before = signal.getsignal(number)
    policy = CheckpointPolicy(tmp_path)
    result = run(between=interrupt, checkpoint=policy)
    assert result.stopped == number.name
    assert result.steps in (7, 8)
    assert (tmp_path / f"step-{result.steps:08d}.json").exists()
    assert signal.getsignal(number) is before
    assert number.name in capfd.readouterr().err
    assert run(checkpoint=policy, resume=True).steps == 30


def test_between_steps_the_host_may_exchange_parameters_and_moments():
    """Exchanging two entries with their moments, twice, is not exchanging them."""

    def swap(step, params, optimizer):
        return jax.tree.map(lambda leaf: leaf[::-1] if leaf.ndim else leaf, (params, optimizer))

    def even(params, key):
        return jnp.sum((params["x"] - 3) ** 2), {}

    params = {"x": jnp.linspace(-1, 1, 5)}
    swapped = run(even, params, steps=12, between=swap, between_every=6)
    plain = run(even, params, steps=12)
    np.testing.assert_allclose(swapped.params["x"], plain.params["x"][::-1], rtol=1e-13)


def test_a_run_ends_after_its_minutes():
    result = run(steps=10_000_000, max_minutes=0.005)
    assert result.stopped == "time"
    assert 0 < result.steps < 10_000_000


def test_arrays_of_a_loss_that_is_a_pytree_are_arguments():
    class Misfit(eqx.Module):
        target: jax.Array

        def __call__(self, params, key):
            return jnp.sum((params["x"] - self.target) ** 2), {}

    result = run(Misfit(jnp.full(5, 1.5)), optimizer=optax.adam(0.1), steps=200)
    np.testing.assert_allclose(result.params["x"], 1.5, atol=1e-3)


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [
        (lambda x: jnp.sum(x**2), "settled"),
        (lambda x: -jnp.sum(x), "improving"),
        (lambda x: 0 * x[0], "stalled"),
    ],
)
def test_the_verdict_names_what_the_loss_did(losses, verdict):
    result = run(lambda p, key: (losses(p["x"]), {}), optimizer=optax.adam(0.1), steps=300)
    assert result.verdict == verdict


def test_a_diverging_run_is_named():
    result = run(lambda p, key: (jnp.sum(p["x"] ** 2), {}), optimizer=optax.sgd(1.1), steps=20)
    assert result.verdict == "diverged"


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - {"lbfgs"}))
def test_every_optimizer_descends(name):
    rate = {"lion": 0.02, "sgd": 0.05, "momentum": 0.02}.get(name, 0.05)
    result = run(optimizer=make_optimizer(name, rate, steps=120), steps=120, params=start(np.float32))
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
    ("options", "message"),
    [
        ({"steps": 0}, "steps: got 0"),
        ({"log_every": 0}, "log_every: got 0"),
        ({"max_minutes": 0.0}, "max_minutes: got 0.0"),
        ({"params": {}}, "params: got a tree without arrays"),
        ({"params": {"x": jnp.arange(3)}}, "params: got an array of shape .* and dtype int"),
        ({"starts": 4}, "params: got .* first axis of length starts=4"),
        ({"learned": {"y": jnp.ones(5, bool)}}, "learned: got the structure"),
        ({"learned": {"x": jnp.ones(5)}}, "learned: got .* expected bool"),
        ({"learned": {"x": jnp.ones(4, bool)}}, "learned: got .* broadcasts to \\(5,\\)"),
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


@pytest.mark.parametrize(
    ("limits", "dtype"),
    [
        (ScheduleLimits(0.0, 2.5), np.float32),
        (ScheduleLimits(0.2, 3.0, rms=1.5), np.float64),
        pytest.param(ScheduleLimits(0.0, 9.0, step=0.5), np.float64, marks=pytest.mark.slow),
    ],
    ids=["range", "power", "step"],
)
def test_lbfgs_reaches_the_constrained_minimum(limits, dtype):
    """An ill-conditioned quadratic: the minimum over the set by a projected gradient run to convergence."""
    rng = np.random.default_rng(5)
    basis = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    matrix, target = basis @ np.diag(np.logspace(0, 2, 12)) @ basis.T, np.linspace(-1, 4, 12)
    project = schedule_projection(limits, 12)

    def loss(params, key):
        misfit = params["x"] - target.astype(dtype)
        return 0.5 * misfit @ jnp.asarray(matrix, dtype) @ misfit, {}

    def descend(x, _):
        return project(x - 0.01 * matrix @ (x - target)), None

    exact = jax.lax.scan(descend, project(jnp.ones(12)), length=4000)[0]
    result = run(
        loss,
        {"x": jnp.ones(12, dtype)},
        optimizer=make_optimizer("lbfgs", steps=120),
        project=lambda p: {"x": project(p["x"])},
        steps=120,
    )
    best = 0.5 * (exact - target) @ matrix @ (exact - target)
    assert result.final_loss - best <= (1e-4 if dtype == np.float32 else 1e-6) * best
    assert (np.diff(result.history["loss"]) <= 1e-6 * result.history["loss"][1:]).all()
