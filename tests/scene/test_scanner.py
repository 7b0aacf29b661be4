"""Hardware limits: closed forms against brute force, lobes against their integrals, and the limits they keep."""

import dataclasses

import numpy as np
import pytest

from acqdesign.base.units import GAMMA_HZ_PER_T
from acqdesign.scene.scanner import (
    SYSTEMS,
    EchoShape,
    SystemLimits,
    echo_lobes,
    echo_timing,
    first_lobes,
    gentlest_lobes,
    largest_k,
    max_phase_encode,
    min_echo_spacing,
    shortest_lobe,
    system_limits,
)

LIMITS = system_limits("generic")
SHAPE = EchoShape(samples=128, dwell_s=4e-6, voxel_m=(1.72e-3, 1.72e-3, 1.72e-3))
# A slow readout leaves the first interval time: here the phase encodes limit the echo spacing.
SLOW = EchoShape(samples=256, dwell_s=10e-6, voxel_m=(0.86e-3, 0.86e-3, 0.86e-3), crusher=0.5)


def waveform(lobes, end):
    """Times and (x, yz) gradients at the corners of lobes."""
    times = np.array([0, lobes.ramp_s, lobes.duration_s - lobes.ramp_s, lobes.duration_s])
    return times, np.array([[0, 0], *[[lobes.x_t_per_m, lobes.yz_t_per_m]] * 2, [end, 0]])


@pytest.mark.parametrize("area", [1e-8, 5e-6, 0.040**2 / 150, 2e-5, 1e-3])
def test_shortest_lobe_is_the_steepest_waveform(area):
    """No waveform within the limits has more area than min(G, S t, S (T - t)): triangles, then trapezoids."""
    duration = shortest_lobe(LIMITS, area)
    t = np.linspace(0, duration, 20001)
    g = np.minimum(LIMITS.max_gradient_t_per_m, LIMITS.max_slew_t_per_m_s * np.minimum(t, duration - t))
    assert np.trapezoid(g, t) == pytest.approx(area, rel=1e-6)
    assert shortest_lobe(LIMITS, -area) == duration


@pytest.mark.parametrize("end", [0.0, 0.015])
@pytest.mark.parametrize("yz", [0.0, 9e-6])
def test_lobes_have_their_areas_and_keep_the_limits_of_the_vector_sum(end, yz):
    """Integrals of the corners, and slew and gradient of the vector sum, against the lobes' own claims."""
    lobes = gentlest_lobes(LIMITS, 0.9e-3, x_area=1.1e-5, x_end=end, yz_area=yz)
    times, corners = waveform(lobes, end)
    assert np.trapezoid(corners, times, axis=0) == pytest.approx([1.1e-5, yz], abs=1e-18)
    moving = np.diff(times) > 0
    slew = np.linalg.norm(np.diff(corners, axis=0)[moving] / np.diff(times)[moving, None], axis=1)
    assert slew.max() == pytest.approx(lobes.slew_t_per_m_s)
    assert slew.max() <= LIMITS.max_slew_t_per_m_s
    assert np.linalg.norm(corners, axis=1).max() <= LIMITS.max_gradient_t_per_m
    tighter = dataclasses.replace(LIMITS, max_slew_t_per_m_s=0.999 * lobes.slew_t_per_m_s)
    assert gentlest_lobes(tighter, 0.9e-3, x_area=1.1e-5, x_end=end, yz_area=yz) is None


