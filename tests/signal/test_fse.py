"""Fast spin echo against textbook values, a full EPG, Bloch isochromats and central differences."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.base.units import rad_from_deg
from acqdesign.scene.tissue import Tissue
from acqdesign.signal import FSE, crlb, simulate

from ._bloch import central_difference, check_derivatives
from ._functions import fse
from ._trains import bloch_trains, epg_trains

ESP, T1, T2 = 0.01, 1.0, 0.1


def degrees(*values):
    return jnp.asarray(rad_from_deg(np.array(values, float)))


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
    np.testing.assert_allclose(fse(sixty, 5e-3, 1.0, 0.1)[:3], [0.23780736, 0.41148427, 0.47987732], atol=5e-9)


def test_reference_cost_and_its_gradient():
    """`1 / Σ (dS/dT2)²` in ms and its gradient by flips in degrees, 96 pulses of 60°."""

    def cost(flips_deg):
        flips = rad_from_deg(flips_deg)
        slope = jax.jvp(lambda t2: fse(flips, 5.0, 1000.0, t2), (100.0,), (1.0,))[1]
        return 1 / jnp.sum(slope**2)

    value, gradient = jax.jit(jax.value_and_grad(cost))(jnp.full(96, 60.0))
    assert float(value) == pytest.approx(7197.580283, rel=1e-9)
    np.testing.assert_allclose(gradient[:3], [-149.7549, -7.10149, 40.50470], rtol=2e-6)


PHASES = {"phases": np.linspace(-2.0, 3.0, 24) ** 2, "excitation_phase": 0.3, "excitation": 1.2}


@pytest.mark.parametrize(
    ("n", "dtype", "tolerance"), [*((n, np.float64, 1e-10) for n in (1, 2, 7, 24)), (7, np.float32, 1e-5)]
)
def test_full_epg(rng, n, dtype, tolerance):
    """A single train, with the phases of CPMG and with any, after a T2 preparation."""
    flips, b1 = rng.uniform(0, np.pi, n), 0.9
    for given in ({}, PHASES | {"phases": PHASES["phases"][:n], "t2_prep": 0.05}):
        wanted = epg_trains(flips, ESP, T1, T2, b1=b1, **given)
        arrays = {name: jnp.asarray(value, dtype) for name, value in given.items()}
        found = fse(jnp.asarray(flips, dtype), dtype(ESP), dtype(T1), dtype(T2), b1=dtype(b1), **arrays)
        assert found.dtype == (np.result_type(dtype, 1j) if given else dtype)
        np.testing.assert_allclose(found, wanted, atol=tolerance)


@pytest.mark.parametrize("tr", [0.12, 0.2, 1.0])
@pytest.mark.parametrize("spoiling", ["transverse", "complete"])
def test_steady_state_of_trains(rng, tr, spoiling):
    """What lasts from train to train, against isochromats: recovery, and what is stored along z dephased."""
    flips, given = rng.uniform(0.3, 2.8, 8), {"b1": 0.8, "excitation": 1.4, "tr": tr, "spoiling": spoiling}
    wanted = bloch_trains(flips, ESP, T1, T2, trains=40, **given)
    found = fse(jnp.asarray(flips), ESP, T1, T2, **given)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, wanted, atol=1e-10)
    single = fse(jnp.asarray(flips, jnp.float32), *np.float32([ESP, T1, T2]), **given)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, wanted, atol=1e-5)


FLUID = [  # pulses, spacing, flip, excitation, T1, T2, TR
    *((8, 5e-3, 60, 75, 4.0, 2.0, tr) for tr in (0.05, 0.2, 1.0)),
    (16, 5e-3, 60, 75, 4.0, 2.0, 0.1),
    (32, 10e-3, 60, 75, 4.0, 2.0, 0.5),
    (1, 5e-3, 2, 1, 4.0, 2.0, 0.01),
    (1, 5e-3, 1, 1, 5.0, 3.0, 0.01),
]


@pytest.mark.parametrize(("n", "esp", "flip", "excitation", "t1", "t2", "tr"), FLUID)
def test_repeated_trains_of_fluids(rng, n, esp, flip, excitation, t1, t2, tr):
    """However many trains a steady state takes: values and derivatives, of known tissues and of traced ones."""
    flips = np.full(n, np.deg2rad(flip))
    way = rng.normal(size=n + 2) * np.r_[np.full(n, 0.3), t1, t2]

    def wanted(step):
        t1_of, t2_of = t1 + step * way[-2], t2 + step * way[-1]
        given = {"excitation": np.deg2rad(excitation), "tr": tr, "trains": int(24 * t1 / tr)}
        return bloch_trains(flips + step * way[:n], esp, t1_of, t2_of, isochromats=256 if n == 1 else 80 * n, **given)

    found = partial(fse, esp=esp, tr=tr, excitation=np.deg2rad(excitation))
    exact = wanted(0.0)
    np.testing.assert_allclose(found(flips, t1=t1, t2=t2), exact, atol=1e-6)
    traced, slope = jax.jit(lambda *at: jax.jvp(lambda f, *t: found(f, t1=t[0], t2=t[1]), at, (way[:n], *way[n:])))(
        flips, t1, t2
    )
    np.testing.assert_allclose(traced, exact, atol=1e-6)
    np.testing.assert_allclose(slope, (wanted(1e-4) - wanted(-1e-4)) / 2e-4, atol=3e-6)
    single = fse(*(jnp.asarray(x, jnp.float32) for x in (flips, esp, t1, t2)), tr=tr, excitation=np.deg2rad(excitation))
    np.testing.assert_allclose(single, exact, atol=1e-5)


def test_repeated_trains_of_fluids_under_diffusion():
    """Orders that diffusion couples are solved for, not summed over trains."""
    flips, given = np.full(1, np.deg2rad(2.0)), {"excitation": np.deg2rad(1.0), "tr": 0.01}
    found = fse(flips, 5e-3, 4.0, 2.0, diffusivity=1e-9, order_moment=2e3, **given)
    damping = 1e-9 * 2e3**2
    wanted = epg_trains(flips, 5e-3, 4.0, 2.0, trains=9600, damping=damping, states=120, **given)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_a_steady_state_that_is_not_resolved_is_nan():
    """Tissues that are traced are taken to have a T1 of at most 5 s; more `n_states` resolve any."""
    flips, given = np.full(8, np.deg2rad(60.0)), {"tr": 0.05, "excitation": np.deg2rad(75.0)}
    found = jax.jit(lambda t: fse(flips, 5e-3, t, t, **given))(500.0)
    assert np.isnan(found).all()
    more, most = (fse(flips, 5e-3, 500.0, 500.0, n_states=n, **given) for n in (1000, 2000))
    np.testing.assert_allclose(more, most, atol=1e-8)


@pytest.mark.parametrize("spoiling", ["transverse", "complete"])
def test_steady_state_with_phases_and_preparation(rng, spoiling):
    """Any phases, those of CPMG among them, and a T2 preparation in every train: isochromats."""
    flips = rng.uniform(0.3, 2.8, 8)
    given = {"b1": 0.8, "excitation": 1.4, "tr": 0.2, "t2_prep": 0.04, "spoiling": spoiling}
    for phases, first in ((rng.uniform(-3, 3, 8), 0.4), (np.zeros(8), np.pi / 2)):
        turned = given | {"phases": phases, "excitation_phase": first}
        wanted = bloch_trains(flips, ESP, T1, T2, trains=40, **turned)
        np.testing.assert_allclose(fse(flips, ESP, T1, T2, **turned), wanted, atol=1e-10)


@pytest.mark.parametrize("spoiling", [None, "transverse", "complete"])
def test_diffusion(rng, spoiling):
    """Every order damped as Weigel 2010 has it, in one train and in the steady state."""
    flips, moment, diffusivity = rng.uniform(0.3, 2.8, 8), 2e4, 2e-9
    given = {} if spoiling is None else {"tr": 0.15, "spoiling": spoiling}
    found = fse(flips, ESP, T1, T2, diffusivity=diffusivity, order_moment=moment, **given)
    trains = 1 if spoiling is None else 60
    damping = diffusivity * moment**2
    wanted = epg_trains(flips, ESP, T1, T2, trains=trains, damping=damping, states=150, **given)
    np.testing.assert_allclose(found, wanted, atol=1e-10)
    assert np.abs(found - fse(flips, ESP, T1, T2, **given)).max() > 1e-4


def test_what_is_stored_dephased_matters():
    """At a TR of T1 it lasts: leaving it out is off by up to 1 % of M0, as said in the docstring."""
    flips = jnp.full(32, rad_from_deg(60.0))
    lasting, lost = (fse(flips, ESP, T1, T2, tr=1.0, spoiling=s) for s in ("transverse", "complete"))
    assert 0.01 < float(jnp.abs(lasting - lost).max()) < 0.015


def test_batches_broadcast_and_blocks_agree(rng):
    """Any batch shape, and more tissues than one block, give what one tissue alone gives."""
    flips = jnp.asarray(rng.uniform(0.3, 2.8, 8))
    t1, t2, b1 = rng.uniform(0.5, 2, (150, 1)), rng.uniform(0.02, 0.3, (150, 1)), np.array([0.9, 1.0, 1.1])
    signal = fse(flips, ESP, jnp.asarray(t1), jnp.asarray(t2), b1=jnp.asarray(b1), tr=0.5)
    assert signal.shape == (150, 3, 8)
    for i, j in ((0, 0), (75, 1), (149, 2)):
        one = fse(flips, ESP, t1[i, 0], t2[i, 0], b1=b1[j], tr=0.5)
        np.testing.assert_allclose(signal[i, j], one, atol=1e-14)


@pytest.mark.parametrize(
    "options",
    [
        {"flips": np.linspace(0.4, 2.6, 18), "t2": np.array([T2, 0.5 * T2])},
        {"phases": np.linspace(-1, 2, 6), "excitation_phase": 0.3, "diffusivity": 2e-9, "order_moment": 1e4},
        pytest.param({"tr": 0.3}, marks=pytest.mark.slow),
        pytest.param({"tr": 0.3, "spoiling": "complete", "t2_prep": 0.03}, marks=pytest.mark.slow),
        pytest.param({"tr": 0.3, "phases": np.linspace(-1, 2, 6), "excitation_phase": 0.3}, marks=pytest.mark.slow),
    ],
)
def test_derivatives_are_those_of_differences(rng, options):
    """Every mode, by every argument: in segments, with phases, diffusion and in steady states."""
    fixed = {name: options[name] for name in ("spoiling",) if name in options}
    arguments = {"flips": rng.uniform(0.4, 2.6, 6), "esp": ESP, "t1": T1, "t2": T2, "b1": 0.95, "excitation": 1.4}
    arguments |= {name: value for name, value in options.items() if name not in fixed}
    check_derivatives(lambda **given: fse(**given, **fixed), arguments, second="diffusivity" not in options)


EXTREMES = [
    (np.zeros(6), 1.0, 0.1),
    (np.full(6, np.pi), 1.0, 0.1),
    (np.full(6, 1.0), math.inf, 0.1),
    (np.full(6, 1.0), math.inf, math.inf),
    (np.full(6, 1.0), 1.0, 1e-9),
    (np.full(6, 1.0), 1e-9, 1e-9),
]


@pytest.fixture(scope="module")
def steady_energy():
    """The energy of a steady state's echoes, and its gradient by flips, T1 and T2."""
    return jax.jit(jax.value_and_grad(lambda flips, t1, t2: jnp.sum(fse(flips, ESP, t1, t2, tr=0.2) ** 2), (0, 1, 2)))


