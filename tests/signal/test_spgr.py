"""RF spoiling against isochromats, its steady state against long trains, and ideal spoiling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.scene.tissue import Tissue
from acqdesign.signal import SPGR, simulate
from acqdesign.signal.spgr import RF_INCREMENT, quadratic_phases

from . import _bloch
from ._functions import spgr, spgr_ernst, spgr_steady


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-5)])
@pytest.mark.parametrize("increment", [117.0, 50.0])
def test_trains_equal_isochromats(increment, dtype, tolerance):
    """RF-spoiled trains equal isochromats played with the quadratic phases."""
    n, increment = 300, np.deg2rad(increment)
    flips = np.full(n, 0.35, dtype)
    got = spgr(flips, dtype(0.008), dtype(0.9), dtype(0.1), te=dtype(0.002), b0=dtype(15.0), rf_increment=increment)
    phases = increment * np.arange(n) * (np.arange(n) + 1) / 2
    steps = [(0.002, 0), (0.006, 1)]
    want = _bloch.bloch(flips, phases, steps, 0.9, 0.1, b0=15.0, dephasing=_bloch.turn_points(512))
    assert abs(got - want).max() <= tolerance


def test_phases_stay_exact_in_long_trains():
    """Phases are reduced to a turn before they lose digits."""
    phases = quadratic_phases(100_000, np.deg2rad(117.0))
    j = np.arange(99_000, 100_000)
    exact = np.deg2rad((117 * (j * (j + 1) // 2)) % 360)
    assert abs(np.exp(1j * phases[j]) - np.exp(1j * exact)).max() <= 1e-12


@pytest.mark.parametrize("increment", [pytest.param(117.0, marks=pytest.mark.slow), 50.0, 1.5, 0.0])
def test_steady_state_is_that_of_long_trains(increment):
    """The closed steady state equals the end of a train long enough to reach it; 0° is FISP."""
    flips = np.full(3000, 0.4)
    effects = {"te": 0.002, "rf_increment": float(np.deg2rad(increment)), "b0": 12.0, "b1": 0.9, "t2_prime": 0.05}
    train = spgr(flips, 0.01, np.array([0.8, 0.5]), np.array([0.09, 0.3]), **effects, n_states=400)
    steady = spgr_steady(flips[:1], 0.01, np.array([0.8, 0.5]), np.array([0.09, 0.3]), **effects)
    assert abs(train[:, -1:] - steady).max() <= 1e-12


def test_steady_state_holds_where_magnetisation_lives_for_many_pulses():
    """Water at a short TR: T2 is 200 repetitions, so that hundreds of orders echo."""
    flips = np.full(6000, 0.2)
    train = spgr(flips, 0.002, 0.4, 0.4, n_states=1500)
    assert abs(train[-1] - spgr_steady(flips[:1], 0.002, 0.4, 0.4)[0]) <= 1e-9 * abs(train[-1])


def test_ideal_spoiling_is_ernsts():
    """Isochromats whose transverse magnetisation is nulled before each pulse settle at Ernst's signal."""
    flip, tr, t1 = 0.3, 0.01, 0.7
    mz = 1.0
    for _ in range(4000):
        seen, mz = mz * np.sin(flip), 1 + (mz * np.cos(flip) - 1) * np.exp(-tr / t1)
    got = spgr_ernst(np.array([flip]), tr, t1, 0.05, te=0.004, t2_prime=0.02, m0=2.0)
    assert got.dtype == np.float64
    assert abs(got[0] - 2 * seen * np.exp(-0.004 / 0.05 - 0.004 / 0.02)) <= 1e-14
    best = np.arccos(np.exp(-tr / t1))
    slope = jax.grad(lambda f: spgr_ernst(f, tr, t1, 0.05)[0])(jnp.array([best]))
    assert abs(slope[0]) <= 1e-14


