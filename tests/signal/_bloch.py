"""Float64 NumPy oracles that share nothing with the package, and a check of derivatives in every mode."""

import jax
import jax.numpy as jnp
import numpy as np


def rotation(flip, phase):
    """Right-handed rotation by `flip` about the axis at `phase` in the transverse plane, `(3, 3)`.

    A 90° pulse of phase 0 sends +z to -y.
    """
    c, s = np.cos(flip), np.sin(flip)
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    cp, sp = np.cos(phase), np.sin(phase)
    turn = np.array([[cp, -sp, 0], [sp, cp, 0], [0, 0, 1]])
    return turn @ about_x @ turn.T


def bloch(flips, phases, steps, t1, t2, *, dephasing, b0=0.0, mz=1.0, read=1):
    """Signals of isochromats by direct integration of the Bloch equations.

    steps: list of (duration or one per pulse, orders); dephasing: angle of each isochromat per order, `(P,)`,
    uniform over a turn for a spoiled voxel; b0: Hz, one or `(P,)`. The echo is the mean over isochromats after
    `read` steps, in the frame whose y is the axis of the last pulse.
    """
    points = np.size(dephasing)
    m = np.zeros((3, points))
    m[2] = mz
    echoes = []
    for n, (flip, phase) in enumerate(zip(flips, phases, strict=True)):
        m = rotation(flip, phase) @ m
        seen = m[0] + 1j * m[1]
        for i, (duration, orders) in enumerate(steps):
            if i == read:
                seen = m[0] + 1j * m[1]
            t = np.broadcast_to(duration, len(flips))[n]
            xy = (m[0] + 1j * m[1]) * np.exp(1j * (2 * np.pi * b0 * t + orders * dephasing) - t / t2)
            m = np.stack([xy.real, xy.imag, 1 + (m[2] - 1) * np.exp(-t / t1)])
        if read == len(steps):
            seen = m[0] + 1j * m[1]
        # The frame in which the pulse of phase φ (about x at 0) has its axis along y.
        echoes.append(1j * np.exp(-1j * phase) * np.mean(seen))
    return np.array(echoes)


def selective_rotation(envelope, time_bandwidth, flip, place, thickness=1.0):
    """The rotation `(3, 3)` of a pulse about x under a gradient, sample by sample (Rodrigues), at one place.

    The gradient's own turn is taken back about the envelope's centre of mass, half before and half after the pulse
    where that is its middle.
    """

    def about(vector):
        size = np.linalg.norm(vector)
        x, y, z = vector / (size or 1.0)
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        return np.eye(3) + np.sin(size) * cross + (1 - np.cos(size)) * cross @ cross

    angles = np.asarray(envelope) / np.sum(envelope) * flip
    turn = 2 * np.pi * time_bandwidth * place / thickness / len(angles)
    whole = np.eye(3)
    for angle in angles:
        whole = about(np.array([np.real(angle), np.imag(angle), turn])) @ whole
    centre = np.real(np.sum(angles * (np.arange(len(angles)) + 0.5)) / flip)
    before, after = (about(np.array([0, 0, -turn * time])) for time in (centre, len(angles) - centre))
    return after @ whole @ before


def bloch_events(events, t1, t2, *, dephasing, b0=0.0, b1=1.0, turn=lambda angle, kind=None: rotation(angle, 0.0)):
    """Samples of isochromats that a list of events is played on, one after another.

    events: `("pulse", angle, phase)`, which takes +z towards `phase`, perhaps with a kind of pulse besides; `("wait",
    duration, orders)`; `("spoil",)`; `("average",)` of z; `("invert", efficiency)`; ("lock", duration, phase,
    t1_rho)`; or `("readout", te, phase)` of the
    receiver.
    turn: the rotation `(3, 3)` of a pulse about x, of its angle and kind.
    """
    m = np.zeros((3, np.size(dephasing)))
    m[2] = 1
    samples = []

    def wait(m, t, orders):
        xy = (m[0] + 1j * m[1]) * np.exp(1j * (2 * np.pi * b0 * t + orders * dephasing) - t / t2)
        return np.stack([xy.real, xy.imag, 1 + (m[2] - 1) * np.exp(-t / t1)])

    for name, *numbers in events:
        if name == "pulse":
            angle, phase, *kind = numbers
            frame = np.array([[-np.sin(phase), -np.cos(phase), 0], [np.cos(phase), -np.sin(phase), 0], [0, 0, 1]])
            m = frame @ turn(b1 * angle, *kind) @ frame.T @ m
        elif name == "spoil":
            m[:2] = 0
        elif name == "average":  # of what dephasing has stored along z
            m = np.broadcast_to(m.mean(axis=1, keepdims=True), m.shape).copy()
        elif name == "invert":
            m = np.array([[0], [0], [-numbers[0]]]) * m
        elif name == "lock":
            duration, phase, t1_rho = numbers
            axis = np.array([np.cos(phase), np.sin(phase), 0])
            m = np.outer(axis, axis @ m) * np.exp(-duration / t1_rho)
        elif name == "wait":
            m = wait(m, *numbers)
        else:
            te, phase = numbers
            m = wait(m, te, 0)
            samples.append(np.exp(-1j * phase) * np.mean(m[0] + 1j * m[1]))
    return np.array(samples)