def test_lobes_beyond_the_limits_are_none():
    assert gentlest_lobes(LIMITS, 0.3e-3, x_area=1e-4) is None
    assert gentlest_lobes(LIMITS, -1e-4, x_area=1e-6) is None


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("esp", [5e-3, 5.012e-3, 8.04e-3])
def test_an_echo_spacing_is_spent_whole_and_on_the_raster(name, esp):
    """Pulse, two windows and readout fill the spacing; half of it holds the first interval; all on the raster."""
    limits = system_limits(name)
    timing = echo_timing(limits, SHAPE, esp)
    esp = round(esp / limits.block_raster_s) * limits.block_raster_s
    whole = timing.refocusing_s + 2 * timing.window_s + timing.readout_s
    assert whole == pytest.approx(esp, abs=1e-12)
    half = 0.5 * timing.excitation_s + timing.first_window_s + 0.5 * timing.refocusing_s
    assert half == pytest.approx(esp / 2, abs=1e-12)
    for part in dataclasses.astuple(timing):
        assert part / limits.block_raster_s == pytest.approx(round(part / limits.block_raster_s), abs=1e-6)
    assert timing.refocusing_s >= SHAPE.refocusing_s + limits.rf_dead_time_s + limits.rf_ringdown_time_s
    assert timing.readout_s >= SHAPE.samples * SHAPE.dwell_s + 2 * limits.adc_dead_time_s


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("slab_m", [None, 0.15])
def test_min_echo_spacing_is_the_shortest_that_plays_the_whole_box(name, slab_m):
    """At it every line of the box fits; a raster step below either a line or the first interval does not."""
    limits = system_limits(name)
    shape = dataclasses.replace(SHAPE, slab_m=slab_m, excitation_s=1e-3 if slab_m else 0.4e-3)
    esp = min_echo_spacing(limits, shape)
    assert max_phase_encode(limits, shape, esp) == 0.5
    shorter = esp - limits.block_raster_s
    corner = 0.5 * np.hypot(1 / shape.voxel_m[1], 1 / shape.voxel_m[2])
    assert echo_lobes(limits, shape, shorter, corner) is None or first_lobes(limits, shape, shorter) is None


def test_largest_k_is_where_the_lobes_stop():
    """Lobes exist just below the largest |k| and not just above it."""
    esp = min_echo_spacing(LIMITS, SLOW, phase_encode=0.2) + 2e-5
    k = largest_k(LIMITS, SLOW, esp)
    below, above = (echo_lobes(LIMITS, SLOW, esp, factor * k) for factor in (0.9999, 1.0001))
    assert below is not None
    assert above is None
    assert below.yz_t_per_m * (below.duration_s - below.ramp_s) * GAMMA_HZ_PER_T == pytest.approx(0.9999 * k)
    assert 0.2 < max_phase_encode(LIMITS, SLOW, esp) < 0.5


def test_box_of_unequal_voxels_reaches_its_corner():
    """The half-width in cycles per voxel counts the voxel's edges: |k| of the corner is the largest |k|."""
    shape = dataclasses.replace(SLOW, voxel_m=(0.86e-3, 0.6e-3, 1.2e-3))
    esp = min_echo_spacing(LIMITS, shape, phase_encode=0.25) + 2e-5
    half = max_phase_encode(LIMITS, shape, esp)
    assert np.hypot(half / 0.6e-3, half / 1.2e-3) == pytest.approx(largest_k(LIMITS, shape, esp))


def test_a_spacing_too_short_says_the_shortest():
    shortest = min_echo_spacing(LIMITS, SHAPE, phase_encode=0.0)
    with pytest.raises(ValueError, match=rf"esp_s: got 0.001, expected at least {shortest:.6g} s"):
        max_phase_encode(LIMITS, SHAPE, 1e-3)


def test_a_readout_too_fast_says_the_dwell_time():
    fast = dataclasses.replace(SHAPE, samples=64, dwell_s=2e-6)
    with pytest.raises(ValueError, match="dwell_s: got 2e-06, expected at least"):
        min_echo_spacing(LIMITS, fast)


def test_wrong_limits_and_names_are_refused():
    with pytest.raises(ValueError, match="max_slew_t_per_m_s: got -1"):
        SystemLimits("mine", 0.04, -1.0)
    with pytest.raises(ValueError, match="Did you mean 'prisma'"):
        system_limits("prism")
    with pytest.raises(ValueError, match="voxel_m"):
        EchoShape(128, 4e-6, (1e-3, 1e-3))
    with pytest.raises(ValueError, match="crusher"):
        EchoShape(128, 4e-6, (1e-3, 1e-3, 1e-3), crusher=-1.0)


def test_every_system_names_its_source():
    assert all(limits.source for limits in SYSTEMS.values())