def test_rf_spoiling_comes_near_ideal():
    """117° leaves a few per cent of Ernst's signal at 20°; no RF spoiling leaves much more."""
    flips, args = np.array([np.deg2rad(20.0)]), (0.01, 0.8, 0.08)
    ideal = spgr_ernst(flips, *args)
    spoiled, unspoiled = (abs(spgr_steady(flips, *args, rf_increment=i)) for i in (RF_INCREMENT, 0.0))
    assert abs(spoiled / ideal - 1).max() <= 0.05
    assert abs(unspoiled / ideal - 1).min() >= 0.3


def test_steady_edges_have_finite_gradients():
    """Zero and 180° flips, infinite T1, T2 to zero: finite signals and gradients."""
    dtype = np.float32
    t1 = np.array([np.inf, np.inf, 1.0, 1.0, np.inf], dtype)[:, None]
    t2 = np.array([np.inf, 0.1, np.finfo(dtype).tiny, 0.1, 1.0], dtype)[:, None]
    flips = np.array([0.0, np.pi, 0.5], dtype)

    def loss(flips, t1, t2):
        signals = [steady(flips, 0.01, t1[:, 0], t2[:, 0], te=0.002) for steady in (spgr_steady, spgr_ernst)]
        return sum((signal.real**2 + signal.imag**2).sum() for signal in signals)

    value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(flips, t1, t2)
    assert np.isfinite(value)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.slow
def test_steady_derivatives_in_every_mode(rng):
    """By every argument of the closed steady state, to second order."""

    def signal(flips, tr, te, t1, t2, b1, b0, t2_prime):
        return spgr_steady(flips, tr, t1, t2, te=te, b1=b1, b0=b0, t2_prime=t2_prime)

    arguments = {
        "flips": rng.uniform(0.2, 1.5, 3), "tr": 0.012, "te": 0.003, "t1": np.array([0.8, 1.2]),
        "t2": np.array([0.09, 0.04]), "b1": 1.1, "b0": 15.0, "t2_prime": 0.05,
    }  # fmt: skip
    _bloch.check_derivatives(signal, arguments)


def test_a_tissues_effects_are_all_passed_on(rng):
    """`simulate` is the sequence's own signal, trains and steady states; with one TR the echo alone is turned."""
    flips = rng.uniform(0.1, 0.5, 6)
    tissue = Tissue(np.array([0.8, 1.2]), 0.08, m0=1.5, b0=10.0, t2_prime=0.05, diffusivity=1e-9)
    factor = 1.5 * np.exp(-0.002 / 0.05 + 2j * np.pi * 10.0 * 0.002)
    got = simulate(SPGR(flips, 0.01, 0.002, spoiler_moment=8e4), tissue)
    for found, t1 in zip(got, (0.8, 1.2), strict=True):
        alone = spgr(flips, 0.01, t1, 0.08, te=0.002, diffusivity=1e-9, spoiler_moment=8e4)
        assert abs(found - factor * alone).max() <= 1e-15
    for state in ("steady", "ideal"):
        got = simulate(SPGR(flips, 0.01, 0.002, state=state), tissue)
        for found, t1 in zip(got, (0.8, 1.2), strict=True):
            alone = spgr(flips, 0.01, t1, 0.08, te=0.002, state=state)
            assert abs(found - factor * alone).max() <= 1e-15


def test_bad_input_is_refused():
    """An increment that never repeats has no steady state; late echoes and steady inversions are errors."""
    with pytest.raises(ValueError, match=r"rf_increment: got 57\.2958°.*half degrees.*transient"):
        spgr_steady(np.ones(1), 0.01, 1.0, 0.1, rf_increment=1.0)
    with pytest.raises(ValueError, match=r"te.*within tr"):
        spgr_ernst(np.ones(1), 0.01, 1.0, 0.1, te=0.02)
    with pytest.raises(ValueError, match=r"t1.*> 0"):
        spgr(np.ones(1), 0.01, np.nan, 0.1)
    with pytest.raises(ValueError, match=r"steady.*inversion"):
        SPGR(np.ones(1), 0.01, state="steady", inversion_time=0.1)
    with pytest.raises(ValueError, match=r"state.*one of transient, steady, ideal.*'steady'"):
        SPGR(np.ones(1), 0.01, state="stady")