def test_gradient_of_a_steady_state(rng, steady_energy):
    """Against sixth-order differences; every mode and argument in the slow test above."""
    at = (rng.uniform(0.4, 2.6, 6), np.array(T1), np.array(T2))
    gradients = steady_energy(*at)[1]
    for i, (x, gradient) in enumerate(zip(at, gradients, strict=True)):
        direction = x * rng.uniform(0.5, 1, x.shape)
        along = lambda x, i=i: steady_energy(*at[:i], x, *at[i + 1 :])[0]  # noqa: E731
        wanted = central_difference(along, x, direction, 1e-3)
        np.testing.assert_allclose(np.sum(gradient * direction), wanted, rtol=1e-8)


@pytest.mark.parametrize(("flips", "t1", "t2"), EXTREMES)
def test_extremes_have_finite_gradients(flips, t1, t2, steady_energy):
    value, gradients = steady_energy(flips, np.array(t1), np.array(t2))
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradients)


@pytest.fixture(scope="module")
def bounds_of_t1_and_t2():
    """Bounds with M0 as a nuisance, and the gradient of the finite ones by flips."""

    def bounds(flips, times):
        run = lambda times: (lambda y: (y, y))(fse(flips, ESP, times[:, 0], times[:, 1]))  # noqa: E731
        along = lambda d: jax.jvp(run, (times,), (jnp.broadcast_to(d, times.shape),))  # noqa: E731
        (signal, _), (slopes, _) = jax.vmap(along, out_axes=(None, -1))(jnp.eye(2, dtype=times.dtype))
        found = crlb(slopes, signal=signal)
        return jnp.sum(jnp.where(jnp.isfinite(found), found, 0)), found

    return jax.jit(jax.value_and_grad(bounds, has_aux=True))


