"""Sequences that are lists of events: textbook formulas, isochromats, differences, and times that keep their order."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from acqdesign.base.checks import UsageError
from acqdesign.base.trees import leaf_names
from acqdesign.design import Problem, bound, learn
from acqdesign.optim import Constraint, lbfgs
from acqdesign.scene import Tissue, tissues
from acqdesign.signal import (
    DESS,
    FLAIR,
    MP2RAGE,
    PSIF,
    SEQUENCES,
    SPGR,
    DiffusionPrepared,
    Hyperecho,
    InversionRecovery,
    Invert,
    Lock,
    LookLocker,
    MultiGradientEcho,
    MultiSpinEcho,
    Pulse,
    Readout,
    Repeated,
    SaturationRecovery,
    SpinEcho,
    SpinLock,
    Spoil,
    StimulatedEcho,
    T2Prepared,
    Wait,
    play,
)
from acqdesign.signal.spgr import quadratic_phases
from acqdesign.signal.waits import Waits

from . import _bloch

KEY = jax.random.key(3)
T1, T2, RHO, ADC = 0.7, 0.08, 0.06, 1e-9
TISSUE = Tissue(T1, T2)
TIMES = np.array([0.02, 0.05, 0.09])
exp, sin, cos = np.exp, np.sin, np.cos


def saturated(time):
    return 1 - exp(-time / T1)


def hanicke(flips, tr, te):
    """FID and echo of the spoiled steady state (Hänicke & Vogel 2003, equations 1 to 3)."""
    e1, e2, c = exp(-tr / T1), exp(-tr / T2), cos(flips)
    p, q = 1 - e1 * c - e2**2 * (e1 - c), e2 * (1 - e1) * (1 + c)
    r = (1 - e2**2) / np.sqrt(p**2 - q**2)
    fid = np.tan(flips / 2) * (1 - (e1 - c) * r) * exp(-te / T2)
    return fid, -np.tan(flips / 2) * (1 - (1 - e1 * c) * r) * exp(te / T2)


def marques(flips, ti, esp, tr, pulses, eff):
    """Equations A1.2 to A1.4 of Marques et al. 2010, the n-th pulse being read after n/2 others."""
    ta, tb, tc = ti[0] - pulses / 2 * esp, ti[1] - ti[0] - pulses * esp, tr - ti[1] - pulses / 2 * esp
    ea, eb, ec, e1 = (exp(-t / T1) for t in (ta, tb, tc, esp))
    a, b = cos(flips) * e1
    sums = [(1 - e1) * (1 - x**pulses) / (1 - x) for x in (a, b)]
    steady = ((((1 - ea) * a**pulses + sums[0]) * eb + (1 - eb)) * b**pulses + sums[1]) * ec + (1 - ec)
    steady /= 1 + eff * (cos(flips[0]) * cos(flips[1])) ** pulses * exp(-tr / T1)
    half = pulses // 2
    first = (-eff * steady * ea + (1 - ea)) * a**half + (1 - e1) * (1 - a**half) / (1 - a)
    second = (steady - (1 - ec)) / (ec * b**half) - (1 - e1) * (b**-half - 1) / (1 - b)
    return np.array([sin(flips[0]) * first, sin(flips[1]) * second])


def ernst(flips, tr):
    return sin(flips) * saturated(tr) / (1 - cos(flips) * exp(-tr / T1))


def deichmann(flip, esp, ti, count):
    e1 = exp(-esp / T1)
    rate = 1 / T1 - math.log(cos(flip)) / esp
    steady, first = (1 - e1) / (1 - e1 * cos(flip)), 1 - 2 * exp(-ti / T1)
    return sin(flip) * (steady + (first - steady) * exp(-rate * esp * np.arange(count)))


SMALL = np.array([0.1, 0.3, 0.9])
RAGE = np.array([0.07, 0.09])
FORMULAS = {
    "spin echo": (
        SpinEcho(math.pi / 2, TIMES, tr=1.0),
        (1 - 2 * exp(-(1.0 - TIMES / 2) / T1) + exp(-1.0 / T1)) * exp(-TIMES / T2),
    ),
    "spin echo of other flips": (SpinEcho(SMALL, 0.03, refocusing=2.0), sin(SMALL) * sin(1.0) ** 2 * exp(-0.03 / T2)),
    "unequal spacings": (MultiSpinEcho(np.full(3, math.pi), TIMES), exp(-np.cumsum(TIMES) / T2)),
    "stimulated echo": (StimulatedEcho(SMALL, 0.02, TIMES), np.prod(sin(SMALL)) / 2 * exp(-0.02 / T2 - TIMES / T1)),
    "multi-echo gradient echo": (
        MultiGradientEcho(SMALL, [0.003, 0.004], tr=0.05),
        np.outer(ernst(SMALL, 0.05), exp(-np.array([0.003, 0.007]) / T2)).ravel(),
    ),
    "dess": (DESS(SMALL, 0.02, 0.004), np.concatenate(hanicke(SMALL, 0.02, 0.004))),
    "psif": (PSIF(SMALL, 0.02, 0.004), hanicke(SMALL, 0.02, 0.004)[1]),
    "inversion recovery": (
        InversionRecovery(math.pi / 2, TIMES, tr=1.5, te=0.0, inversion_efficiency=0.9),
        1 - (1 + 0.9 * saturated(1.5 - TIMES)) * exp(-TIMES / T1),
    ),
    "saturation recovery": (SaturationRecovery(SMALL, TIMES, te=0.0), sin(SMALL) * saturated(TIMES)),
    "flair": (
        FLAIR([math.pi], 0.03, 0.4, tr=2.0),
        np.array([1 - 2 * exp(-0.4 / T1) + 2 * exp(-(2.0 - 0.015) / T1) - exp(-2.0 / T1)]) * exp(-0.03 / T2),
    ),
    "look-locker": (LookLocker(np.full(5, 0.2), 0.03, 0.02, te=0.0), deichmann(0.2, 0.03, 0.02, 5)),
    "mp2rage": (MP2RAGE(RAGE, [0.5, 1.4], 0.006, tr=3.0, pulses=40), marques(RAGE, (0.5, 1.4), 0.006, 3.0, 40, 0.96)),
    "t2 preparation": (T2Prepared(math.pi / 2, TIMES, tr=1.0, te=0.0), exp(-TIMES / T2) * saturated(1.0 - TIMES)),
    "spin lock": (SpinLock(math.pi / 2, TIMES, tr=1.0, te=0.0), exp(-TIMES / RHO) * saturated(1.0 - TIMES)),
    "diffusion": (
        DiffusionPrepared(SMALL, 1e5 * TIMES, te=0.0),
        sin(SMALL) * exp(-0.04 / T2 - (1e5 * TIMES) ** 2 * (0.025 - 0.005) * ADC),
    ),
}


def of(sequence, **more):
    """The tissue, with what only some sequences see."""
    if isinstance(sequence, SpinLock):
        more["t1_rho"] = RHO
    if isinstance(sequence, DiffusionPrepared):
        more["diffusivity"] = ADC
    return Tissue(T1, T2, **more)


@pytest.mark.parametrize("name", FORMULAS)
def test_signals_are_those_of_the_textbook(name):
    """To rounding."""
    sequence, wanted = FORMULAS[name]
    found = sequence.signal(of(sequence))
    assert found.shape == wanted.shape == (sequence.readouts(),)
    np.testing.assert_allclose(found, wanted, atol=1e-13)


@pytest.mark.parametrize("phase", [0.0, 0.7])
def test_a_hyperecho_is_as_large_as_can_be(phase, rng):
    """Whatever the pulses, without relaxation and in spite of off-resonance; the echoes before it are not."""
    echoes = Hyperecho(rng.uniform(0.2, 2.5, 5), 0.01, phases=phase).signal(Tissue(np.inf, np.inf, b0=13.0))
    assert abs(echoes[-1] - 1) <= 1e-13
    assert abs(echoes[:-1]).max() < 0.99


def oracle(events, tissue, repetitions, dephasing):
    """The last of some repetitions by isochromats; what is dephased along z is averaged between them."""
    plain, count = [], 0
    for event in events:
        if isinstance(event, Pulse):
            plain.append(("pulse", event.angle, event.phase or 0.0))
        elif isinstance(event, Wait):
            plain.append(("wait", event.duration, event.orders))
        elif isinstance(event, Spoil):
            plain.append(("spoil",))
        elif isinstance(event, Invert):
            plain.append(("invert", event.efficiency))
        elif isinstance(event, Lock):
            plain.append(("lock", event.duration, event.phase or 0.0, RHO))
        else:
            plain.append(("readout", event.te, event.phase or 0.0))
            count += 1
    plain = [*plain, ("spoil",), ("average",)] * repetitions
    times = {"b0": 11.0, "b1": 0.9, "dephasing": dephasing}
    return _bloch.bloch_events(plain, tissue.t1, tissue.t2, **times)[-count:]


KINDS = {name: kind for name, kind in SEQUENCES.items() if issubclass(kind, Repeated)}

# Others take longer to compile, and are made of the same.
LONG = ("molli", "mp2rage", "flair", "mese", "hyperecho", "looklocker", "t2prep")
SOME = [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in KINDS]


def small(name, dtype=np.float64):
    """A short one of every kind, in a steady state where it has one, and the tissue it is for."""
    more = {"t1_rho": RHO} if name == "t1rho" else {"diffusivity": ADC} if name == "diffusion" else {}
    tissue = Tissue(*dtype([0.2, 0.08]), b1=dtype(0.9), **{key: dtype(value) for key, value in more.items()})
    sequence = KINDS[name].start(tissue, KEY, **({} if name == "mp2rage" else {"echoes": 5}))
    if name in ("mp2rage", "molli"):
        sequence = dataclasses.replace(sequence, pulses=6)
    return sequence, tissue


@pytest.mark.parametrize("name", sorted(set(KINDS) - {"diffusion"}))
def test_steady_states_are_those_of_isochromats(name):
    """After many repetitions, with B1 of 0.9 and off resonance."""
    sequence, tissue = small(name)
    tissue = eqx.tree_at(lambda t: t.b0, tissue, jnp.asarray(11.0), is_leaf=lambda x: x is None)
    found = sequence.signal(tissue).reshape(sequence.acquisitions(), -1)
    steady = 1 if sequence.tr is None else 140 if name == "mgre" else 12  # of 60 ms each
    for n, echoes in enumerate(found):
        own = {name: getattr(sequence, name) for name in sequence.each if getattr(sequence, name) is not None}
        own = {name: np.asarray(value) for name, value in own.items()}
        one = timed(sequence, **{name: x[n] if x.ndim else x for name, x in own.items()})
        assert abs(echoes - oracle(one.events(), tissue, steady, _bloch.turn_points(32))).max() <= 1e-12


@pytest.mark.parametrize("name", SOME)
def test_derivatives_by_all_that_is_learned(name):
    """Of a bound-like sum of squares, against sixth-order differences; and in single precision nothing is wider."""
    sequence, tissue = small(name)
    learned, rest = eqx.partition(sequence, sequence.learned())

    def loss(learned):
        whole = eqx.combine(learned, rest)
        slope = jax.jvp(lambda t2: whole.signal(eqx.tree_at(lambda t: t.t2, tissue, t2)), (tissue.t2,), (tissue.t2,))
        return sum(jnp.sum(jnp.abs(part) ** 2) for part in slope)

    gradient = jax.jit(jax.grad(loss))(learned)
    run = jax.jit(loss)
    assert len(leaf_names(learned)) >= 1
    for leaf, value in leaf_names(learned).items():
        direction = np.asarray(value) * np.linspace(0.5, 1.0, value.size).reshape(value.shape)
        where = lambda tree, leaf=leaf: leaf_names(tree)[leaf]  # noqa: E731
        wanted = _bloch.central_difference(
            lambda x, where=where: float(run(eqx.tree_at(where, learned, jnp.asarray(x)))),
            np.asarray(value),
            direction,
            1e-3,
        )
        np.testing.assert_allclose(np.sum(leaf_names(gradient)[leaf] * direction), wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", [*SOME, "dess", "psif"])
def test_edges_of_sequences_have_finite_gradients(name):
    """No flips at all, T2 to zero, T1 and T2 infinite; and single precision stays single."""
    dtype = np.float32
    if name in KINDS:
        sequence, tissue = small(name, dtype)
    else:
        sequence, tissue = SEQUENCES[name].start(Tissue(*dtype([1, 0.1])), KEY), Tissue(*dtype([1, 0.1]))
    t1, t2 = np.array([np.inf, 0.5, 0.5], dtype), np.array([np.inf, np.finfo(dtype).tiny, 0.1], dtype)
    learned, rest = eqx.partition(sequence, sequence.learned())

    def loss(learned, t1, t2):
        moved = eqx.tree_at(lambda t: (t.t1, t.t2), tissue, (t1, t2))
        found = eqx.combine(learned, rest).signal(moved)
        assert jnp.real(found).dtype == dtype
        return jnp.sum(jnp.abs(found) ** 2)

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    none = eqx.tree_at(lambda s: s.flips, learned, jnp.zeros_like(learned.flips))
    for flips in (learned, none):
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient(flips, t1, t2)))


def timed(sequence, **arrays):
    return eqx.tree_at(lambda s: [getattr(s, name) for name in arrays], sequence, [*map(jnp.asarray, arrays.values())])


def test_learned_times_go_to_the_nearest_that_fit():
    """As a general solver finds them: every wait stays, echo times and TR moving together."""
    sequence = timed(SpinEcho(np.ones(3), TIMES, tr=0.1), tr=np.full(3, 0.1))
    (waits,) = [c for c in sequence.limits() if isinstance(c, Waits)]
    assert set(waits.where) == {"te", "tr"}
    wrong = {"te": jnp.array([-0.02, 0.15, 0.05]), "tr": jnp.array([0.1, 0.11, 0.2])}
    found = dict(zip(waits.where, waits.project(*(wrong[name] for name in waits.where)), strict=True))
    for n in range(3):
        aim = np.array([wrong["te"][n], wrong["tr"][n]])
        inside = [{"type": "ineq", "fun": lambda x: x[0]}, {"type": "ineq", "fun": lambda x: x[1] - x[0]}]
        wanted = minimize(lambda x, aim=aim: np.sum((x - aim) ** 2), [0.05, 0.1], constraints=inside, tol=1e-14).x
        np.testing.assert_allclose([found["te"][n], found["tr"][n]], wanted, atol=3e-6)
    kept = waits.project(*(getattr(sequence, name) for name in waits.where))
    np.testing.assert_allclose(kept, [getattr(sequence, name) for name in waits.where], atol=1e-12)


def test_times_that_are_learned_never_cross():
    """Steps of any length: the two inversion times of MP2RAGE keep their trains apart and within TR."""
    start = MP2RAGE(RAGE, [0.5, 1.4], 0.006, tr=3.0, pulses=40)
    problem = Problem(tissues("wm", "gm").astype(np.float64), sequence=start, terms=bound("t1"))
    for step in (-5.0, 5.0):
        moved = eqx.tree_at(lambda d: d.sequence.ti, problem.split()[0], start.ti * jnp.array([1 + step, 1 - step]))
        first, second = problem.project(moved).sequence.ti
        assert 0.12 - 1e-9 <= first <= second - 0.24 + 1e-9
        assert second <= 3.0 - 0.12 + 1e-9
    assert np.isfinite(dataclasses.replace(start, ti=jnp.array([first, second])).signal(TISSUE)).all()


def test_times_are_learned_with_flips():
    """Of an inversion recovery from poor delays, to half of the bound and less, within TR."""
    start = InversionRecovery(np.full(4, 1.5), [0.01, 0.02, 0.03, 0.04], tr=2.0)
    problem = Problem(tissues("wm", "gm").astype(np.float64), sequence=start, terms=bound("t1"))
    result, design, _ = learn(problem, 15, optimizer=lbfgs())
    assert result.final_loss < 0.1 * result.initial_loss
    assert (design.sequence.ti >= 0).all()
    assert (design.sequence.ti <= 2.0 - 0.002).all()


@pytest.mark.parametrize("name", KINDS)
def test_durations_and_readouts_are_those_of_the_events(name):
    sequence, tissue = small(name)
    assert sequence.signal(tissue).shape == (sequence.readouts(),)
    if sequence.tr is not None:
        np.testing.assert_allclose(sequence.duration(), sequence.acquisitions() * sequence.tr)
    kinds = {type(c) for c in sequence.limits()}
    assert all(issubclass(kind, Constraint) for kind in kinds)


def test_real_spoiling_is_a_list_of_events_too():
    """Pulses of quadratically growing phase: `SPGR`, whose steady state they tend to; ideal spoiling differs."""
    flip, tr, te, n, tissue = 0.3, 0.01, 0.002, 400, Tissue(0.3, 0.06)
    events = []
    for phase in quadratic_phases(n, SPGR(jnp.ones(1), tr).rf_increment):
        events += [Pulse(flip, phase), Readout(te, phase), Wait(tr - te, 1)]
    found = play(events, tissue)
    np.testing.assert_allclose(found, SPGR(jnp.full(n, flip), tr, te).signal(tissue), atol=1e-12)
    steady, ideal = (SPGR(jnp.full(1, flip), tr, te, state=state).signal(tissue)[0] for state in ("steady", "ideal"))
    assert abs(found[-1] - steady) <= 1e-6
    assert abs(steady - ideal) >= 1e-4


def test_dess_is_a_list_of_events_too():
    """Many repetitions on the engine, off resonance, tend to the closed form."""
    tissue = Tissue(0.3, 0.06, b1=0.9, b0=7.0)
    events = [e for _ in range(200) for e in (Pulse(0.5), Readout(3e-3), Wait(14e-3, 1), Readout(), Wait(3e-3))]
    np.testing.assert_allclose(play(events, tissue)[-2:], DESS([0.5], 0.02, 3e-3).signal(tissue), atol=1e-6)


def test_t2_prime_acts_for_as_long_as_spins_are_dephased():
    """On gradient echoes by their echo time, on spin echoes not at all."""
    tissue, slow = Tissue(T1, T2, t2_prime=0.03), Tissue(T1, T2)
    echoes = MultiGradientEcho([0.4], [0.003, 0.004], tr=0.05)
    ratio = echoes.signal(tissue) / echoes.signal(slow)
    np.testing.assert_allclose(ratio, exp(-np.array([0.003, 0.007]) / 0.03), rtol=1e-12)
    train = MultiSpinEcho(np.full(3, 2.0), TIMES)
    np.testing.assert_array_equal(train.signal(tissue), train.signal(slow))


def test_the_uniform_image_is_free_of_what_is_received():
    """Of MP2RAGE, between -1/2 and 1/2, as equation 3 of Marques et al. 2010."""
    first, second = FORMULAS["mp2rage"][1]
    sequence = FORMULAS["mp2rage"][0]
    for m0 in (1.0, 3.0 * np.exp(0.7j)):
        found = MP2RAGE.uniform(sequence.signal(Tissue(T1, T2, m0=m0)))
        np.testing.assert_allclose(found, first * second / (first**2 + second**2), rtol=1e-10)
    assert MP2RAGE.uniform(jnp.zeros(2)) == 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SpinEcho(1.0, -0.01), "te: got -0.01, expected at least 0"),
        (lambda: SpinEcho(1.0, 0.2, tr=0.1), r"tr: got a wait of less than nothing, .* leave 0\.1 s more"),
        (lambda: SpinEcho(np.ones(2), np.ones(3)), "te: got .*, expected one number, or as many as flips has"),
        (lambda: SpinEcho(np.ones((2, 2)), 0.1), "flips: got .*, expected a number, or one for each acquisition"),
        (lambda: SpinEcho(1.0, np.nan), "te: got 1 non-finite"),
        (lambda: MultiSpinEcho(np.ones(3), np.ones(2)), "spacings: got .*, expected 3 numbers"),
        (lambda: MultiSpinEcho(1.0, np.ones(2)), "flips: got .*, expected a vector"),
        (lambda: StimulatedEcho(np.ones(2), 0.1, 0.1), "flips: got .*, expected 3 numbers"),
        (lambda: MP2RAGE(RAGE, [1.4, 0.5], 0.006, tr=3.0, pulses=40), "tr: got a wait of less than nothing"),
        (lambda: SpinLock(1.0, 0.05).signal(Tissue(1.0, 0.1)), "tissue: t1_rho: got None"),
    ],
)
def test_what_cannot_be_played_is_refused_by_name(make, words, unchecked_types):
    with pytest.raises(UsageError, match=words):
        make()


class Own(Repeated):
    """A sequence of ten lines: two echoes after a saturation, at a delay that is learned."""

    delay: jax.Array = 0.1

    def events(self):
        yield Invert(0.0)
        yield Wait(self.delay)
        yield Pulse(self.flips)
        yield Readout(0.005)
        yield Readout(0.005)
        yield Spoil()
        yield Wait(self.tr - self.delay - 0.01)


def test_a_sequence_of_ones_own_takes_ten_lines():
    """With a steady state, limits and a bound, by its events alone."""
    sequence = Own(jnp.asarray(1.2), tr=1.0, delay=jnp.asarray(0.3))
    wanted = sin(1.2) * saturated(0.3) * exp(-np.array([0.005, 0.01]) / T2)
    np.testing.assert_allclose(sequence.signal(TISSUE), wanted, atol=1e-14)
    assert [c.where for c in sequence.limits()] == [("delay",)]
    assert float(sequence.duration()) == pytest.approx(1.0)


def test_flair_nulls_fluid_as_it_starts():
    """Of cerebrospinal fluid at 3 T a hundredth is left, in its contrast and in its signal; of white matter most."""
    tissue = tissues("csf", "wm").astype(np.float64)
    sequence = FLAIR.start(tissue, KEY, echoes=5)
    csf, wm = np.abs(sequence.contrast(tissue) / tissue.m0)
    assert csf < 0.01
    assert wm > 0.5
    np.testing.assert_allclose(sequence.contrast(tissue), sequence.signal(tissue)[:, 2].real, atol=1e-12)
