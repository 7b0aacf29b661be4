"""Fast spin echo by other means, in float64 NumPy: a complex EPG of every order, and isochromats."""

import math

import numpy as np


def epg_trains(
    flips, esp, t1, t2, *, excitation=math.pi / 2, excitation_phase=math.pi / 2, phases=None, b1=1.0, t2_prep=0.0,
    tr=None, spoiling="transverse", trains=1, states=None, damping=0.0,
):  # fmt: skip
    """Echoes of the last of some trains; orders of half a spacing, no parity, no real arithmetic.

    `damping` is D · (rad/m per order)².
    """
    n = len(flips)
    phases = np.zeros(n) if phases is None else phases
    size = 2 * n + 2 if states is None else states
    half1, half2 = math.exp(-esp / 2 / t1), math.exp(-esp / 2 / t2)
    z = np.zeros(size, complex)
    z[0] = 1

    def pulse(plus, minus, z, flip, phase):
        c, s, sin, cos = math.cos(flip / 2) ** 2, math.sin(flip / 2) ** 2, math.sin(flip), math.cos(flip)
        e = np.exp(1j * phase)
        return (
            c * plus + e**2 * s * minus - 1j * e * sin * z,
            s * plus / e**2 + c * minus + 1j / e * sin * z,
            -0.5j / e * sin * plus + 0.5j * e * sin * minus + cos * z,
        )

    k = np.arange(size)

    def wait(plus, minus, z):
        b = damping * esp / 2
        up, down, kept = (np.exp(-b * square) for square in (k * (k + 1) + 1 / 3, k * (k - 1) + 1 / 3, k * k))
        plus, minus, z = plus * half2 * up, minus * half2 * down, z * half1 * kept
        z[0] += 1 - half1
        plus, minus = np.r_[0, plus[:-1]], np.r_[minus[1:], 0]
        plus[0] = np.conj(minus[0])
        return plus, minus, z

    for _ in range(trains):
        z = z * math.exp(-t2_prep / t2)
        none = np.zeros(size, complex)
        state = pulse(none, none, z, excitation * b1, excitation_phase)
        echoes = []
        for flip, phase in zip(flips, phases, strict=True):
            state = wait(*pulse(*wait(*state), flip * b1, phase))
            echoes.append(state[0][0])
        z = state[2]
        if tr is not None:
            rest = math.exp(-(tr - t2_prep - n * esp) / t1)
            z = z * rest * np.exp(-damping * (tr - n * esp) * k * k)
            z[0] += 1 - rest
            if spoiling == "complete":
                z[1:] = 0
    return np.array(echoes)


def bloch_trains(
    flips, esp, t1, t2, *, excitation=math.pi / 2, excitation_phase=math.pi / 2, phases=None, b1=1.0, t2_prep=0.0,
    tr=None, spoiling="transverse", trains=1, isochromats=256,
):  # fmt: skip
    """The same by rotating and relaxing isochromats spread over a cycle of dephasing in half a spacing."""
    n = len(flips)
    phases = np.zeros(n) if phases is None else phases
    turn = np.exp(2j * np.pi * (np.arange(isochromats) + 0.5) / isochromats)
    xy, z = np.zeros(isochromats, complex), np.ones(isochromats)

    def pulse(xy, z, flip, phase):
        # About the axis at `phase`: what lies along it stays, the rest turns with z.
        xy = xy * np.exp(-1j * phase)
        y = np.cos(flip) * xy.imag - np.sin(flip) * z
        z = np.sin(flip) * xy.imag + np.cos(flip) * z
        return (xy.real + 1j * y) * np.exp(1j * phase), z

    def relax(xy, z, time):
        e1 = np.exp(-time / t1)
        return xy * np.exp(-time / t2), z * e1 + 1 - e1

    for _ in range(trains):
        xy, z = pulse(np.zeros(isochromats, complex), z * np.exp(-t2_prep / t2), excitation * b1, excitation_phase)
        echoes = []
        for flip, phase in zip(flips, phases, strict=True):
            xy, z = relax(xy * turn, z, esp / 2)
            xy, z = pulse(xy, z, flip * b1, phase)
            xy, z = relax(xy * turn, z, esp / 2)
            echoes.append(xy.mean())
        if tr is not None:
            _, z = relax(xy, z, tr - t2_prep - n * esp)
            z = np.full(isochromats, z.mean()) if spoiling == "complete" else z
    return np.array(echoes)
