"""The EPG engine against isochromats, a textbook EPG, diffusion theory and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.signal import engine
from acqdesign.signal.engine import Interval

from . import _bloch
from ._functions import epg, fse

TOLERANCE = {np.float64: 1e-10, np.float32: 1e-5}

STEPS = {
    "spoiled after the echo": ([(0.003, 0), (0.007, 1)], 1),
    "two orders, one back": ([(0.004, 2), (0.006, -1)], 2),
    "negative orders": ([(0.003, -1), (0.004, 0)], 0),
    "spin echo": ([(0.005, 1), (0.005, 1)], 2),
    "balanced": ([(0.004, 2), (0.001, 0), (0.004, -2)], 2),
}


def pulses(rng, n, dtype=np.float64):
    return rng.uniform(0.1, 3.0, n).astype(dtype), rng.uniform(0.0, 6.0, n).astype(dtype)


@pytest.mark.parametrize(("name", "dtype"), [*((name, np.float64) for name in STEPS), ("balanced", np.float32)])
def test_equals_isochromats(name, dtype, rng):
    """Any flips, phases, off-resonance and gradient orders give the mean over a voxel's isochromats."""
    steps, read = STEPS[name]
    flips, phases = pulses(rng, 21, dtype)
    intervals = [Interval(dtype(t), orders) for t, orders in steps]
    got = epg(flips, intervals, dtype(0.8), dtype(0.09), read=read, phases=phases, b0=dtype(13.0), z0=dtype(-0.7))
    want = _bloch.bloch(flips, phases, steps, 0.8, 0.09, dephasing=_bloch.turn_points(256), b0=13.0, mz=-0.7, read=read)
    assert got.dtype == np.result_type(dtype, np.complex64)
    assert abs(got - want).max() <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_one_phase_is_real_and_equals_the_textbook(dtype, rng):
    """With one phase and no off-resonance everything is real, and equals the complex textbook EPG."""
    flips, _ = pulses(rng, 100, dtype)
    t1, t2 = np.array([0.8, 4.0, 0.3], dtype), np.array([0.09, 1.5, 0.02], dtype)
    got = epg(flips, [Interval(0.002), Interval(0.009, 1)], t1, t2, read=1)
    want = [_bloch.epg(flips, 0 * flips, [(0.002, 0), (0.009, 1)], *t) for t in zip(t1, t2, strict=True)]
    assert got.dtype == dtype
    assert abs(got - np.array(want)).max() <= TOLERANCE[dtype]


def test_durations_can_differ_between_pulses(rng):
    """One duration for each period equals the isochromats' own."""
    flips, phases = pulses(rng, 12)
    wait, ramp = rng.uniform(1e-3, 4e-3, 12), rng.uniform(2e-3, 9e-3, 12)
    got = epg(flips, [Interval(wait), Interval(ramp, 1)], 0.5, 0.06, read=1, phases=phases, b0=25.0)
    steps = [(wait, 0), (ramp, 1)]
    want = _bloch.bloch(flips, phases, steps, 0.5, 0.06, dephasing=_bloch.turn_points(64), b0=25.0)
    assert abs(got - want).max() <= 1e-13


def test_tissues_of_any_shape_one_by_one(rng, monkeypatch):
    """A batch gives each tissue what it gives alone: broadcast shapes, B1 maps, more tissues than one block."""
    monkeypatch.setattr(engine, "CACHE_BYTES", 1)  # blocks of 64
    flips, phases = pulses(rng, 9)
    t1 = rng.uniform(0.5, 2.0, (3, 1, 1))
    t2 = rng.uniform(0.02, 0.2, (50, 1))
    b1 = rng.uniform(0.8, 1.2, (1, 2))
    intervals = [Interval(0.01, 1)]
    got = epg(flips, intervals, t1, t2, phases=phases, b1=b1)
    assert got.shape == (3, 50, 2, 9)
    for at in [(0, 0, 0), (1, 31, 1), (2, 49, 1)]:
        alone = epg(flips, intervals, t1[at[0], 0, 0], t2[at[1], 0], phases=phases, b1=b1[0, at[2]])
        assert abs(got[at] - alone).max() <= 1e-14


def test_fewer_states_are_only_used_on_request(rng):
    """The default equals every order kept; a few orders do not, and as many as pulses do."""
    flips, _ = pulses(rng, 100)
    every = _bloch.epg(flips, 0 * flips, [(0.0, 0), (0.01, 1)], 2.0, 1.0)
    run = lambda n_states: epg(flips, [Interval(0.01, 1)], 2.0, 1.0, n_states=n_states)  # noqa: E731
    assert abs(run(None) - every).max() <= 1e-13
    assert abs(run(100) - every).max() <= 1e-13
    assert abs(run(8) - every).max() > 1e-3


def test_orders_grow_and_shrink_with_the_train():
    """An exact train carries no more orders than are populated and can still return."""
    windows = engine._windows(1000, 31, 1, 0, None)
    assert sum(segments for segments, _ in windows) == 33
    assert max(orders for _, orders in windows) <= 501
    assert sum(segments * orders for segments, orders in windows) <= 0.65 * 33 * 501
    assert engine._windows(1000, 31, 1, 0, 10) == [(33, 10)]


