"""Balanced SSFP against Bloch's equations, Freeman and Hill's formula, and a Lorentzian spread."""

import jax
import numpy as np
import pytest

from acqdesign.scene.tissue import Tissue
from acqdesign.signal import BSSFP, simulate

from . import _bloch
from ._functions import bssfp, bssfp_steady

ON = np.zeros(1)
"""One isochromat: everything is rewound."""


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-5)])
def test_trains_equal_bloch(dtype, tolerance, rng):
    """Free flips, phases, TR and TE, inverted and off resonance."""
    n = 200
    flips, phases = rng.uniform(0.1, 1.5, n).astype(dtype), rng.uniform(0, 6, n).astype(dtype)
    tr, te = rng.uniform(4e-3, 6e-3, n).astype(dtype), rng.uniform(1e-3, 3e-3, n).astype(dtype)
    got = bssfp(
        flips, tr, dtype(0.9), dtype(0.1), te=te, phases=phases, b0=dtype(37.0), b1=dtype(1.1),
        inversion_time=0.03, inversion_efficiency=0.9,
    )  # fmt: skip
    start = 1 - 1.9 * np.exp(-0.03 / 0.9)
    want = _bloch.bloch(1.1 * flips, phases, [(te, 0), (tr - te, 0)], 0.9, 0.1, b0=37.0, mz=start, dephasing=ON)
    assert abs(got - want).max() <= tolerance


def test_alternating_phases_on_resonance_are_real():
    """The default phases alternate, TE is TR/2, and on resonance nothing leaves the real axis."""
    flips = np.concatenate([[0.3], np.full(99, 0.6)])
    tr = np.concatenate([[0.0025], np.full(99, 0.005)])  # an α/2 - TR/2 preparation
    got = bssfp(flips, tr, 0.9, 0.1)
    want = _bloch.bloch(flips, np.pi * np.arange(100), [(tr / 2, 0), (tr / 2, 0)], 0.9, 0.1, dephasing=ON)
    assert got.dtype == np.float64
    assert abs(got - want).max() <= 1e-13
    assert abs(np.diff(got[1:])).max() <= 0.02 * abs(got[1])  # prepared: a smooth approach


def freeman_hill(flip, tr, t1, t2, theta):
    """Freeman & Hill 1971 as textbooks print it: (Mx, My) after a pulse about x, turned to a pulse about y."""
    e1, e2, c, s = np.exp(-tr / t1), np.exp(-tr / t2), np.cos(flip), np.sin(flip)
    d = (1 - e1 * c) * (1 - e2 * np.cos(theta)) - (e1 - c) * (e2 - np.cos(theta)) * e2
    mx = (1 - e1) * e2 * s * np.sin(theta) / d
    my = (1 - e1) * s * (1 - e2 * np.cos(theta)) / d
    return my + 1j * mx


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-13), (np.float32, 1e-5)])
def test_steady_state_is_freeman_and_hills(dtype, tolerance):
    """For all off-resonance, flips and phase increments."""
    flips = np.array([0.2, 1.0, np.pi / 2, 3.0], dtype)
    b0 = np.linspace(-200, 200, 41).astype(dtype)
    got = bssfp_steady(flips, dtype(0.005), dtype(0.9), dtype(0.1), te=dtype(0.002), b0=b0, phase_increment=2.5)
    theta = 2 * np.pi * np.asarray(b0, float)[:, None] * 0.005 - 2.5
    want = freeman_hill(flips, 0.005, 0.9, 0.1, theta)
    want = want * np.exp(-0.002 / 0.1 + 2j * np.pi * np.asarray(b0, float)[:, None] * 0.002)
    assert abs(got - want).max() <= tolerance


@pytest.mark.parametrize("t2_prime", [None, pytest.param(0.02, marks=pytest.mark.slow)])
def test_steady_state_is_that_of_long_trains(t2_prime):
    """A train long enough ends in the closed steady state, with and without T2'."""
    flips = np.full(600, 0.8)
    effects = {"te": 0.0015, "b0": np.array([0.0, 30.0, 95.0]), "t2_prime": t2_prime}
    train = bssfp(flips, 0.005, 0.1, 0.05, **effects)
    assert abs(train[:, -1:] - bssfp_steady(flips[:1], 0.005, 0.1, 0.05, **effects)).max() <= 1e-12


def test_t2_prime_is_a_lorentzian_spread(rng):
    """T2' weighs every harmonic of the response to off-resonance by its own dephasing time."""
    flips, phases, tr, te, t2_prime, b0 = (rng.uniform(0.1, 1.5, 12), rng.uniform(0, 6, 12), 0.005, 0.0015, 0.03, 20.0)
    turns = np.arange(64) / 64  # in one TR: enough for the 12 harmonics either way
    response = [
        _bloch.bloch(flips, phases, [(te, 0), (tr - te, 0)], 0.9, 0.1, b0=turn / tr, dephasing=ON) for turn in turns
    ]
    harmonics = np.fft.fft(np.array(response) * np.exp(-2j * np.pi * turns * te / tr)[:, None], axis=0) / 64
    times = np.fft.fftfreq(64, 1 / 64) * tr + te
    weights = np.exp(2j * np.pi * b0 * times - abs(times) / t2_prime)
    got = bssfp(flips, tr, 0.9, 0.1, te=te, phases=phases, b0=b0, t2_prime=t2_prime)
    assert abs(got - weights @ harmonics).max() <= 1e-13
    sampled = b0 + np.tan(np.pi * ((np.arange(2001) + 0.5) / 2001 - 0.5)) / (2 * np.pi * t2_prime)
    steady = bssfp_steady(flips, tr, 0.9, 0.1, te=te, b0=sampled).mean(axis=0)
    assert abs(steady - bssfp_steady(flips, tr, 0.9, 0.1, te=te, b0=b0, t2_prime=t2_prime)).max() <= 2e-3


