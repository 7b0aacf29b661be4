"""Fast spin echo against textbook values, a full EPG, Bloch isochromats and central differences."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.signal import FSE, TissueParams, fse, simulate
from acqdesign.units import rad_from_deg

ESP, T1, T2 = 0.01, 1.0, 0.1


def degrees(*values):
    return jnp.asarray(rad_from_deg(np.array(values, float)))


def full_epg(flips, esp, t1, t2, excitation=math.pi / 2, b1=1.0):
    """Complex EPG of half spacings with every order, in NumPy: no parity, no real arithmetic, no truncation."""
    n = len(flips)
    size = 2 * n + 2
    half1, half2 = math.exp(-esp / 2 / t1), math.exp(-esp / 2 / t2)
    plus, minus, z = (np.zeros(size, complex) for _ in range(3))
    z[0] = math.cos(excitation * b1)
    plus[0] = minus[0] = math.sin(excitation * b1)  # along x, the axis of the pulses

    def wait(plus, minus, z):
        plus, minus, z = plus * half2, minus * half2, z * half1
        z[0] += 1 - half1
        plus, minus = np.r_[0, plus[:-1]], np.r_[minus[1:], 0]
        plus[0] = np.conj(minus[0])
        return plus, minus, z

    echoes = []
    for flip in flips:
        plus, minus, z = wait(plus, minus, z)
        c, s, sin, cos = (
            math.cos(flip * b1 / 2) ** 2,
            math.sin(flip * b1 / 2) ** 2,
            math.sin(flip * b1),
            math.cos(flip * b1),
        )
        plus, minus, z = (
            c * plus + s * minus - 1j * sin * z,
            s * plus + c * minus + 1j * sin * z,
            -0.5j * sin * plus + 0.5j * sin * minus + cos * z,
        )
        plus, minus, z = wait(plus, minus, z)
        echoes.append(plus[0])
    return np.array(echoes)


def bloch_steady(flips, esp, t1, t2, tr, b1, trains=40, isochromats=32):
    """Isochromats over one cycle of dephasing a half spacing, trains repeated, spoiled between them."""
    phase = 2 * np.pi * (np.arange(isochromats) + 0.5) / isochromats
    m = np.zeros((isochromats, 3))
    m[:, 2] = 1

    def turn(m, axis, angle):
        a, b = [(1, 2), (2, 0), (0, 1)][axis]
        out, c, s = m.copy(), np.cos(angle), np.sin(angle)
        out[:, a], out[:, b] = c * m[:, a] - s * m[:, b], s * m[:, a] + c * m[:, b]
        return out

    def relax(m, time):
        e1, e2 = np.exp(-time / t1), np.exp(-time / t2)
        return m * [e2, e2, e1] + [0, 0, 1 - e1]

    for _ in range(trains):
        m = np.tile([0, 0, m[:, 2].mean()], (isochromats, 1))
        m, echoes = turn(m, 1, b1 * np.pi / 2), []
        for flip in flips:
            m = turn(relax(m, esp / 2), 2, phase)
            m = turn(relax(turn(m, 0, b1 * flip), esp / 2), 2, phase)
            echoes.append(m[:, 0].mean())
        m = relax(m, tr - len(flips) * esp)
    return np.array(echoes)


def test_textbook_cpmg():
    """Without relaxation 120° gives .75, .9375, .84375, .85546875, and the first echo is sin²(α/2)."""
    signal = fse(degrees(120, 120, 120, 120), ESP, math.inf, math.inf)
    np.testing.assert_allclose(signal, [0.75, 0.9375, 0.84375, 0.85546875], rtol=1e-12)
    for alpha in (20.0, 90.0, 155.0):
        first = fse(degrees(alpha), ESP, math.inf, math.inf)[0]
        assert float(first) == pytest.approx(math.sin(math.radians(alpha) / 2) ** 2, rel=1e-12)


@pytest.mark.parametrize("alpha", [40.0, 90.0, 140.0])
def test_pseudo_steady_states(alpha):
    """Constant flips settle at sin(α/2); after a first pulse of 90° + α/2, at 2s/(1+s)."""
    n = 600
    s = math.sin(math.radians(alpha) / 2)
    flips = jnp.full(n, rad_from_deg(alpha))
    settled = fse(flips, ESP, math.inf, math.inf)[n // 2 - 50 : n // 2].mean()
    assert float(settled) == pytest.approx(s, rel=2e-3)
    prepared = fse(flips.at[0].set(rad_from_deg(90 + alpha / 2)), ESP, math.inf, math.inf)
    assert float(prepared[n // 2 - 50 : n // 2].mean()) == pytest.approx(2 * s / (1 + s), rel=2e-3)


def test_published_trains():
    flips = jnp.full(30, rad_from_deg(120.0))
    np.testing.assert_allclose(fse(flips, 0.01, 1.0, 0.2)[:3], [0.713422, 0.862133, 0.732540], atol=5e-7)
    first = fse(flips.at[0].set(rad_from_deg(150.0)), 0.01, 1.0, 0.2)[:2]
    np.testing.assert_allclose(first, [0.887509, 0.837067], atol=5e-7)
    sixty = jnp.full(96, rad_from_deg(60.0))
    np.testing.assert_allclose(
        fse(sixty, 5e-3, 1.0, 0.1)[:3], [0.23780736, 0.41148427, 0.47987732], atol=5e-9
    )


def test_reference_cost_and_its_gradient():
    """`1 / Σ (dS/dT2)²` in ms and its gradient by flips in degrees, 96 pulses of 60°."""

    def cost(flips_deg):
        flips = rad_from_deg(flips_deg)
        slope = jax.jvp(lambda t2: fse(flips, 5.0, 1000.0, t2), (100.0,), (1.0,))[1]
        return 1 / jnp.sum(slope**2)

    value, gradient = jax.jit(jax.value_and_grad(cost))(jnp.full(96, 60.0))
    assert float(value) == pytest.approx(7197.580283, rel=1e-9)
    np.testing.assert_allclose(gradient[:3], [-149.7549, -7.10149, 40.50470], rtol=2e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-5)])
@pytest.mark.parametrize("n", [1, 2, 7, 24])
def test_full_epg(rng, n, dtype, tolerance):
    flips, b1 = rng.uniform(0, np.pi, n), 0.9
    wanted = full_epg(flips, ESP, T1, T2, b1=b1)
    assert np.abs(wanted.imag).max() < 1e-14
    found = fse(jnp.asarray(flips, dtype), dtype(ESP), dtype(T1), dtype(T2), b1=dtype(b1))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, wanted.real, atol=tolerance)


@pytest.mark.parametrize(("tr", "b1"), [(0.12, 0.8), (0.2, 1.0), (1.0, 1.1)])
def test_steady_state_of_trains(rng, tr, b1):
    """Recovery carried from train to train, against isochromats: even orders included."""
    flips = rng.uniform(0.3, 2.8, 8)
    wanted = bloch_steady(flips, ESP, T1, T2, tr, b1)
    np.testing.assert_allclose(fse(jnp.asarray(flips), ESP, T1, T2, tr=tr, b1=b1), wanted, atol=1e-10)
    single = fse(
        jnp.asarray(flips, jnp.float32), np.float32(ESP), np.float32(T1), np.float32(T2), tr=tr, b1=b1
    )
    np.testing.assert_allclose(single, wanted, atol=1e-5)


def test_batches_broadcast_and_blocks_agree(rng):
    """Any batch shape, and more tissues than one block, give what one tissue alone gives."""
    flips = jnp.asarray(rng.uniform(0.3, 2.8, 16))
    t1, t2, b1 = rng.uniform(0.5, 2, (700, 1)), rng.uniform(0.02, 0.3, (700, 1)), np.array([0.9, 1.0, 1.1])
    signal = fse(flips, ESP, jnp.asarray(t1), jnp.asarray(t2), b1=jnp.asarray(b1), tr=0.5)
    assert signal.shape == (700, 3, 16)
    for i, j in ((0, 0), (350, 1), (699, 2)):
        one = fse(flips, ESP, t1[i, 0], t2[i, 0], b1=b1[j], tr=0.5)
        np.testing.assert_allclose(signal[i, j], one, atol=1e-14)


@pytest.mark.parametrize("tr", [None, 0.3])
def test_derivatives_are_those_of_central_differences(rng, tr):
    """Forward and reverse, for flips, T1, T2, B1, spacing and excitation; and the gradient of a bound."""
    flips = jnp.asarray(rng.uniform(0.4, 2.6, 12))
    weights = jnp.asarray(rng.normal(size=12))
    start = {"flips": flips, "esp": ESP, "t1": T1, "t2": T2, "b1": 0.95, "excitation": 1.4}
    start = {name: jnp.asarray(value, jnp.float64) for name, value in start.items()}

    def f(p):
        signal = fse(p["flips"], p["esp"], p["t1"], p["t2"], b1=p["b1"], excitation=p["excitation"], tr=tr)
        return jnp.sum(jnp.sin(weights * signal))

    reverse, forward = jax.grad(f)(start), jax.jacfwd(f)(start)
    for name, value in start.items():
        step = 1e-6 * float(jnp.max(jnp.abs(value)))
        wanted = [
            (
                f({**start, name: value + step * e.reshape(value.shape)})
                - f({**start, name: value - step * e.reshape(value.shape)})
            )
            / (2 * step)
            for e in np.eye(value.size)
        ]
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(reverse[name].ravel(), wanted, atol=1e-8 * scale, rtol=1e-7)
        np.testing.assert_allclose(
            forward[name].ravel(), reverse[name].ravel(), atol=1e-12 * scale, rtol=1e-9
        )

    def bound(flips):
        slopes = jax.jacfwd(lambda t: fse(flips, ESP, t[0], t[1], tr=tr))(jnp.array([T1, T2]))
        return 1 / jnp.sum(slopes[:, 1] ** 2)

    gradient, step = jax.grad(bound)(flips), 1e-6
    wanted = [(bound(flips + step * e) - bound(flips - step * e)) / (2 * step) for e in np.eye(12)]
    np.testing.assert_allclose(gradient, wanted, rtol=1e-6, atol=1e-8 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("flips", "t1", "t2"),
    [
        (np.zeros(6), 1.0, 0.1),
        (np.full(6, np.pi), 1.0, 0.1),
        (np.full(6, 1.0), math.inf, 0.1),
        (np.full(6, 1.0), math.inf, math.inf),
        (np.full(6, 1.0), 1.0, 1e-9),
    ],
)
def test_extremes_have_finite_gradients(flips, t1, t2):
    f = lambda flips, t1, t2: jnp.sum(fse(flips, ESP, t1, t2, tr=0.2) ** 2)  # noqa: E731
    gradients = jax.grad(f, (0, 1, 2))(jnp.asarray(flips), jnp.asarray(t1), jnp.asarray(t2))
    assert all(np.isfinite(g).all() for g in gradients)


def test_fewer_states_are_an_approximation_asked_for():
    flips = jnp.full(40, rad_from_deg(50.0))
    exact = fse(flips, ESP, T1, T2)
    np.testing.assert_array_equal(fse(flips, ESP, T1, T2, n_states=21), exact)
    assert 1e-6 < float(jnp.abs(fse(flips, ESP, T1, T2, n_states=10) - exact).max()) < 0.05


def test_sequence_object_is_the_function():
    flips = jnp.full(5, 1.2)
    tissue = TissueParams(t1=jnp.array([1.0, 2.0]), t2=0.1, m0=2.0, b1=0.9)
    wanted = fse(flips, ESP, tissue.t1, 0.1, m0=2.0, b1=0.9, tr=0.5)
    np.testing.assert_array_equal(simulate(FSE(flips, ESP, tr=0.5), tissue), wanted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t2": -0.1}, "t2: got -0.1"),
        ({"t1": math.nan}, "t1: got nan"),
        ({"t2": 3.0}, "T2 <= 2 T1"),
        ({"esp": 0.0}, "esp: got 0.0"),
        ({"tr": 0.02}, r"tr: got 0.02 s, expected at least the train's 4 x esp = 0.04 s"),
        ({"flips": np.ones((2, 2))}, "flips: .*vector"),
    ],
)
def test_bad_input_names_the_argument(change, message):
    given = {"flips": np.ones(4), "esp": ESP, "t1": T1, "t2": T2} | change
    with pytest.raises(ValueError, match=message):
        fse(**{k: jnp.asarray(v) for k, v in given.items()})
