"""Lists of events against isochromats, against the sequences that have kernels of their own, and differences."""

import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.scene.tissue import Tissue
from acqdesign.signal import FSE, SSFPFID, Invert, Lock, Pulse, Readout, Sequence, Spoil, Wait, play, timing

from . import _bloch

TOLERANCE = {np.float64: 1e-12, np.float32: 1e-5}


def as_events(plain):
    """The package's events of the oracle's."""
    kinds = {"pulse": Pulse, "wait": Wait, "spoil": Spoil, "readout": Readout}
    return [kinds[name](*numbers) for name, *numbers in plain]


def anything(rng, repeats=9):
    """Every kind of event, phases and orders of both signs, before and within a repeated pattern and after it."""

    def angle():
        return rng.uniform(0.1, 3.0)

    def phase():
        return rng.uniform(-3.0, 3.0)

    def duration():
        return rng.uniform(1e-3, 9e-3)

    yield from [("pulse", angle(), phase()), ("spoil",), ("wait", duration(), 0), ("pulse", angle(), phase())]
    yield from [("wait", duration(), 2), ("readout", duration(), phase()), ("wait", duration(), -3)]
    for _ in range(repeats):
        yield from [("pulse", angle(), phase()), ("wait", duration(), 1), ("readout", 0.0, phase())]
        yield from [("wait", duration(), 1), ("pulse", angle(), phase()), ("wait", duration(), -1)]
        yield from [("readout", duration(), phase()), ("readout", duration(), phase())]
    yield from [("spoil",), ("pulse", angle(), phase()), ("wait", duration(), -2), ("pulse", angle(), phase())]
    yield from [("wait", duration(), 2), ("readout", 0.0, phase()), ("wait", duration(), 5)]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_any_events_equal_isochromats(dtype, rng):
    """Pulses, gradients, spoilers and readouts in any order, off resonance, with B1 and a complex M0."""
    plain = [(name, *(x if type(x) is int else dtype(x) for x in numbers)) for name, *numbers in anything(rng)]
    tissue = Tissue(*dtype([0.8, 0.09]), m0=np.result_type(dtype, 1j).type(2j), b1=dtype(0.9), b0=dtype(13.0))
    found = play(as_events(plain), tissue)
    wanted = 2j * _bloch.bloch_events(plain, 0.8, 0.09, b0=13.0, b1=0.9, dephasing=_bloch.turn_points(256))
    assert found.dtype == np.result_type(dtype, 1j)
    assert found.shape == wanted.shape == (1 + 3 * 9 + 1,)
    assert abs(found - wanted).max() <= 2 * TOLERANCE[dtype]


def test_trains_without_phases_are_real(rng):
    """And equal isochromats; a phase, an off-resonance or a complex M0 makes them complex, of one precision."""
    n, dtype = 40, np.float32
    flips = rng.uniform(0.1, 3.0, n).astype(dtype)
    plain = [
        event
        for flip in flips
        for event in (("pulse", flip, 0.0), ("wait", dtype(0.004), 1), ("readout", dtype(0.001), 0.0))
    ]
    unphased = [Pulse(e.angle) if isinstance(e, Pulse) else e for e in as_events(plain)]
    unphased = [Readout(e.te) if isinstance(e, Readout) else e for e in unphased]
    times = dtype([0.8, 0.09])
    found = play(unphased, Tissue(*times))
    wanted = _bloch.bloch_events(plain, 0.8, 0.09, dephasing=_bloch.turn_points(128))
    assert found.dtype == dtype
    assert abs(found - wanted).max() <= TOLERANCE[dtype]
    for events, more in ((as_events(plain), {}), (unphased, {"b0": dtype(0.0)}), (unphased, {"m0": 1 + 0j})):
        other = play(events, Tissue(*times, **more))
        assert other.dtype == np.result_type(dtype, np.complex64)
        assert abs(other - found).max() <= TOLERANCE[dtype]


def test_waits_and_readouts_take_their_time():
    """A first pulse gives its sine; then time passes to every readout, and off-resonance turns counterclockwise."""
    flip, t2, b0 = 1.1, 0.05, 7.0
    found = play(
        [Pulse(flip, 0.4), Readout(), Readout(te=2e-3), Wait(3e-3), Readout(te=1e-3, phase=0.4)],
        Tissue(1.0, t2, m0=3.0, b0=b0),
    )
    at, receiver = np.array([0.0, 2e-3, 6e-3]), np.array([0.0, 0.0, 0.4])
    wanted = 3 * math.sin(flip) * np.exp(-at / t2 + 1j * (0.4 + 2 * math.pi * b0 * at - receiver))
    assert abs(found - wanted).max() <= 1e-15


