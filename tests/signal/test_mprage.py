"""MPRAGE against repetitions played one by one."""

import jax
import numpy as np
import pytest

from acqdesign.scene.tissue import Tissue
from acqdesign.signal import MPRAGE, simulate

from . import _bloch
from ._functions import mprage


def played(flips, esp, t1, t2, ti, tr, te, efficiency, repetitions):
    """Mz through repetition after repetition, transverse magnetisation nulled before every pulse."""
    mz = 1.0
    for _ in range(repetitions):
        mz = 1 + (-efficiency * mz - 1) * np.exp(-ti / t1)
        seen = []
        for flip in flips:
            seen.append(mz * np.sin(flip) * np.exp(-te / t2))
            mz = 1 + (mz * np.cos(flip) - 1) * np.exp(-esp / t1)
        mz = 1 + (mz - 1) * np.exp(-(tr - ti - len(flips) * esp) / t1)
    return np.array(seen)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-13), (np.float32, 1e-5)])
@pytest.mark.parametrize(("steady", "repetitions"), [(False, 1), (True, 60)])
def test_equals_repetitions_played_one_by_one(steady, repetitions, dtype, tolerance, rng):
    """The first repetition, and the steady state that many reach."""
    flips = rng.uniform(0.05, 0.2, 80).astype(dtype)
    t1, t2 = np.array([0.8, 1.5], dtype), np.array([0.07, 0.1], dtype)
    args = {"inversion_time": dtype(0.5), "tr": dtype(2.0), "te": dtype(0.003), "inversion_efficiency": dtype(0.95)}
    got = mprage(flips, dtype(0.008), t1, t2, steady=steady, **args)
    want = [
        played(flips, 0.008, *t, 0.5, 2.0, 0.003, 0.95, repetitions)
        for t in zip(t1.astype(float), t2.astype(float), strict=True)
    ]
    assert got.dtype == dtype
    assert abs(got - np.array(want)).max() <= tolerance


def test_b1_batches_and_off_resonance(rng):
    """B1 scales the flips, T2' and off-resonance act up to the echo, and shapes broadcast."""
    flips = rng.uniform(0.05, 0.2, 10)
    t1, b1 = np.array([0.8, 1.5, 2.0])[:, None], np.array([0.9, 1.1])
    args = {"inversion_time": 0.5, "tr": 2.0, "te": 0.003}
    got = mprage(flips, 0.008, t1, 0.1, b1=b1, b0=30.0, t2_prime=0.05, m0=2.0, **args)
    assert got.shape == (3, 2, 10)
    alone = mprage(flips * 1.1, 0.008, 1.5, 0.1, **args)
    factor = 2 * np.exp(-0.003 / 0.05 + 2j * np.pi * 30.0 * 0.003)
    assert abs(got[1, 1] - factor * alone).max() <= 1e-15


def test_a_tissues_effects_are_all_passed_on(rng):
    """`simulate` is the sequence's own signal: that of each tissue alone, real without a `b0`."""
    flips = rng.uniform(0.05, 0.2, 10)
    tissue = Tissue(np.array([0.8, 1.2]), 0.08, m0=1.5, b1=1.05, t2_prime=0.05)
    timing = {"inversion_time": 0.5, "tr": 2.0, "te": 0.003, "inversion_efficiency": 0.9}
    got = simulate(MPRAGE(flips, 0.008, **timing), tissue)
    factor = 1.5 * np.exp(-0.003 / 0.05)
    want = [factor * mprage(1.05 * flips, 0.008, t1, 0.08, **timing) for t1 in (0.8, 1.2)]
    assert got.dtype == np.float64
    assert abs(got - np.array(want)).max() <= 1e-15


def test_derivatives_in_every_mode(rng):
    """By every argument, to second order."""

    def signal(flips, esp, te, t1, t2, inversion_time, tr, b1, inversion_efficiency):
        return mprage(
            flips, esp, t1, t2, te=te, b1=b1, inversion_time=inversion_time, tr=tr,
            inversion_efficiency=inversion_efficiency,
        )  # fmt: skip

    arguments = {
        "flips": rng.uniform(0.05, 1.0, 10), "esp": 0.012, "te": 0.003, "t1": np.array([0.8, 1.2]),
        "t2": np.array([0.09, 0.04]), "inversion_time": 0.3, "tr": 2.0, "b1": 1.1, "inversion_efficiency": 0.9,
    }  # fmt: skip
    _bloch.check_derivatives(signal, arguments)


def test_edges_have_finite_gradients():
    """Zero, 90° and 180° flips, infinite T1, T2 to zero."""
    dtype = np.float32
    t1 = np.array([np.inf, np.inf, 1.0], dtype)
    t2 = np.array([np.inf, np.finfo(dtype).tiny, 0.1], dtype)

    def loss(flips, t1, t2):
        return (mprage(flips, 0.008, t1, t2, inversion_time=0.5, tr=2.0) ** 2).sum()

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    for flips in (np.zeros(4), np.full(4, np.pi), np.array([np.pi / 2, 0.0, 1.0, 0.1])):
        assert all(np.isfinite(each).all() for each in gradient(flips.astype(dtype), t1, t2))


def test_bad_input_is_refused():
    """A TR too short for its train names the shortest; late echoes and more than one TR are errors."""
    flips, good = np.full(100, 0.1), {"t1": 1.0, "t2": 0.1, "inversion_time": 0.5, "tr": 2.0}
    with pytest.raises(ValueError, match=r"tr: got 1 s.*100 x esp = 1.3 s"):
        mprage(flips, 0.008, **(good | {"tr": 1.0}))
    with pytest.raises(ValueError, match=r"te.*within esp"):
        mprage(flips, 0.008, **good, te=0.01)
    with pytest.raises(ValueError, match=r"esp.*one number"):
        mprage(flips, np.full(100, 0.008), **good)
    with pytest.raises(ValueError, match=r"inversion_time.*> 0"):
        MPRAGE(flips, 0.008, inversion_time=-0.5, tr=2.0)