def turn_points(count):
    """Dephasings of isochromats equally spaced over one turn: exact for fewer than `count` orders."""
    return 2 * np.pi * (np.arange(count) + 0.5) / count


def epg(flips, phases, steps, t1, t2, *, b0=0.0, mz=1.0, read=1, diffusion=0.0):
    """A textbook EPG with every order kept, one 3x3 complex matrix a pulse (Weigel 2015); `diffusion` is
    D · (rad/m per order)²."""
    flips = np.asarray(flips, float)
    top = 1 + sum(abs(orders) for _, orders in steps) * len(flips)
    orders_of = np.arange(-top, top + 1)
    f = np.zeros(2 * top + 1, complex)  # F_k, k = -top … top
    z = np.zeros(2 * top + 1, complex)
    z[top] = mz
    echoes = []
    for n, (a, p) in enumerate(zip(flips, phases, strict=True)):
        c2, s2, e = np.cos(a / 2) ** 2, np.sin(a / 2) ** 2, np.exp(1j * p)
        mirror = f[::-1].conj()  # conj(F_-k)
        f, z = (
            c2 * f + e**2 * s2 * mirror - 1j * e * np.sin(a) * z,
            -0.5j * np.conj(e) * np.sin(a) * f + 0.5j * e * np.sin(a) * mirror + np.cos(a) * z,
        )
        seen = f[top]
        for i, (duration, orders) in enumerate(steps):
            if i == read:
                seen = f[top]
            t = np.broadcast_to(duration, len(flips))[n]
            ramp = (orders_of + orders / 2) ** 2 + orders**2 / 12
            f = f * np.exp(-t / t2 + 2j * np.pi * b0 * t - diffusion * t * ramp)
            z = z * np.exp(-t / t1 - diffusion * t * orders_of**2)
            z[top] += 1 - np.exp(-t / t1)
            f = np.roll(f, orders)
        if read == len(steps):
            seen = f[top]
        echoes.append(1j * np.exp(-1j * p) * seen)
    return np.array(echoes)


def central_difference(function, x, direction, step):
    """Derivative along `direction` by sixth-order central differences."""
    at = {k: function(x + k * step * direction) for k in (-3, -2, -1, 1, 2, 3)}
    return (45 * (at[1] - at[-1]) - 9 * (at[2] - at[-2]) + (at[3] - at[-3])) / (60 * step)


def check_derivatives(signal, arguments, *, tolerance=1e-8, second=True):
    """Derivatives of `signal(**arguments)` by each argument against central differences, forward and reverse.

    Forward those of the signal; reverse those of a sum of it and, with `second`, of a squared `jacfwd` by T2, which is
    the form of a Cramér-Rao bound.
    """
    rng = np.random.default_rng(7)
    arguments = {name: np.asarray(value, float) for name, value in arguments.items()}
    none = jax.tree.map(np.zeros_like, arguments)

    def run(args):
        return signal(**args)

    weights = rng.standard_normal(jax.eval_shape(run, arguments).shape)

    def total(args):
        out = run(args)
        value = (weights * (out.real + 0.5 * jnp.abs(out) ** 2)).sum()
        if second:
            slope = jax.jacfwd(lambda shift: run(args | {"t2": args["t2"] * (1 + shift)}))(0.0)
            value += (weights * jnp.abs(slope) ** 2).sum()
        return value

    forward = jax.jit(lambda args, tangents: jax.jvp(run, (args,), (tangents,)))
    reverse = jax.jit(jax.value_and_grad(total))
    value, gradient = jax.device_get(reverse(arguments))
    for name, at in arguments.items():
        direction = np.abs(at) * rng.uniform(0.5, 1.0, at.shape)
        out, tangent = jax.device_get(forward(arguments, none | {name: direction}))
        expected = central_difference(
            lambda x, n=name: np.asarray(forward(arguments | {n: x}, none)[0]), at, direction, 1e-3
        )
        _close(tangent, expected, tolerance, f"jvp by {name}", out)
        expected = central_difference(lambda x, n=name: np.asarray(reverse(arguments | {n: x})[0]), at, direction, 1e-3)
        _close((gradient[name] * direction).sum(), expected, tolerance, f"grad by {name}", value)


def _close(got, expected, tolerance, what, scale):
    # A derivative that is zero by physics is compared with the function itself.
    size = max(np.linalg.norm(expected), 1e-4 * np.linalg.norm(np.asarray(scale)))
    error = np.linalg.norm(got - expected) / size
    assert error <= tolerance, f"{what}: relative error {error:.2e}"
