"""Prescribed echo amplitudes are what the solved flips give, by an independent extended phase graph."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.signal.target import exponential_decay, flips_for_echoes, pseudo_steady_state

both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def cpmg(flips, esp, t1=np.inf, t2=np.inf, excitation=0.5 * np.pi):
    """Echoes by complex coefficients of the dephasing, dictionaries without any truncation."""
    e1, e2 = math.exp(-0.5 * esp / t1), math.exp(-0.5 * esp / t2)
    transverse, longitudinal, echoes = {1: e2 * math.sin(excitation)}, {}, []
    for flip in flips:
        cos, sin, share = math.cos(flip), math.sin(flip), math.sin(flip / 2) ** 2
        orders = {sign * k for k in (*transverse, *longitudinal) for sign in (1, -1)}
        f = {k: transverse.get(k, 0) for k in orders}
        z = {k: longitudinal.get(k, 0) for k in orders}
        # Rotation about x: F_k mixes with conj(F_-k) and Z_k.
        turned = {k: (1 - share) * f[k] + share * np.conj(f[-k]) - 1j * sin * z[k] for k in orders}
        stored = {k: cos * z[k] - 0.5j * sin * (f[k] - np.conj(f[-k])) for k in orders}
        transverse = {k + 1: e2 * value for k, value in turned.items()}
        echoes.append(transverse.get(0, 0))
        transverse = {k + 1: e2 * value for k, value in transverse.items()}
        longitudinal = {k: e1**2 * value for k, value in stored.items()}
    return np.array(echoes).real


def test_the_reference_gives_the_textbook_echoes():
    np.testing.assert_allclose(cpmg(np.full(4, np.radians(120)), 0.01), [0.75, 0.9375, 0.84375, 0.85546875], atol=1e-12)


@both_dtypes
@pytest.mark.parametrize(
    ("target", "t1", "t2"),
    [
        (pseudo_steady_state(40, 0.4), np.inf, np.inf),
        (0.95 * exponential_decay(40, 0.005, 0.4, level=0.3), 1.0, 0.1),
        (exponential_decay(40, 0.005, 0.05, level=0.8), 1.0, 0.1),
    ],
)
def test_solved_flips_give_the_prescribed_echoes(dtype, target, t1, t2):
    flips = flips_for_echoes(np.asarray(target, dtype), dtype(0.005), dtype(t1), dtype(t2))
    assert flips.dtype == dtype
    found = cpmg(np.asarray(flips, float), 0.005, t1, t2)
    np.testing.assert_allclose(found, target, atol=1e-11 if dtype == np.float64 else 2e-5)


@pytest.mark.parametrize("alpha", [20.0, 60.0, 140.0])
def test_a_pseudo_steady_state_starts_with_90_degrees_and_half_the_angle(alpha):
    """Alsop's rule: a level of sin(α/2) begins with 90° + α/2."""
    flips = flips_for_echoes(pseudo_steady_state(30, math.sin(math.radians(alpha / 2))), 0.005)
    assert math.degrees(flips[0]) == pytest.approx(90 + alpha / 2, abs=1e-9)
    # The fall is over: what is left is the ringing of the pathways.
    assert np.ptp(flips[-10:]) < 0.01 * (flips[0] - flips[-1])


def test_a_full_echo_needs_180_degrees():
    np.testing.assert_allclose(flips_for_echoes(jnp.ones(5), 0.01), np.pi, atol=1e-7)


def test_flips_keep_to_the_upper_limit_and_give_the_nearest_echo():
    upper = math.radians(100)
    flips = flips_for_echoes(jnp.full(12, 0.9), 0.01, 1.0, 0.1, upper=upper)
    assert flips.max() <= upper
    assert flips[0] == upper
    assert flips.min() >= 0


def test_an_impossible_echo_gives_the_largest_possible_one():
    """With T2 = 20 ms the fifth echo cannot be 0.9: no other last flip gives a larger one than the solved."""
    flips = np.asarray(flips_for_echoes(jnp.full(5, 0.9), 0.01, 1.0, 0.02))
    best = cpmg(flips, 0.01, 1.0, 0.02)[-1]
    others = [cpmg([*flips[:-1], flip], 0.01, 1.0, 0.02)[-1] for flip in np.linspace(0, np.pi, 181)]
    assert best >= max(others) - 1e-12


def test_targets_follow_their_formulas():
    np.testing.assert_allclose(pseudo_steady_state(3, 0.5), [0.75, 0.625, 0.5625])
    np.testing.assert_allclose(exponential_decay(2, 0.01, 0.02, level=0.8), 0.8 * np.exp([-0.5, -1.0]))
    np.testing.assert_array_equal(exponential_decay(3, 0.01, np.inf, level=0.3), np.full(3, 0.3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pseudo_steady_state(4, 1.2), "level: got 1.2"),
        (lambda: pseudo_steady_state(0, 0.5), "echoes: got 0"),
        (lambda: exponential_decay(4, 0.01, -1.0), "time: got -1.0"),
        (lambda: exponential_decay(4, 0.0, 1.0), "esp: got 0.0"),
        (lambda: flips_for_echoes(jnp.ones(4), 0.01, 0.1, 0.3), "t2: got T2"),
        (lambda: flips_for_echoes(jnp.ones((2, 2)), 0.01), "target: got an array of shape"),
        (lambda: flips_for_echoes(-jnp.ones(2), 0.01), "target: got -1"),
        (lambda: flips_for_echoes(jnp.ones(2), 0.01, jnp.ones(2), 0.1), "t1: got an array"),
        (lambda: flips_for_echoes(jnp.asarray([1.0, jnp.nan]), 0.01), "target: got 1 non-finite"),
    ],
)
def test_bad_input_names_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
