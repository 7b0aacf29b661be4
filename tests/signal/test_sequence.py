"""What every sequence is: a module of its design variables. Readers' own ones, and what the built-in ones bring."""

import logging
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import LinearConstraint, minimize

from acqdesign.base.checks import UsageError
from acqdesign.design import Problem, bound
from acqdesign.optim import Limits, Scaled, held, learned_mask
from acqdesign.scene.tissue import Tissue, tissues
from acqdesign.signal import (
    BSSFP,
    FSE,
    MPRAGE,
    SEQUENCES,
    SPGR,
    SSFPFID,
    Pulse,
    Readout,
    Sequence,
    Spoil,
    Wait,
    play,
    simulate,
    tissue_bounds,
)
from acqdesign.signal.spgr import RF_INCREMENT, quadratic_phases

from . import _bloch

KEY = jax.random.key(0)


class InversionTrain(Sequence):
    """A reader's own sequence by its events."""

    flips: jax.Array
    ti: jax.Array
    te: float = 2e-3

    def events(self):
        yield Pulse(math.pi)
        yield Spoil()
        yield Wait(self.ti)
        for flip in self.flips:
            yield Pulse(flip)
            yield Readout(te=self.te)
            yield Wait(8e-3, orders=1)


class Decay(Sequence):
    """A reader's own sequence by its signal, with a plain number that says how many readouts there are."""

    spacing: jax.Array
    floor: jax.Array = held()
    count: int = 5

    def signal(self, tissue):
        te = self.spacing * jnp.arange(1, self.count + 1)
        ones = jnp.ones_like(tissue.t1 * tissue.b1)[..., None]
        return tissue.m0[..., None] * jnp.exp(-te / tissue.t2[..., None]) * ones + self.floor


def own(kind, dtype=np.float64):
    if kind is Decay:
        return Decay(jnp.asarray(0.01, dtype), jnp.asarray(0.1, dtype))
    return InversionTrain(jnp.linspace(0.2, 0.9, 6, dtype=dtype), jnp.asarray(0.03, dtype))


def two_tissues(dtype=np.float64):
    return Tissue(np.array([1.0, 2.0]), np.array([0.1, 0.05]), np.array([0.7, 0.8])).astype(dtype)


own_kinds = pytest.mark.parametrize("kind", [InversionTrain, Decay])


@own_kinds
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_own_sequences_work_in_both_precisions_and_under_jit(kind, dtype):
    """The signal keeps the precision and has the tissue's batch shape; as an argument of a jitted function too."""
    sequence, tissue = own(kind, dtype), two_tissues(dtype)
    found = sequence.signal(tissue)
    assert found.dtype == dtype
    assert found.shape == (2, sequence.readouts())
    compiled = eqx.filter_jit(lambda s, t: s.signal(t))(sequence, tissue)
    assert compiled.dtype == dtype
    tolerance = 20 * np.finfo(dtype).eps
    np.testing.assert_allclose(compiled, found, rtol=0, atol=tolerance)
    np.testing.assert_array_equal(simulate(sequence, tissue), found)
    np.testing.assert_array_equal(simulate(sequence, tissue), found)
    np.testing.assert_allclose(found, own(kind).signal(two_tissues()), rtol=0, atol=1e-5)


@own_kinds
def test_gradients_of_own_sequences_have_their_shape_and_are_right(kind):
    """The gradient is a sequence of gradients, equal to central differences; bounds are made of them too."""
    sequence, tissue = own(kind), two_tissues()

    @eqx.filter_jit
    def loss(sequence):
        return jnp.sum(jnp.log(tissue_bounds(sequence, tissue, ("t2",), nuisance=())))

    gradient = eqx.filter_jit(eqx.filter_grad(loss))(sequence)
    assert isinstance(gradient, kind)
    for name in [name for name, value in vars(sequence).items() if eqx.is_array(value)]:

        def moved(shift, name=name):
            return float(loss(eqx.tree_at(lambda s: getattr(s, name), sequence, getattr(sequence, name) + shift)))

        wanted = _bloch.central_difference(moved, 0.0, 1.0, 1e-4)
        np.testing.assert_allclose(getattr(gradient, name).sum(), wanted, rtol=1e-7, atol=1e-9)