@pytest.mark.parametrize("dtype", [pytest.param(np.float64, marks=pytest.mark.slow), np.float32])
@pytest.mark.parametrize(("flips", "t1", "t2"), EXTREMES)
def test_bounds_at_extremes_are_never_nan(flips, t1, t2, dtype, bounds_of_t1_and_t2):
    """Of two equal tissues: finite or infinite bounds, and finite gradients."""
    times = jnp.asarray([[t1, t2]] * 2, dtype)
    (_, found), gradient = bounds_of_t1_and_t2(jnp.asarray(flips, dtype), times)
    assert found.dtype == dtype
    assert (found > 0).all()  # false for NaN
    np.testing.assert_array_equal(found[0], found[1])
    assert np.isfinite(gradient).all()


def test_fewer_states_are_an_approximation_asked_for():
    flips = jnp.full(40, rad_from_deg(50.0))
    exact = fse(flips, ESP, T1, T2)
    np.testing.assert_array_equal(fse(flips, ESP, T1, T2, n_states=21), exact)
    assert 1e-6 < float(jnp.abs(fse(flips, ESP, T1, T2, n_states=10) - exact).max()) < 0.05


def test_a_tissues_b1_and_m0_scale_angles_and_echoes():
    """`simulate` is the sequence's own signal; B1 multiplies excitation and refocusing, M0 the echoes."""
    flips = jnp.full(5, 1.2)
    tissue = Tissue(jnp.array([1.0, 2.0]), 0.1, m0=jnp.array([2.0, 1.0]), b1=0.9)
    found = simulate(FSE(flips, ESP, tr=0.5), tissue)
    np.testing.assert_array_equal(found, FSE(flips, ESP, tr=0.5).signal(tissue))
    plain = fse(0.9 * flips, ESP, tissue.t1, 0.1, m0=jnp.ones(2), excitation=0.9 * math.pi / 2, tr=0.5)
    np.testing.assert_allclose(found, tissue.m0[:, None] * plain, atol=1e-15)


