"""Slice profiles against Fourier theory, a direct Bloch simulation, and exact rectangular slices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.scene.tissue import Tissue
from acqdesign.signal import SSFPFID, simulate, sinc_pulse, slice_profile

from . import _bloch

profile_of = jax.jit(slice_profile, static_argnames=("method", "extent", "positions"))


def test_a_rectangular_pulse_has_a_sinc_profile():
    """Small tips: the profile is the Fourier transform of the envelope."""
    profile = profile_of(np.ones(20), 1.0, 0.01, method="small_tip", extent=6.0, positions=50)
    where = (np.arange(50) + 0.5) / 50 * 6 - 3
    assert abs(profile.b1 - np.sinc(where)).max() <= 1e-13
    assert abs(profile.weights.sum() - 6.0) <= 1e-13


def test_small_flips_agree_between_the_methods():
    """As the flip goes to zero, Bloch's profile becomes the Fourier transform, side lobes' signs included."""
    pulse = sinc_pulse(200, 4.0)
    bloch, fourier = (profile_of(pulse, 4.0, 1e-4, method=m, extent=3.0) for m in ("bloch", "small_tip"))
    assert abs(bloch.b1 - fourier.b1).max() <= 1e-7
    assert bloch.b1.min() < 0


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_large_flips_equal_a_direct_simulation(dtype, tolerance):
    """The flip across the slice is what rotation matrices, sample by sample, leave of Mz."""
    samples, tbw, flip, positions = 100, 4.0, np.pi / 2, 20
    pulse = np.asarray(sinc_pulse(samples, tbw), dtype)
    got = profile_of(pulse, tbw, flip, extent=2.0, positions=positions)
    angles = pulse.astype(float) / pulse.astype(float).sum() * flip
    for x, share in zip((np.arange(positions) + 0.5) / positions * 2 - 1, got.b1, strict=True):
        turn = 2 * np.pi * tbw * x / samples
        m = np.array([0.0, 0.0, 1.0])
        for angle in angles:
            m = rotation_about([angle, 0.0, turn]) @ m
        assert abs(np.cos(share * flip) - m[2]) <= tolerance
    assert got.b1.dtype == dtype


def rotation_about(vector):
    """Rodrigues' formula."""
    angle = np.linalg.norm(vector)
    x, y, z = np.asarray(vector) / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def test_the_middle_of_a_slice_gets_the_flip():
    """At the centre and for any scale or phase of the envelope, the flip is the nominal one."""
    pulse = np.asarray(sinc_pulse(256, 4.0))
    for scaled in (pulse, -3.0 * pulse, 2j * pulse):
        profile = profile_of(scaled, 4.0, 1.2, extent=1e-6, positions=2)
        assert abs(profile.b1 - 1.0).max() <= 1e-6


def test_a_slice_is_summed_and_approaches_the_ideal():
    """A sharp profile gives nearly the signal without one; a soft one loses signal at the flip of the peak."""
    tissue = Tissue(0.8, 0.08)
    sequence = SSFPFID(np.full(5, 0.3), 0.01)
    ideal = simulate(sequence, tissue)
    sharp = profile_of(sinc_pulse(500, 60.0), 60.0, 0.3, extent=2.0, positions=400)
    assert abs(simulate(sequence, tissue, slice_profile=sharp)[0] / ideal[0] - 1) <= 0.01
    soft = profile_of(sinc_pulse(200, 2.0), 2.0, 0.3, extent=4.0)
    parts = simulate(sequence, Tissue(0.8, 0.08, b1=soft.b1))  # positions as a batch
    assert abs(simulate(sequence, tissue, slice_profile=soft) - soft.weights @ parts).max() <= 1e-14


@pytest.mark.parametrize("method", ["bloch", "small_tip"])
def test_derivatives_by_pulse_and_flip(method, rng):
    """A pulse's samples and its flip can be learned: gradients equal central differences; silent samples too."""
    pulse = np.array(sinc_pulse(24, 3.0))
    pulse[5] = 0.0

    def loss(pulse, flip):
        profile = slice_profile(pulse, 3.0, flip, method=method, positions=9)
        return (profile.b1**2 * jnp.arange(1.0, 10.0)).sum()

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(pulse, 1.3)
    run = jax.jit(loss)
    by_pulse = [
        _bloch.central_difference(lambda x: float(run(x, 1.3)), pulse, one, 1e-3) for one in np.eye(24)[[0, 5, 11]]
    ]
    by_flip = _bloch.central_difference(lambda x: float(run(pulse, x)), 1.3, 1.0, 1e-3)
    np.testing.assert_allclose(gradients[0][np.array([0, 5, 11])], by_pulse, rtol=1e-8)
    np.testing.assert_allclose(gradients[1], by_flip, rtol=1e-8, atol=1e-10)


def test_bad_input_is_refused():
    """Empty, non-finite and area-less pulses, unknown methods and senseless numbers are errors."""
    pulse = np.ones(8)
    with pytest.raises(ValueError, match=r"method.*bloch, small_tip"):
        slice_profile(pulse, 4.0, 1.0, method="bloc")
    with pytest.raises(ValueError, match=r"pulse.*sum to zero"):
        slice_profile(np.array([1.0, -1.0]), 4.0, 1.0)
    with pytest.raises(ValueError, match=r"pulse.*finite"):
        slice_profile(np.array([1.0, np.nan]), 4.0, 1.0)
    with pytest.raises(ValueError, match=r"pulse.*vector"):
        slice_profile(np.ones((2, 2)), 4.0, 1.0)
    with pytest.raises(ValueError, match=r"flip.*> 0"):
        slice_profile(pulse, 4.0, 0.0)
    with pytest.raises(ValueError, match=r"samples.*>= 2"):
        sinc_pulse(1, 4.0)