def test_edges_have_finite_gradients():
    """Zero and 180° flips, infinite T1 and T2, T2 and T2' to zero: finite signals and gradients."""
    dtype = np.float32
    tiny = np.finfo(dtype).tiny
    t1, t2 = np.array([np.inf, np.inf, 1.0, 1.0], dtype), np.array([np.inf, 0.1, tiny, 0.1], dtype)
    flips = np.array([0.0, np.pi, 0.5], dtype)

    def loss(flips, t1, t2, t2_prime):
        signals = [
            bssfp_steady(flips, 0.005, t1, t2, b0=0.0, phase_increment=0.0, t2_prime=t2_prime),
            bssfp(flips, 0.005, t1, t2, t2_prime=t2_prime),
        ]
        return sum((signal.real**2 + signal.imag**2).sum() for signal in signals)

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3)))
    for t2_prime in (np.inf, tiny, 0.02):
        value, gradients = run(flips, t1, t2, dtype(t2_prime))
        assert np.isfinite(value)
        assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.slow
def test_train_derivatives_in_every_mode(rng):
    """By every argument of a train with T2'."""

    def signal(flips, phases, tr, te, t1, t2, b1, b0, t2_prime, inversion_time):
        return bssfp(
            flips, tr, t1, t2, te=te, phases=phases, b1=b1, b0=b0, t2_prime=t2_prime, inversion_time=inversion_time
        )

    arguments = {
        "flips": rng.uniform(0.2, 1.5, 6), "phases": rng.uniform(0, 6, 6), "tr": 0.006, "te": 0.002, "t1": 0.8,
        "t2": np.array([0.09, 0.04]), "b1": 1.1, "b0": 15.0, "t2_prime": 0.05, "inversion_time": 0.03,
    }  # fmt: skip
    _bloch.check_derivatives(signal, arguments)


def test_steady_derivatives_in_every_mode(rng):
    """By every argument of the closed steady state."""

    def signal(flips, tr, te, t1, t2, b1, b0, t2_prime, phase_increment):
        return bssfp_steady(flips, tr, t1, t2, te=te, b1=b1, b0=b0, t2_prime=t2_prime, phase_increment=phase_increment)

    arguments = {
        "flips": rng.uniform(0.2, 1.5, 3), "tr": 0.006, "te": 0.002, "t1": np.array([0.8, 1.2]),
        "t2": np.array([0.09, 0.04]), "b1": 1.1, "b0": 15.0, "t2_prime": 0.05, "phase_increment": 3.0,
    }  # fmt: skip
    _bloch.check_derivatives(signal, arguments)


def test_a_tissues_effects_are_all_passed_on(rng):
    """`simulate` is the sequence's own signal, trains and steady states: M0 scales, B1 multiplies the flips."""
    flips = rng.uniform(0.1, 1.0, 6)
    tissue = Tissue(np.array([0.8, 1.2]), 0.08, m0=1.5j, b1=0.9, b0=10.0, t2_prime=0.05)
    effects = {"b0": 10.0, "t2_prime": 0.05, "te": 0.002}
    for design in ({}, {"steady": True, "phase_increment": 2.0}):
        got = simulate(BSSFP(flips, 0.005, 0.002, **design), tissue)
        for found, t1 in zip(got, (0.8, 1.2), strict=True):
            alone = bssfp(0.9 * flips, 0.005, t1, 0.08, **effects, **design)
            assert abs(found - 1.5j * alone).max() <= 1e-15


def test_bad_input_is_refused():
    """Late echoes, T2' with varied times, lengths that differ, and phases in a steady state are errors."""
    flips = np.ones(4)
    with pytest.raises(ValueError, match=r"te.*within tr"):
        bssfp(flips, 0.005, 1.0, 0.1, te=0.006)
    with pytest.raises(ValueError, match=r"tr, te.*one tr and one te"):
        bssfp(flips, np.full(4, 0.005), 1.0, 0.1, t2_prime=0.1)
    with pytest.raises(ValueError, match=r"phases.*each of the 4"):
        bssfp(flips, 0.005, 1.0, 0.1, phases=np.ones(3))
    with pytest.raises(ValueError, match=r"phase_increment.*each of the 4"):
        bssfp_steady(flips, 0.005, 1.0, 0.1, phase_increment=np.ones(3))
    with pytest.raises(ValueError, match=r"steady.*phase_increment"):
        BSSFP(flips, 0.005, phases=flips, steady=True)