def inversion_train(flips, tr, te, inversion_time):
    """Gradient-spoiled pulses after an ideal inversion, as in `SSFPFID`."""
    events = [Pulse(math.pi), Spoil(), Wait(inversion_time)]
    for flip in flips:
        events += [Pulse(flip), Readout(te), Wait(tr - te, 1)]
    return events


def cpmg(flips, esp):
    """A spin-echo train: refocusing pulses about the axis along which a first pulse of phase 0 leaves the spins."""
    events = [Pulse(math.pi / 2, 0.0)]
    for flip in flips:
        events += [Wait(esp / 2, 1), Pulse(flip, -math.pi / 2), Wait(esp / 2, 1), Readout()]
    return events


def test_spoiled_pulses_after_an_inversion_are_ssfp_fid(rng):
    """To rounding."""
    flips, tissue = rng.uniform(0.1, 1.2, 8), Tissue(1.1, 0.08)
    found = play(inversion_train(flips, 0.012, 0.003, 0.02), tissue)
    np.testing.assert_allclose(found, SSFPFID(flips, 0.012, 0.003, inversion_time=0.02).signal(tissue), atol=1e-12)


def test_spin_echoes_are_fse(rng):
    """To rounding: its own parity kernel computes them otherwise."""
    flips, tissue = rng.uniform(0.1, 3.0, 8), Tissue(1.0, 0.1)
    np.testing.assert_allclose(play(cpmg(flips, 0.01), tissue), FSE(flips, 0.01).signal(tissue), atol=1e-12)


def test_derivatives_forward_and_reverse(rng):
    """By every number of events and every field of tissues, against differences; of bounds in `test_sequence`."""

    def signal(flips, phases, wait, te, receiver, t1, t2, m0, b1, b0):
        events = [Pulse(math.pi, 0.2), Spoil(), Wait(3 * wait)]
        for flip, phase in zip(flips, phases, strict=True):
            events += [Pulse(flip, phase), Wait(wait, 1), Readout(te, receiver), Wait(wait, -2)]
        return play(events, Tissue(t1, t2, m0=m0, b1=b1, b0=b0))

    arguments = {
        "flips": rng.uniform(0.2, 2.5, 4), "phases": rng.uniform(0, 6, 4), "wait": 0.004, "te": 0.002,
        "receiver": 0.3, "t1": np.array([0.8, 1.2]), "t2": np.array([0.09, 0.04]), "m0": 1.3, "b1": 0.9, "b0": 12.0,
    }  # fmt: skip
    _bloch.check_derivatives(signal, arguments, second=False)


def test_edges_have_finite_gradients():
    """Zero and 180° flips, no waits, infinite T1 and T2, T2 to zero."""
    dtype = np.float32
    t1 = np.array([np.inf, np.inf, 1.0, 1.0], dtype)
    t2 = np.array([np.inf, 0.1, np.finfo(dtype).tiny, 0.1], dtype)

    def loss(flips, wait, t1, t2):
        return (play(inversion_train(flips, 0.01, wait, wait), Tissue(t1, t2)) ** 2).sum()

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))
    for flips in (np.zeros(4), np.full(4, np.pi), np.array([np.pi / 2, 0.0, 1.0, 0.1])):
        given = (flips.astype(dtype), np.zeros((), dtype), t1, t2)
        assert all(np.isfinite(each).all() for each in gradient(*given))


class Fingerprint(Sequence):
    """Pulses of a fingerprinting train after an inversion."""

    flips: jax.Array
    ti: jax.Array

    def events(self):
        return inversion_train(self.flips, 0.01, 0.002, self.ti)


def test_repeats_are_scanned_and_compile_in_seconds():
    """400 pulses, signal and gradient: a few loops whose number does not grow with the pulses."""
    tissue = Tissue(1.0, jnp.array([0.1, 0.05]))

    def lowered(function, n):
        sequence = Fingerprint(jnp.full(n, 0.3), jnp.asarray(0.02))
        return jax.jit(function).lower(sequence, tissue)

    def signal(sequence, tissue):
        return sequence.signal(tissue)

    def gradient(sequence, tissue):
        return jax.grad(lambda s: (s.signal(tissue) ** 2).sum())(sequence)

    start = time.process_time()
    programs = {name: lowered(function, 400) for name, function in (("signal", signal), ("gradient", gradient))}
    for program in programs.values():
        program.compile()
    assert time.process_time() - start <= 15
    loops = {name: program.as_text().count("stablehlo.while") for name, program in programs.items()}
    assert 1 <= loops["signal"] <= 3
    assert loops["gradient"] <= 8
    assert lowered(signal, 36).as_text().count("stablehlo.while") == loops["signal"]