def test_spin_echo_attenuation_is_stejskal_and_tanners():
    """A Hahn echo under a constant gradient is attenuated by exp(-D q² 2τ/3), a stimulated one by its b-value."""
    tau, wait, q, diffusivity = 0.02, 0.05, 3.0e4, np.array([0.0, 0.7e-9, 2.0e-9])
    effects = {"t1": np.inf, "t2": np.inf, "diffusivity": diffusivity, "order_moment": q, "read": 1}
    hahn = epg(np.array([np.pi / 2, np.pi]), [Interval(tau, 1)], phases=np.array([0, np.pi / 2]), **effects)
    assert abs(hahn[:, 1] / hahn[0, 1] - np.exp(-diffusivity * q**2 * 2 * tau / 3)).max() <= 1e-14
    stimulated = epg(np.full(3, np.pi / 2), [Interval(tau, 1), Interval(wait)], **effects)
    b = q**2 * (tau / 3 + wait + (tau + wait) + tau / 3)  # ramp, wait across, stored, ramp back
    assert abs(abs(stimulated[0, 2]) - 0.5) <= 1e-14
    assert abs(stimulated[:, 2] / stimulated[0, 2] - np.exp(-diffusivity * b)).max() <= 1e-14


@pytest.mark.parametrize("steps", ["spoiled after the echo", "two orders, one back"])
def test_diffusion_of_all_pathways(steps, rng):
    """With diffusion every pathway of a train is damped as in the textbook EPG."""
    steps, read = STEPS[steps]
    flips, phases = pulses(rng, 20)
    intervals = [Interval(t, orders) for t, orders in steps]
    effects = {"diffusivity": 2e-9, "order_moment": 2e4}
    got = epg(flips, intervals, 0.8, 0.09, read=read, phases=phases, **effects)
    want = _bloch.epg(flips, phases, steps, 0.8, 0.09, read=read, diffusion=2e-9 * 2e4**2)
    assert abs(got - want).max() <= 1e-13


def test_derivatives_in_every_mode(rng):
    """By every argument, to 1e-8 of central differences."""

    def signal(wait, ramp, **given):
        return epg(intervals=[Interval(wait), Interval(ramp, 1)], read=1, **given)

    flips, phases = pulses(rng, 12)
    arguments = {
        "flips": flips, "phases": phases, "wait": 0.003, "ramp": rng.uniform(0.004, 0.01, 12),
        "t1": np.array([0.8, 1.2]), "t2": np.array([0.09, 0.04]), "z0": -0.8, "m0": 1.3,
        "b1": np.array([0.9, 1.1]), "b0": np.array([12.0, -5.0]), "diffusivity": 2e-9, "order_moment": 2e4,
    }  # fmt: skip
    _bloch.check_derivatives(signal, arguments)


@pytest.mark.parametrize("train", [lambda f, *t: epg(f, [Interval(0.01, 1)], *t), lambda f, *t: fse(f, 0.01, *t)])
def test_derivatives_in_single_precision(train, rng):
    """Float32 gradients of the engine and of spin echoes stay in float32 and within 1e-4 of float64's."""
    double = [jnp.asarray(x) for x in (pulses(rng, 12)[0], np.array([0.8, 1.2]), np.array([0.09, 0.04]))]
    gradient = jax.jit(jax.grad(lambda args: (train(*args) ** 2).sum()))
    found = gradient([x.astype(np.float32) for x in double])
    for got, want in zip(found, gradient(double), strict=True):
        assert got.dtype == np.float32
        assert np.linalg.norm(got - want) <= 1e-4 * np.linalg.norm(want)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_edges_have_finite_gradients(dtype):
    """Zero and exact 180° flips, infinite T1 and T2, T2 to zero, no durations: gradients are finite."""
    t1 = np.array([np.inf, np.inf, 1.0, 1e-30, 1.0], dtype)
    t2 = np.array([np.inf, 0.1, np.finfo(dtype).tiny, 1e-30, 0.1], dtype)

    def loss(flips, wait, t1, t2, diffusivity):
        intervals = [Interval(wait), Interval(0.01, 1)]
        echoes = epg(flips, intervals, t1, t2, read=1, diffusivity=diffusivity, order_moment=1e4)
        return (echoes**2).sum()

    gradient = jax.jit(jax.grad(loss, argnums=range(5)))
    for flips in (np.zeros(4), np.full(4, np.pi), np.array([np.pi / 2, np.pi, 0.0, 1.0])):
        args = (flips.astype(dtype), np.zeros((), dtype), t1, t2, np.zeros((), dtype))
        assert all(np.isfinite(each).all() for each in gradient(*args))


def test_gradient_memory_grows_as_the_root_of_pulses():
    """Four times the pulses need about twice, not four times, the memory beyond the echoes."""

    def needed(n):
        flips, t2 = jnp.full(n, 0.3), jnp.linspace(0.05, 0.1, 64)
        loss = lambda flips: (epg(flips, [Interval(0.01, 1)], 1.0, t2, n_states=20) ** 2).sum()  # noqa: E731
        memory = jax.jit(jax.grad(loss)).lower(flips).compile().memory_analysis()
        return memory.temp_size_in_bytes - 3 * 8 * n * t2.size

    assert needed(1600) <= 2.6 * needed(400)