@own_kinds
def test_own_sequences_run_side_by_side(kind):
    """`vmap` over several starts, or over tissues one by one, is what each gives alone."""
    tissue, alone = two_tissues(), own(kind)
    others = jax.tree.map(lambda x: 0.9 * x if eqx.is_array(x) else x, alone)
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]) if eqx.is_array(a) else a, alone, others)
    found = eqx.filter_vmap(lambda s: s.signal(tissue), in_axes=(eqx.if_array(0),))(both)
    np.testing.assert_allclose(found[0], alone.signal(tissue), atol=1e-14)
    np.testing.assert_allclose(found[1], others.signal(tissue), atol=1e-14)
    by_tissue = jax.vmap(lambda *fields: alone.signal(Tissue(*fields)))(tissue.t1, tissue.t2, tissue.m0)
    np.testing.assert_allclose(by_tissue, found[0], atol=1e-14)


def test_own_sequences_say_what_is_learned_and_saved():
    """Float arrays outside of held fields; plain numbers never; all arrays are saved, by their names."""
    decay, train = own(Decay), own(InversionTrain)
    assert [bool(x) for x in jax.tree.leaves(learned_mask(decay))] == [True, False, False]
    assert [bool(x) for x in jax.tree.leaves(train.learned())] == [True, True, False]
    assert set(train.design()) == {"sequence.flips", "sequence.ti", "events", "recovers"}
    np.testing.assert_array_equal(train.design()["sequence.flips"], train.flips)
    scaled = eqx.tree_at(lambda s: s.flips, train, Scaled(train.flips / 0.1, 0.1))
    np.testing.assert_allclose(scaled.design()["sequence.flips"], train.flips)
    np.testing.assert_allclose(scaled.signal(two_tissues()), train.signal(two_tissues()), atol=1e-14)
    assert scaled.readouts() == 6
    assert decay.readouts() == 5
    assert train.readouts() == 6
    assert [limit.where for limit in train.limits()] == [("ti",)]
    assert decay.limits() == ()
    assert train.contrast(two_tissues()) is None


class Returns(Sequence):
    """Gives back what it holds."""

    value: object

    def signal(self, tissue):
        return self.value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (jnp.ones((4, 2)), r"got an array of shape \(4, 2\).*expected shape \(2, readouts\)"),
        (jnp.ones(4), r"got an array of shape \(4,\).*expected shape \(2, readouts\)"),
        (jnp.ones((1, 2, 4)), r"got an array of shape \(1, 2, 4\).*expected shape \(2, readouts\)"),
        (jnp.ones((2, 0)), r"got an array of shape \(2, 0\)"),
        (jnp.ones((2, 4), int), r"got .* dtype int64, expected a real or complex floating array"),
        (jnp.ones((2, 4), bool), r"got .* dtype bool, expected a real or complex floating array"),
        ((jnp.ones((2, 4)),), r"got .*, expected a real or complex floating array"),
        (None, r"got None, expected a real or complex floating array"),
    ],
)
def test_wrong_signals_are_told_by_the_sequences_name(value, words, unchecked_types):
    """Their shape or their numbers; outside of `jit` and within."""
    for run in (simulate, eqx.filter_jit(simulate)):
        with pytest.raises(UsageError, match=r"Returns\.signal: " + words):
            run(Returns(value), two_tissues())


def test_right_signals_pass_for_any_batch():
    """One tissue, a batch, and complex numbers."""
    for shape, tissue in (((), Tissue(1.0, 0.1)), ((2,), two_tissues()), ((3, 1), Tissue(np.ones((3, 1)), 0.1))):
        signal = jnp.full((*shape, 4), 1j)
        np.testing.assert_array_equal(simulate(Returns(signal), tissue), signal)


class Nothing(Sequence):
    """Neither events nor a signal, nor a start."""


