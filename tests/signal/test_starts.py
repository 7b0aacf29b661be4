"""Flips to start from are of the power, range and shape that their names stand for."""

import jax
import numpy as np
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.scene.tissue import Tissue
from acqdesign.signal import FSE, start_flips
from acqdesign.signal.starts import STARTS

from ._functions import fse

ESP, T1, T2 = 0.01, 1.0, 0.1


def started(name, *, seed=0, pulses=32, level=np.pi / 3, upper=np.pi):
    return start_flips(name, pulses, level=level, upper=upper, key=jax.random.key(seed), esp=ESP, t1=T1, t2=T2)


def rms(flips):
    return np.sqrt(np.mean(np.square(flips)))


def test_constant_pss_and_exponential_starts_use_the_power_that_is_allowed():
    """To the steps their level is tried in, and with the echoes they stand for."""
    np.testing.assert_allclose(started("constant"), np.pi / 3)
    steady, falling = started("pss"), started("exponential")
    assert rms(steady) == pytest.approx(np.pi / 3, rel=5e-3)
    assert rms(falling) == pytest.approx(np.pi / 3, rel=5e-3)
    np.testing.assert_allclose(np.diff(fse(steady, ESP, np.inf, np.inf))[10:], 0, atol=1e-3)
    echoes = np.asarray(fse(falling, ESP, T1, T2))
    np.testing.assert_allclose(echoes[1:] / echoes[:-1], np.exp(-ESP / (2 * T2)), rtol=1e-4)


def test_combs_have_strong_pulses_among_weak_ones_of_the_power_that_is_allowed():
    """One every 2 to 6, drawn by the key alone."""
    periods = set()
    for seed in range(12):
        comb = started("comb", seed=seed, pulses=60)
        assert rms(comb) == pytest.approx(np.pi / 3, rel=1e-6)
        strong = np.flatnonzero(comb > np.pi / 3)
        periods |= set(np.diff(strong))
        assert np.ptp(np.diff(strong)) == 0
        np.testing.assert_array_equal(comb, started("comb", seed=seed, pulses=60))
    assert periods == {2, 3, 4, 5, 6}


def test_sinusoids_have_humps_of_250_pulses_every_second_half_as_high():
    """From 10 to 60°, and of all the pulses where there are fewer."""
    degrees = np.degrees(started("sinusoid", pulses=500))
    assert degrees[0] == pytest.approx(10)
    assert degrees[:250].max() == pytest.approx(60, abs=0.01)
    np.testing.assert_allclose(degrees[250:], 0.5 * degrees[:250])
    few = np.degrees(started("sinusoid", pulses=20))
    assert few.max() == pytest.approx(60, abs=1.0)
    assert np.argmax(few) == 10


def test_random_starts_are_smooth_and_within_the_range():
    """Of eight random numbers, or as many as there are pulses."""
    flips = [started("random", seed=seed, upper=2.0, pulses=64) for seed in range(6)]
    assert all(each.min() >= 0 and each.max() <= 2.0 for each in flips)
    assert max(np.abs(np.diff(each)).max() for each in flips) <= 0.5
    assert np.ptp(np.concatenate(flips)) > 1.0
    assert started("random", pulses=3).shape == (3,)


def test_only_echo_trains_have_prescribed_starts():
    """Others are told which there are."""
    key = jax.random.key(0)
    with pytest.raises(UsageError, match=r"start: got 'pss', expected one of constant, sinusoid, random, comb\."):
        start_flips("pss", 8, level=1.0, upper=2.0, key=key)
    with pytest.raises(UsageError, match=r"start: got 'nothing', expected one of " + ", ".join(STARTS)):
        started("nothing")


def test_an_exponential_start_is_solved_for_the_first_tissue():
    """Of those that are learned for."""
    both = Tissue(np.array([T1, 3.0]), np.array([T2, 0.02]))
    found = FSE.start(both, jax.random.key(0), echoes=32, start="exponential", rms=np.pi / 3)
    np.testing.assert_allclose(found.flips, started("exponential"), atol=1e-12)