def test_diffusion_needs_a_diffusivity_and_a_moment(rng):
    """A tissue's diffusivity acts only where the sequence has a moment, and a moment only on what diffuses."""
    flips = rng.uniform(0.3, 2.8, 8)
    neither = fse(flips, ESP, T1, T2)
    np.testing.assert_array_equal(fse(flips, ESP, T1, T2, diffusivity=2e-9), neither)
    np.testing.assert_array_equal(fse(flips, ESP, T1, T2, order_moment=2e4), neither)


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


@pytest.mark.parametrize("split", ["t1", "t2", "b1"])
def test_repeated_trains_where_one_property_is_split_over_devices(split):
    """Of one device: what varies over a mesh is a matter of types."""
    mesh = jax.make_mesh((1,), ("tissues",), axis_types=(jax.sharding.AxisType.Auto,))
    values, given = {"t1": 1.0, "t2": 0.1, "b1": 0.9}, np.array([1.0, 1.1])
    call = lambda x: fse(jnp.full(4, 1.0), ESP, tr=1.0, **(values | {split: values[split] * x}))  # noqa: E731
    spec = jax.sharding.PartitionSpec("tissues")
    with jax.set_mesh(mesh):
        found = jax.jit(jax.shard_map(call, in_specs=spec, out_specs=spec))(jnp.asarray(given))
    np.testing.assert_allclose(found, call(given), atol=1e-6)