def test_sequences_without_a_needed_part_are_told_by_name():
    with pytest.raises(UsageError, match=r"sequence: got Nothing without events\(\) and without signal\(\)"):
        Nothing().signal(Tissue(1.0, 0.1))
    with pytest.raises(UsageError, match=r"sequence: got Nothing without a classmethod start\(tissue, key\)"):
        Nothing.start(Tissue(1.0, 0.1), KEY)


TRAINS = ("fse", "mrf", "spgr", "bssfp", "mprage")
BUILT_IN = {
    "fse": lambda flips: FSE(flips, 0.01),
    "fse, repeated": lambda flips: FSE(flips, 0.01, tr=0.3),
    "mrf": lambda flips: SSFPFID(flips, 0.01, 0.002, inversion_time=0.02),
    "spgr": lambda flips: SPGR(flips, 0.01, 0.002),
    "spgr, steady": lambda flips: SPGR(flips, 0.01, 0.002, state="steady"),
    "spgr, ideal": lambda flips: SPGR(flips, 0.01, 0.002, state="ideal"),
    "bssfp": lambda flips: BSSFP(flips, 0.005, inversion_time=0.02),
    "bssfp, steady": lambda flips: BSSFP(flips, 0.005, steady=True),
    "mprage": lambda flips: MPRAGE(flips, 0.008, inversion_time=0.5, tr=2.0),
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_sequences_are_modules_of_their_flips(name, rng):
    """As arguments of `jit` and `vmap`, they give what the functions of their flips do; readouts are pulses."""
    make, tissue = BUILT_IN[name], two_tissues()
    flips = jnp.asarray(rng.uniform(0.3, 0.9, (2, 5)))
    wanted = jnp.stack([make(each).signal(tissue) for each in flips])
    stacked = jax.tree.map(lambda *x: jnp.stack(x) if eqx.is_array(x[0]) else x[0], *(make(each) for each in flips))
    run = eqx.filter_jit(eqx.filter_vmap(lambda s: simulate(s, tissue), in_axes=(eqx.if_array(0),)))
    np.testing.assert_allclose(run(stacked), wanted, atol=1e-13)
    assert make(flips[0]).readouts() == 5
    assert wanted.shape == (2, 2, 5)


@pytest.mark.parametrize("name", [*BUILT_IN, "events"])
def test_eager_calls_compile_once_for_a_shape(name, caplog):
    """Other numbers: nothing is compiled again."""

    def signal(flip, t1):
        tissue = Tissue(jnp.array([t1, 0.9 * t1]), jnp.array([0.1, 0.05]), jnp.array([0.7, 0.8]))
        make = BUILT_IN.get(name, lambda flips: InversionTrain(flips, jnp.asarray(0.03)))
        return make(jnp.full(5, flip)).signal(tissue)

    signal(0.3, 1.0)
    signal(0.4, 1.1)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        signal(0.5, 1.2)
    assert not [each for each in caplog.records if "Compiling" in each.getMessage()]


@pytest.mark.parametrize("name", BUILT_IN)
def test_signals_have_the_batch_shape_of_a_tissue_whatever_gives_it(name):
    """Of one field alone, though the sequence may not depend on it, as spin echoes do not on B0."""
    sequence = BUILT_IN[name](jnp.full(3, 0.4))

    def shape(**field):
        signal = jax.eval_shape(lambda: simulate(sequence, Tissue(**{"t1": 1.0, "t2": 0.1} | field)))
        return signal.shape

    for field in ("t1", "t2", "m0", "b1", "b0", "t2_prime", "diffusivity"):
        assert shape(**{field: np.full((2, 1), 0.09)}) == (2, 1, 3), field


@pytest.mark.parametrize("name", BUILT_IN)
def test_scaled_flips_are_played_as_they_are(name):
    """Flips held in units of their own, for L-BFGS: the same signal, readouts and entries of the design file."""
    sequence = BUILT_IN[name](jnp.linspace(0.3, 0.9, 5))
    scaled = eqx.tree_at(lambda s: s.flips, sequence, Scaled(sequence.flips / 0.2, 0.2))
    tissue = two_tissues()
    np.testing.assert_allclose(scaled.signal(tissue), sequence.signal(tissue), atol=1e-14)
    assert scaled.readouts() == 5
    assert scaled.duration() == pytest.approx(sequence.duration())
    for entry, value in sequence.design().items():
        if value is not None:
            np.testing.assert_allclose(scaled.design()[entry], value, atol=1e-15)


@pytest.mark.parametrize("name", TRAINS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_starts_are_ready_to_learn_from(name, dtype):
    """As many flips as asked for within the range, in the tissue's precision, with a finite signal of each tissue."""
    tissue = tissues("wm,gm").astype(dtype)
    sequence = SEQUENCES[name].start(tissue, KEY, echoes=5)
    assert type(sequence) is SEQUENCES[name]
    assert sequence.readouts() == 5
    assert sequence.flips.dtype == dtype
    assert (np.asarray(sequence.flips) >= 0).all()
    signal = simulate(sequence, tissue)
    assert signal.shape == (2, 5)
    assert jnp.real(signal).dtype == dtype
    assert np.isfinite(signal).all()
    assert np.abs(signal).max() > 1e-3
    mask = sequence.learned()
    assert mask.flips is True
    assert sum(bool(x) for x in jax.tree.leaves(mask)) == 1


@pytest.mark.parametrize("name", TRAINS)
def test_starts_of_every_name(name):
    """Drawn by the key alone, at the level asked for and no higher than the upper limit."""
    kind, tissue = SEQUENCES[name], Tissue(1.0, 0.1)
    constant = kind.start(tissue, KEY, echoes=12, start="constant", rms=0.2)
    np.testing.assert_allclose(constant.flips, 0.2, rtol=1e-6)
    bounded = kind.start(tissue, KEY, echoes=12, start="constant", rms=2.0, upper=0.5)
    np.testing.assert_allclose(bounded.flips, 0.5, rtol=1e-6)
    for start in ("random", "comb"):
        first, again, other = (
            np.asarray(kind.start(tissue, jax.random.key(seed), echoes=12, start=start).flips) for seed in (1, 1, 2)
        )
        np.testing.assert_array_equal(first, again)
        assert np.abs(first - other).max() > 1e-3
    with pytest.raises(UsageError, match=r"start: got 'constnt', expected one of .*Did you mean 'constant'"):
        kind.start(tissue, KEY, start="constnt")
    if kind is not FSE:
        with pytest.raises(UsageError, match=r"start: got 'pss', expected one of constant, sinusoid, random, comb"):
            kind.start(tissue, KEY, start="pss")


def test_starts_take_the_times_of_their_sequence():
    """What the command line asks for goes to where it belongs."""
    tissue = Tissue(1.0, 0.1)
    train = FSE.start(tissue, KEY, echoes=5, esp=8e-3, tr=2.0, te=24e-3, excitation=1.2)
    assert (train.esp, train.tr, train.excitation, train.te_echo) == (8e-3, 2.0, 1.2, 2)
    assert train.duration() == 2.0
    assert FSE.start(tissue, KEY, echoes=5, tr=None).duration() == pytest.approx(0.05)
    for kind in (SSFPFID, SPGR):
        found = kind.start(tissue, KEY, echoes=5, tr=9e-3, te=3e-3, ti=None)
        assert (found.tr, found.te, found.inversion_time) == (9e-3, 3e-3, None)
        assert found.duration() == pytest.approx(0.045)
    balanced = BSSFP.start(tissue, KEY, echoes=5, tr=4e-3, ti=0.1)
    assert (balanced.tr, balanced.te, balanced.inversion_time) == (4e-3, None, 0.1)
    assert balanced.duration() == pytest.approx(0.12)
    mprage = MPRAGE.start(tissue, KEY, echoes=5, esp=7e-3, tr=1.5, te=2e-3, ti=0.8)
    assert (mprage.esp, mprage.tr, mprage.te, mprage.inversion_time) == (7e-3, 1.5, 2e-3, 0.8)
    assert mprage.duration() == 1.5


@pytest.mark.parametrize("name", TRAINS)
def test_usual_limits_and_limits_of_physics_have_flips_in_common(name):
    """Every sequence limits its own flips to half a turn; a start projected onto both is within them."""
    kind = SEQUENCES[name]
    sequence = kind.start(Tissue(1.0, 0.1), KEY, echoes=8)
    (limits,) = sequence.limits()
    assert limits == Limits(0.0, math.pi, where="flips")
    np.testing.assert_allclose(limits.project(jnp.array([-1.0, 1.0, 4.0])), [0.0, 1.0, math.pi])
    usual = kind.usual_limits()
    usual.check(sequence.flips)
    found = np.asarray(usual.project(sequence.flips))
    degrees = np.degrees(found)
    assert degrees.min() >= 0
    if kind is FSE:
        assert np.sqrt(np.mean(degrees**2)) <= 60 * (1 + 1e-6)
    elif kind is MPRAGE:
        assert degrees.max() <= 30 * (1 + 1e-6)
    else:
        assert degrees.max() <= 90 * (1 + 1e-6)
        assert np.abs(np.diff(degrees)).max() <= 1 + 1e-6
    assert Sequence.usual_limits() == Limits(0.0, math.pi)


@pytest.mark.parametrize(
    "make",
    [
        lambda f: SSFPFID(f, jnp.linspace(8e-3, 12e-3, 4), 2e-3, inversion_time=0.02),
        lambda f: SPGR(f, 10e-3, 2e-3),
        lambda f: BSSFP(f, 5e-3),
        lambda f: MPRAGE(f, 8e-3, inversion_time=0.5, tr=2.0, te=3e-3),
    ],
)
def test_events_of_gradient_echoes_have_their_signal(make):
    """What is exported is played by the general engine as the sequence's own signal says."""
    sequence, tissue = make(jnp.deg2rad(jnp.array([10.0, 40.0, 25.0, 60.0]))), Tissue([0.8, 1.5], [0.08, 0.1])
    found = play(list(sequence.events()), tissue, steady=not sequence.recovers())
    np.testing.assert_allclose(found, sequence.signal(tissue), atol=1e-6)
    assert len(sequence.design()["events"]) == len(list(sequence.events()))


def test_designs_hold_what_is_played():
    """Flips, phases and times by pulse, in SI units; what a sequence has not is None or absent."""
    flips = jnp.linspace(0.2, 1.0, 4)
    design = FSE(flips, 0.01, tr=0.5, excitation=1.4, phases=0.1 * jnp.arange(4.0)).design()
    assert set(design) == {"tr_s", "flips_rad", "phases_rad", "te_s", "esp_s", "excitation_rad"}
    np.testing.assert_array_equal(design["flips_rad"], flips)
    np.testing.assert_allclose(design["phases_rad"], 0.1 * np.arange(4))
    np.testing.assert_allclose(design["te_s"], [0.01, 0.02, 0.03, 0.04])
    assert (design["tr_s"].tolist(), design["esp_s"], design["excitation_rad"]) == ([0.5], 0.01, 1.4)
    assert FSE(flips, 0.01).design()["tr_s"] is None
    np.testing.assert_array_equal(FSE(flips, 0.01).design()["phases_rad"], np.zeros(4))

    by_pulse = {"flips_rad", "phases_rad", "ti_s", "tr_s", "te_s", "events", "recovers"}
    for sequence, phases, te in (
        (SSFPFID(flips, 0.01, 0.002), np.zeros(4), 0.002),
        (SPGR(flips, 0.01, 0.002), quadratic_phases(4, RF_INCREMENT), 0.002),
        (SPGR(flips, 0.01, 0.002, state="ideal"), np.zeros(4), 0.002),
        (BSSFP(flips, 0.01), np.array([0, np.pi, 0, np.pi]), 0.005),
        (BSSFP(flips, 0.01, 0.002, phases=np.arange(4.0)), np.arange(4.0), 0.002),
    ):
        design = sequence.design()
        assert set(design) == by_pulse
        assert design["ti_s"] is None
        np.testing.assert_array_equal(design["flips_rad"], flips)
        np.testing.assert_allclose(design["phases_rad"], phases)
        np.testing.assert_allclose(design["tr_s"], np.full(4, 0.01))
        np.testing.assert_allclose(design["te_s"], np.full(4, te))
    varied = SSFPFID(flips, jnp.linspace(8e-3, 12e-3, 4), 0.002, inversion_time=0.02).design()
    np.testing.assert_allclose(varied["tr_s"], np.linspace(8e-3, 12e-3, 4))
    assert varied["ti_s"] == 0.02

    design = MPRAGE(flips, 0.008, inversion_time=0.5, tr=2.0, te=0.003).design()
    assert set(design) == by_pulse | {"esp_s"}
    assert (design["tr_s"].tolist(), design["esp_s"], design["ti_s"]) == ([2.0], 0.008, 0.5)
    np.testing.assert_allclose(design["te_s"], np.full(4, 0.003))


def test_only_spin_echoes_have_a_contrast_of_their_own():
    """`m0 exp(-te/T2)` at the echo nearest to the effective echo time; others leave it to the scene."""
    tissue = Tissue(jnp.array([1.0, 2.0]), jnp.array([0.1, 0.05]), m0=jnp.array([0.7, 0.8]))
    train = FSE(jnp.ones(16), 0.01, te=0.062)
    assert train.te_echo == 5
    np.testing.assert_allclose(train.contrast(tissue), [0.7 * np.exp(-0.6), 0.8 * np.exp(-1.2)])
    assert FSE(jnp.ones(16), 0.01).te_echo == 7
    assert FSE(jnp.ones(4), 0.01).te_echo == 3
    assert FSE(jnp.ones(10), 5e-3, te=0.05).te_echo == 9
    with pytest.raises(UsageError, match=r"te: got 300 ms, expected a time inside the train, 10 to 160 ms"):
        FSE(jnp.ones(16), 0.01, te=0.3).contrast(tissue)
    for name, make in BUILT_IN.items():
        assert name.startswith("fse") or make(jnp.ones(3)).contrast(tissue) is None


def test_trains_of_so_many_echoes_are_of_180_degrees():
    np.testing.assert_allclose(FSE(echoes=3).flips, np.pi)
    for given in ({}, {"flips": np.ones(3), "echoes": 3}):
        with pytest.raises(UsageError, match=r"flips: got .*one of the two"):
            FSE(**given)


class Apart(Sequence):
    """Two delays and a repetition time that holds both; the flips are no part of any wait."""

    flips: jax.Array
    delays: jax.Array
    tr: jax.Array

    def events(self):
        yield Pulse(self.flips[0])
        yield Wait(self.delays[0])
        yield Readout(te=2e-3)
        yield Wait(self.delays[1] - self.delays[0])
        yield Readout(te=2e-3)
        yield Wait(self.tr - self.delays[1])


def test_learned_times_of_ones_own_sequence_leave_no_wait_negative():
    """The nearest times that do, found by another program; times that are fine stay."""
    sequence = Apart(jnp.array([0.5]), jnp.array([0.1, 0.2]), jnp.asarray(0.5))
    (limit,) = sequence.limits()
    assert limit.where == ("delays", "tr")
    for kept, projected in zip(
        (sequence.delays, sequence.tr), limit.project(sequence.delays, sequence.tr), strict=True
    ):
        np.testing.assert_allclose(projected, kept, atol=1e-12)
    wrong = np.array([0.3, -0.1, 0.05])
    waits = np.array([[1, 0, 0], [-1, 1, 0], [0, -1, 1]])
    want = minimize(
        lambda x: ((x - wrong) ** 2).sum(), np.ones(3), constraints=LinearConstraint(waits, 1e-6), tol=1e-14
    )
    found = limit.project(jnp.asarray(wrong[:2]), jnp.asarray(wrong[2]))
    np.testing.assert_allclose(np.concatenate([np.ravel(x) for x in found]), want.x, atol=1e-6)
    problem = Problem(tissues("wm"), sequence=sequence, terms=bound("t1"))
    assert any(getattr(c, "where", ()) == ("sequence.delays", "sequence.tr") for c in problem.constraints)
