"""Bounds of schedules are those of an independent Fisher matrix; their gradients are those of differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.design.flip_objectives import BoundObjective, Schedule
from acqdesign.optim import ScheduleLimits, fit, make_optimizer, schedule_projection
from acqdesign.optim.parametrise import from_range, spline_basis, to_range

KEY = jax.random.key(0)
T1, T2 = np.array([0.83, 1.5]), np.array([0.075, 0.1])
TISSUES = jnp.asarray(T1), jnp.asarray(T2)
TIMES = {
    "fse": {"tr": 1.0, "esp": 0.01},
    "mrf": {"tr": 0.01, "te": 0.002, "ti": 0.02},
    "bssfp": {"tr": 0.005, "ti": 0.02},
}
every_sequence = pytest.mark.parametrize("sequence", TIMES)


def schedule(sequence, dtype=np.float64, **more):
    return Schedule(
        sequence, **{name: jnp.asarray(time, dtype) for name, time in TIMES[sequence].items()}, **more
    )


def objective(sequence, dtype=np.float64, **more):
    return BoundObjective(schedule(sequence, dtype), T1.astype(dtype), T2.astype(dtype), **more)


# Four pulses fit into one scan of an echo train: half of what there is to compile.
def flips(dtype=np.float64, count=4):
    return jnp.asarray(0.8 + 0.5 * np.sin(np.arange(count)), dtype)


@every_sequence
def test_bounds_are_those_of_an_independent_fisher_matrix(sequence):
    """By central differences and the inverse of the Fisher matrix of all real unknowns."""
    train, params, b1, h = schedule(sequence), {"flips": flips()}, jnp.asarray([[0.8], [1.1]]), 1e-4
    signal = jax.jit(lambda t1, t2: train.signal(params, t1, t2, b1))
    t1, t2 = jnp.asarray(T1), jnp.asarray(T2)
    middle = np.asarray(signal(t1, t2))
    slopes = [
        np.asarray(signal(t1 * (1 + h), t2) - signal(t1 * (1 - h), t2)) / (2 * h),
        np.asarray(signal(t1, t2 * (1 + h)) - signal(t1, t2 * (1 - h))) / (2 * h),
    ]
    targets = {"t2": (1,), "t1": (0,), "t1t2": (0, 1)}
    bounds = jax.jit(
        lambda params: {
            target: BoundObjective(train, T1, T2, b1=(0.8, 1.1), target=target).bounds(params)
            for target in targets
        }
    )(params)
    for target, rows in targets.items():
        columns = np.stack([slopes[row] for row in rows] + [middle, 1j * middle], axis=-1)
        inverse = np.linalg.inv(np.real(np.einsum("...np,...nq->...pq", columns.conj(), columns)))
        expected = sum(inverse[..., k, k] for k in range(len(rows)))
        np.testing.assert_allclose(bounds[target], expected, rtol=1e-5)


@pytest.mark.parametrize("sequence", ["mrf", "bssfp", pytest.param("fse", marks=pytest.mark.slow)])
def test_gradients_are_those_of_differences_in_every_parameter(sequence):
    """In float64; the float32 gradient, of real signals, is that of float64 to its part of the conditioning."""
    params = {"flips": flips()}
    if sequence == "mrf":
        params |= {"tr": jnp.full(4, 1.1), "ti": jnp.asarray(0.9)}
    loss = objective(sequence, target="t2")
    value = jax.jit(jax.value_and_grad(lambda p: loss(p, KEY)[0]))
    grads = value(params)[1]
    for name, grad in grads.items():
        for entry in np.ndindex(grad.shape if grad.size < 3 else (3,)):
            moved = [value(params | {name: params[name].at[entry].add(step)})[0] for step in (1e-5, -1e-5)]
            assert float(grad[entry]) == pytest.approx(float(moved[0] - moved[1]) / 2e-5, rel=1e-5)
    if sequence == "bssfp":
        return
    single = objective(sequence, np.float32, target="t2")
    low = jax.jit(jax.grad(lambda p: single(p, KEY)[0]))(
        jax.tree.map(lambda leaf: leaf.astype(np.float32), params)
    )
    for name, grad in grads.items():
        assert low[name].dtype == np.float32
        np.testing.assert_allclose(low[name], grad, atol=1e-3 * float(jnp.abs(grad).max()))


def test_the_mean_and_the_worst_case_are_what_they_say_and_knowing_t1_leaves_less_doubt_about_t2():
    def judge(params):
        over = {
            name: objective("mrf", target="t1t2", b1=(0.8, 1.2), over=name, names=("wm", "gm"))
            for name in ("mean", "worst")
        }
        alone = objective("mrf", target="t2", b1=(0.8, 1.2)).bounds(params)
        return over["mean"].bounds(params), {name: loss(params, KEY) for name, loss in over.items()}, alone

    bounds, losses, alone = jax.jit(judge)({"flips": flips()})
    (mean, terms), (worst, _) = losses["mean"], losses["worst"]
    assert float(mean) == pytest.approx(float(bounds.mean()))
    np.testing.assert_allclose([terms["wm"], terms["gm"]], bounds.mean(axis=0))
    assert float(bounds.max()) <= float(worst) <= 1.5 * float(bounds.max())
    assert (alone < bounds).all()


def test_relative_times_are_times():
    scale, one = jnp.linspace(0.9, 1.3, 4), jnp.asarray(1.0)
    params = {"flips": flips(), "tr": scale, "ti": jnp.asarray(2.0)}
    train = Schedule("mrf", tr=0.01 * scale, te=jnp.asarray(0.002), ti=jnp.asarray(0.04))
    found = jax.jit(lambda p: schedule("mrf").signal(p, *TISSUES, one))(params)
    expected = jax.jit(lambda p: train.signal(p, *TISSUES, one))({"flips": flips()})
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_control_points_stand_for_the_flips_of_their_spline():
    basis, control = spline_basis(4, 3), jnp.linspace(0.5, 1.5, 3)
    splined = schedule("fse", basis=basis)
    np.testing.assert_allclose(splined.flips({"control": control}), basis @ control, rtol=1e-12)
    signal = jax.jit(lambda train, p: train.signal(p, *TISSUES, jnp.asarray(1.0)))
    np.testing.assert_allclose(
        signal(splined, {"control": control}),
        signal(schedule("fse"), {"flips": basis @ control}),
        rtol=1e-12,
    )


def test_a_train_without_signal_bounds_nothing():
    """The Fisher matrix is singular: infinity, not NaN."""
    loss = objective("mrf")
    assert (jax.jit(lambda params: loss.bounds(params))({"flips": jnp.zeros(4)}) == np.inf).all()


def test_flips_through_a_smooth_map_into_their_range_are_learned_without_a_projection():
    bounds = objective("mrf", target="t2")
    result = fit(
        lambda params, key: bounds({"flips": to_range(params["free"], 0.5, 1.4)}, key),
        {"free": from_range(flips(), 0.5, 1.4)},
        optimizer=make_optimizer("adam", 0.1, steps=10),
        steps=10,
        key=KEY,
        progress=False,
    )
    assert result.final_loss < result.initial_loss
    learned = np.asarray(to_range(jnp.asarray(result.params["free"]), 0.5, 1.4))
    assert learned.min() > 0.5
    assert learned.max() < 1.4


@pytest.mark.slow
def test_a_learned_echo_train_halves_the_variance_of_t2_at_equal_power():
    train = Schedule("fse", tr=jnp.asarray(1.0), esp=jnp.asarray(0.01))
    loss = BoundObjective(train, np.array([1.0]), np.array([0.1]))
    limits = ScheduleLimits(0.0, np.pi, rms=np.pi / 3)
    project = schedule_projection(limits, 32)
    result = fit(
        loss,
        {"flips": jnp.full(32, np.pi / 3)},
        optimizer=make_optimizer("lbfgs", steps=60),
        steps=60,
        key=KEY,
        project=lambda params: {"flips": project(params["flips"])},
        progress=False,
    )
    found = np.asarray(result.params["flips"])
    assert np.sqrt(np.mean(found**2)) <= limits.rms * (1 + 1e-6)
    assert found.min() >= 0
    assert found.max() <= np.pi
    assert result.initial_loss / result.final_loss >= 2.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Schedule("sse", tr=1.0), "sequence: got 'sse'.*fse"),
        (lambda: Schedule("fse", tr=1.0), "esp: got None"),
        (lambda: Schedule("mrf", tr=0.01, esp=0.01), "esp: got 0.01"),
        (lambda: BoundObjective(schedule("fse"), T1, T2[:1]), "t2: got an array of shape"),
        (lambda: BoundObjective(schedule("fse"), T2, 3 * T2), "t2: got T2"),
        (lambda: objective("fse", b1=(0.0,)), "b1: got 0.0"),
        (lambda: objective("fse", target="t3"), "target: got 't3'"),
        (lambda: objective("fse", over="median"), "over: got 'median'"),
        (lambda: objective("fse", names=("wm",)), "names: got"),
    ],
)
def test_bad_input_names_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