def test_patterns_within_trains_are_found(rng):
    """Two trains of different patterns and what is between them: as played one by one, in few loops."""
    first = [e for flip in rng.uniform(0.1, 1.0, 20) for e in (Pulse(flip), Readout(1e-3), Wait(5e-3, 1))]
    between = [Spoil(), Wait(0.1)]
    second = [e for flip in rng.uniform(0.1, 1.0, 7) for e in (Pulse(flip), Wait(2e-3), Readout(), Spoil(), Wait(3e-3))]
    run = jax.jit(lambda tissue: play([*first, *between, *second], tissue))
    tissue = Tissue(1.0, 0.1)
    assert run.lower(tissue).as_text().count("stablehlo.while") <= 6
    plain = [
        ("pulse", float(e.angle), 0.0) if isinstance(e, Pulse)
        else ("spoil",) if isinstance(e, Spoil)
        else ("readout", e.te, 0.0) if isinstance(e, Readout)
        else ("wait", e.duration, e.orders)
        for e in [*first, *between, *second]
    ]  # fmt: skip
    wanted = _bloch.bloch_events(plain, 1.0, 0.1, dephasing=_bloch.turn_points(64))
    assert abs(run(tissue) - wanted).max() <= 1e-12


def test_timing_says_when_everything_is_played():
    """In seconds from the start; readouts after their wait, locks and gradients from when to when."""
    events = [Invert(), Wait(0.5), Pulse(1.2), Wait(0.01, 2), Readout(0.004), Spoil(), Lock(0.03), Wait(0.0, -1)]
    found = timing(events)
    at = {"inversions": [0], "pulses": [0.5], "readouts": [0.514], "spoilers": [0.514], "flips": [1.2]}
    at |= {"orders": [2, -1], "locks": [[0.514, 0.544]], "gradients": [[0.5, 0.51], [0.544, 0.544]]}
    assert set(found) == set(at)
    for name, times in at.items():
        np.testing.assert_allclose(found[name], times, atol=1e-12)
    assert timing([])["gradients"].shape == (0, 2)


class Marked(Readout):
    """A user's own kind of readout."""


def test_kinds_of_events_can_be_subclassed():
    """They are played as what they are kinds of."""
    tissue = Tissue(1.0, 0.1)
    np.testing.assert_array_equal(play([Pulse(0.5), Marked(1e-3)], tissue), play([Pulse(0.5), Readout(1e-3)], tissue))


GOOD = (Pulse(0.5), Wait(0.01), Readout())


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([*GOOD, "spoil"], r"events: got 'spoil', expected Pulse, Wait, Spoil, Invert, Lock, Readout"),
        ([*GOOD, Spoil], r"events: got .*Spoil.*, expected Pulse, Wait, Spoil, Invert, Lock, Readout"),
        (GOOD[:2], r"events: got 2 events without a readout, expected at least one Readout"),
        ([], r"events: got 0 events without a readout"),
        ([Pulse(np.ones(2)), *GOOD], r"events: angle of event 0: got an array of shape \(2,\).*one number"),
        ([*GOOD, Readout(phase=1j)], r"events: phase of event 3: .*real"),
        ([*GOOD, Wait("10 ms")], r"events: duration of event 3: got '10 ms'"),
        ([*GOOD, Wait(-0.01)], r"events: duration of event 3: got -0.01, expected finite times >= 0"),
        ([*GOOD, Readout(te=np.nan)], r"events: te of event 3: got nan"),
    ],
)
def test_wrong_events_are_refused(events, words, unchecked_types):
    """By the event and what is wrong with it."""
    with pytest.raises(UsageError, match=words):
        play(list(events), Tissue(1.0, 0.1))


def test_parts_of_orders_are_refused(unchecked_types):
    """Gradients dephase by whole orders."""
    with pytest.raises(UsageError, match=r"events: orders of event 3: got 0.5, expected a whole number"):
        play([*GOOD, Wait(0.01, orders=0.5)], Tissue(1.0, 0.1))


@pytest.mark.parametrize(
    ("name", "message"),
    [("t2_prime", "tissue: t2_prime: .*where a readout does not say"), ("diffusivity", "order_moment")],
)
def test_effects_that_are_not_simulated_are_refused(name, message):
    """Rather than left out."""
    with pytest.raises(UsageError, match=message):
        play(list(GOOD), Tissue(1.0, 0.1, **{name: 1e-3}))


def test_diffusion_damps_every_pathway_as_in_the_textbook(rng):
    """Of unequal gradients, one of them backwards."""
    flips, steps = rng.uniform(0.2, 3.0, 12), [(4e-3, 2), (6e-3, -1)]
    events = []
    for flip in flips:
        events += [Pulse(flip), *(Wait(*step) for step in steps), Readout()]
    found = play(events, Tissue(0.8, 0.09, diffusivity=2e-9), order_moment=2e4)
    wanted = _bloch.epg(flips, 0 * flips, steps, 0.8, 0.09, read=2, diffusion=2e-9 * 2e4**2)
    assert abs(found - wanted).max() <= 1e-13
