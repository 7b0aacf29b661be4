"""The only unit conversions of the package.

Inside, everything is SI: seconds, radians, metres, tesla, hertz; k-space points are in cycles per voxel.
Command lines and figures speak milliseconds and degrees and convert here, once.
"""

import math
from typing import TypeVar

import jax
import numpy as np

T = TypeVar("T", float, np.ndarray, jax.Array)

GAMMA_HZ_PER_T = 42.577478518e6
"""Gyromagnetic ratio of the proton over 2π [Hz/T] (CODATA 2018)."""


def rad_from_deg(deg: T) -> T:
    """Radians from degrees."""
    return deg * (math.pi / 180.0)


def deg_from_rad(rad: T) -> T:
    """Degrees from radians."""
    return rad * (180.0 / math.pi)


def s_from_ms(ms: T) -> T:
    """Seconds from milliseconds."""
    return ms * 1e-3


def ms_from_s(s: T) -> T:
    """Milliseconds from seconds."""
    return s * 1e3


def m_from_mm(mm: T) -> T:
    """Metres from millimetres."""
    return mm * 1e-3


def mm_from_m(m: T) -> T:
    """Millimetres from metres."""
    return m * 1e3


def per_m_from_cycles(cycles_per_voxel: T, voxel_size: float) -> T:
    """k-space positions in 1/m from cycles per voxel."""
    return cycles_per_voxel / voxel_size


def cycles_from_per_m(per_m: T, voxel_size: float) -> T:
    """k-space positions in cycles per voxel from 1/m."""
    return per_m * voxel_size


def s_from_us(us: T) -> T:
    """Seconds from microseconds."""
    return us * 1e-6


def us_from_s(s: T) -> T:
    """Microseconds from seconds."""
    return s * 1e6


def t_from_ut(ut: T) -> T:
    """Tesla from microtesla."""
    return ut * 1e-6


def ut_from_t(tesla: T) -> T:
    """Microtesla from tesla."""
    return tesla * 1e6
