"""Selective pulses against Bloch's equation integrated sample by sample, position by position."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import least_squares

from acqdesign.scene.tissue import Tissue
from acqdesign.signal import (
    BSSFP,
    FSE,
    MPRAGE,
    SPGR,
    SSFPFID,
    Pulse,
    Readout,
    SelectivePulse,
    Spoil,
    Wait,
    play,
    sinc_pulse,
)
from acqdesign.signal.spgr import quadratic_phases

from . import _bloch

EXTENT, POSITIONS = 3.0, 6
PLACES = EXTENT * ((np.arange(POSITIONS) + 0.5) / POSITIONS - 0.5)
ENVELOPES = {"excitation": (sinc_pulse(40, 4.0), 4.0), "refocusing": (sinc_pulse(32, 2.0), 2.0)}
THICKNESS = {"excitation": 1.0, "refocusing": 1.25}
make = functools.partial(SelectivePulse, extent=EXTENT, positions=POSITIONS)


def pulse(kind="excitation"):
    return make(*ENVELOPES[kind], thickness=THICKNESS[kind])


def by_bloch(events, t1=0.3, t2=0.08, *, b1=1.0, b0=0.0, points=64):
    """Signals summed across the slice, of events as of `_bloch.bloch_events` whose pulses name their kind."""
    found = []
    for place in PLACES:

        @functools.lru_cache
        def turn(angle, kind, place=place):
            return _bloch.selective_rotation(*ENVELOPES[kind], angle, place, THICKNESS[kind])

        dephasing = _bloch.turn_points(points)
        found.append(_bloch.bloch_events(events, t1, t2, dephasing=dephasing, b0=b0, b1=b1, turn=turn))
    return EXTENT * np.mean(found, axis=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-11), (np.float32, 1e-5)])
@pytest.mark.parametrize("shape", ["symmetric", "late", "complex"])
def test_the_rotation_is_that_of_the_samples_played_one_after_another(shape, dtype, tolerance, rng):
    """For any flip up to 360° and position; `a` and `b` give the matrix on `Mx + i My` and `Mz`."""
    envelope = np.asarray(sinc_pulse(40, 3.0))
    if shape == "late":
        envelope = envelope * np.linspace(0.2, 1.0, 40)
    if shape == "complex":
        envelope = envelope * np.exp(0.5j * np.linspace(-1, 1, 40) ** 2)
    made = make(envelope.astype(np.result_type(dtype, envelope.dtype) if shape != "complex" else
                                np.complex64 if dtype == np.float32 else complex), 3.0)  # fmt: skip
    for flip in (0.0, 1e-3, 0.5 * np.pi, np.pi, 2.2 * np.pi / 1.2, -1.0):
        found = made.rotation(jnp.asarray(flip, dtype), jnp.arange(POSITIONS))
        assert found[0].dtype == np.result_type(dtype, 1j)
        for place, a, about_y in zip(PLACES, *np.asarray(found, complex), strict=True):
            wanted, b = _bloch.selective_rotation(envelope, 3.0, flip or 1e-30, place), -1j * about_y
            for m in np.eye(3):
                across = m[0] + 1j * m[1]
                across, z = (
                    a**2 * across - b**2 * np.conj(across) + 2 * a * b * m[2],
                    (abs(a) ** 2 - abs(b) ** 2) * m[2] - 2 * np.real(a * np.conj(b) * across),
                )
                assert abs(wanted @ m - [across.real, across.imag, z]).max() <= tolerance


def test_small_flips_have_the_fourier_transform_of_the_envelope():
    """A rectangular pulse excites a sinc profile."""
    a, b = make(np.ones(400), 1.0).rotation(jnp.asarray(1e-4), jnp.arange(POSITIONS))
    assert abs(2 * a * b / 1e-4 - np.sinc(PLACES)).max() <= 1e-5


def spin_echoes(flips, esp, phases, excitation=0.5 * np.pi):
    events = [("pulse", excitation, 0.0, "excitation")]
    for flip, phase in zip(flips, phases, strict=True):
        # A pulse of phase 0 is about x: it takes +z towards -y.
        refocusing = ("pulse", flip, phase - np.pi / 2, "refocusing")
        events += [("wait", esp / 2, 1), refocusing, ("wait", esp / 2, 1), ("readout", 0.0, 0.0)]
    return events


def gradient_echoes(flips, phases, te, tr, orders):
    events = []
    for flip, phase in zip(flips, phases, strict=True):
        events += [("pulse", flip, phase, "excitation"), ("readout", te, phase), ("wait", tr - te, orders)]
    return events


@pytest.mark.parametrize("b1", [0.8, 1.0, 1.2])
def test_echo_trains_are_those_of_bloch(b1, rng):
    """Excitation and refocusing slices of their own, at B1 times the flips played, with phases and without."""
    flips = rng.uniform(0.5, np.pi, 6)
    for phases in (np.zeros(6), rng.uniform(0, 6, 6)):
        train = FSE(flips, 0.01, excitation_pulse=pulse(), pulse=pulse("refocusing"), phases=phases)
        found = train.signal(Tissue(0.3, 0.08, b1=b1))
        assert abs(found - by_bloch(spin_echoes(flips, 0.01, phases), b1=b1)).max() <= 1e-13


@pytest.mark.parametrize("only", ["pulse", "excitation_pulse"])
def test_one_pulse_alone_may_be_selective(only):
    """The other one turns all spins alike."""
    train = FSE([2.0, 1.0, 1.5], 0.01, **{only: pulse()})
    alike = {"pulse": "excitation", "excitation_pulse": "refocusing"}[only]
    found, events = train.signal(Tissue(0.3, 0.08)), spin_echoes([2.0, 1.0, 1.5], 0.01, [0, 0, 0])
    wanted = []
    for place in PLACES:

        def turn(angle, kind, place=place):
            if kind == alike:
                return _bloch.rotation(angle, 0.0)
            return _bloch.selective_rotation(*ENVELOPES["excitation"], angle, place)

        wanted.append(_bloch.bloch_events(events, 0.3, 0.08, dephasing=_bloch.turn_points(16), turn=turn))
    assert abs(found - EXTENT * np.mean(wanted, axis=0)).max() <= 1e-13


@pytest.mark.parametrize("spoiling", ["transverse", "complete", "diffusion"])
def test_repeated_echo_trains_are_those_of_bloch(spoiling):
    """The steady state, of what isochromats store along z, of their mean alone, and as diffusion vanishes."""
    flips, tr, esp, trains = np.array([2.0, 1.2, 2.6]), 0.2, 0.01, 14
    pulses = {"excitation_pulse": pulse(), "pulse": pulse("refocusing")}
    if spoiling == "diffusion":
        train = FSE(flips, esp, tr=tr, order_moment=1e-3, n_states=60, **pulses)
        found = train.signal(Tissue(0.1, 0.05, diffusivity=1e-15))
    else:
        found = FSE(flips, esp, tr=tr, spoiling=spoiling, **pulses).signal(Tissue(0.1, 0.05))
    one = [*spin_echoes(flips, esp, np.zeros(3)), ("spoil",), ("wait", tr - 3 * esp, 0)]
    if spoiling == "complete":
        one.insert(-1, ("average",))
    wanted = by_bloch(one * trains, 0.1, 0.05)[-3:]
    assert abs(found - wanted).max() <= (1e-11 if spoiling == "complete" else 1e-6)


GRE = {"flips": np.array([0.4, 1.2, 0.9, 1.5, 0.3, 0.7]), "te": 0.002, "tr": 0.008}


@pytest.mark.parametrize("b0", [None, 15.0])
@pytest.mark.parametrize("kind", ["fisp", "fisp with phases", "spgr", "bssfp", "mprage", "events"])
def test_gradient_echoes_are_those_of_bloch(kind, b0):
    """Trains from equilibrium or an inversion, at B1 times every flip."""
    flips, te, tr = GRE.values()
    zero, n = np.zeros(6), 6
    if kind.startswith("fisp"):
        phases = np.array([0, 1.0, 4.0, 2.0, 5.0, 3.0]) if "phases" in kind else zero
        sequence = SSFPFID(flips, tr, te, pulse=pulse(), phases=phases if "phases" in kind else None)
        events = gradient_echoes(flips, phases, te, tr, 1)
    elif kind == "spgr":
        sequence = SPGR(flips, tr, te, pulse=pulse(), inversion_time=0.02)
        events = [("invert", 1.0), ("wait", 0.02, 0)]
        events += gradient_echoes(flips, quadratic_phases(n, math.radians(117)), te, tr, 1)
    elif kind == "bssfp":
        sequence, events = BSSFP(flips, tr, te, pulse=pulse()), gradient_echoes(flips, np.pi * np.arange(n), te, tr, 0)
    elif kind == "mprage":
        sequence = MPRAGE(flips, tr, te=te, inversion_time=0.05, tr=0.5, pulse=pulse(), steady=False)
        events = [("invert", 1.0), ("wait", 0.05, 0)]
        for flip in flips:
            events += [("pulse", flip, 0.0, "excitation"), ("readout", te, 0.0), ("spoil",), ("wait", tr - te, 0)]
    else:
        events = [*gradient_echoes(flips, zero, te, tr, 1), ("spoil",), ("pulse", 1.0, 0.3, "refocusing")]
        events += [("readout", te, 0.2)]
        selective = {name: pulse(name) for name in ENVELOPES}
        kit = {"pulse": lambda angle, phase, name: Pulse(angle, phase, selective[name]), "readout": Readout}
        kit |= {"wait": Wait, "spoil": Spoil}
        played = [kit[name](*numbers) for name, *numbers in events]
    tissue = Tissue(0.3, 0.08, b1=0.9, b0=b0)
    found = play(played, tissue) if kind == "events" else sequence.signal(tissue)
    assert abs(found - by_bloch(events, b1=0.9, b0=b0 or 0.0)).max() <= 1e-13


@pytest.mark.parametrize("kind", ["spgr", "spgr ideal", "bssfp", "mprage"])
def test_steady_states_are_those_of_bloch(kind):
    """After as many pulses as T1 needs."""
    flip, te, tr, many, t1, t2 = 1.1, 0.002, 0.008, 160, 0.06, 0.04
    phases = {"spgr": quadratic_phases(many, math.radians(117)), "bssfp": np.pi * np.arange(many)}
    if kind == "bssfp":
        sequence, b0 = BSSFP([flip], tr, te, steady=True, pulse=pulse()), 20.0
        events = gradient_echoes([flip] * many, phases[kind], te, tr, 0)
    elif kind == "mprage":
        sequence, b0 = MPRAGE([flip, 0.5], tr, te=te, inversion_time=0.02, tr=0.1, pulse=pulse()), 0.0
        events = [("invert", 1.0), ("wait", 0.02, 0)]
        for each in (flip, 0.5):
            events += [("pulse", each, 0.0, "excitation"), ("readout", te, 0.0), ("spoil",), ("wait", tr - te, 0)]
        events = [*events, ("wait", 0.1 - 0.02 - 2 * tr, 0)] * 20
    else:
        state = "ideal" if kind == "spgr ideal" else "steady"
        sequence, b0 = SPGR([flip], tr, te, state=state, pulse=pulse()), 0.0
        events = gradient_echoes([flip] * many, phases.get(kind, np.zeros(many)), te, tr, 1)
        if state == "ideal":
            events = [
                event for each in zip(*[iter(events)] * 3, strict=True) for event in (*each[:2], ("spoil",), each[2])
            ]
    found = sequence.signal(Tissue(t1, t2, b1=1.1, b0=b0 or None))
    wanted = by_bloch(events, t1, t2, b1=1.1, b0=b0, points=256)[-len(found) :]
    assert abs(found - wanted).max() <= 1e-9


@pytest.mark.parametrize("ratio", [1.0, 1.25, 1.5])
def test_t2_is_fitted_from_signals_of_a_full_bloch_simulation(ratio):
    """T2 of 80 ms, 16 echoes of 10 ms, B1 known: a fine simulation of both pulses is fitted within 1 %."""
    places, echoes = np.linspace(-2, 2, 161), 16
    series = {"excitation": (sinc_pulse(64, 4.0), 4.0), "refocusing": (sinc_pulse(64, 2.0), 2.0)}
    train = FSE(
        echoes=echoes, esp=0.01, excitation_pulse=SelectivePulse(*series["excitation"]),
        pulse=SelectivePulse(*series["refocusing"], thickness=ratio),
    )  # fmt: skip
    model = jax.jit(lambda t2, b1: jnp.real(train.signal(Tissue(1.0, t2, b1=b1))))
    for b1 in (0.8, 1.0, 1.2):
        samples = 0.0
        for place in places:
            turns = {
                kind: _bloch.selective_rotation(*series[kind], b1 * flip, place, thickness)
                for kind, flip, thickness in (("excitation", np.pi / 2, 1.0), ("refocusing", np.pi, ratio))
            }
            events = spin_echoes(np.full(echoes, np.pi), 0.01, np.zeros(echoes))
            dephasing, turn = _bloch.turn_points(2 * echoes + 2), lambda angle, kind, turns=turns: turns[kind]
            samples = samples + _bloch.bloch_events(events, 1.0, 0.08, dephasing=dephasing, turn=turn).real
        samples = samples * (places[1] - places[0])
        fit = least_squares(lambda x, b1=b1, s=samples: x[0] * model(x[1] / 10, b1) - s, [0.9, 0.6])
        assert abs(fit.x[1] / 0.8 - 1) <= 1e-4
        assert abs(fit.x[0] - 1) <= 1e-4


@pytest.mark.parametrize("kind", ["fse", "mrf"])
def test_derivatives_by_flips_and_tissue(kind, rng):
    """Where flips are 0 and where the slice's middle sees 180° too, in forward and reverse mode."""
    selective = pulse()
    flips = np.array([0.0, np.pi / 0.9, 1.0, 2.0])

    def signal(flips, t1, t2, b1):
        tissue = Tissue(t1, t2, b1=b1)
        if kind == "fse":
            return FSE(flips, 0.01, excitation_pulse=selective, pulse=pulse("refocusing")).signal(tissue)
        return SSFPFID(flips, 0.01, 0.002, pulse=selective).signal(tissue)

    _bloch.check_derivatives(signal, {"flips": flips, "t1": 0.8, "t2": 0.08, "b1": 0.9})


def test_the_samples_of_a_pulse_can_be_learned():
    """Gradients by the envelope equal central differences, silent samples too."""
    envelope = np.array(sinc_pulse(24, 3.0))
    envelope[5] = 0.0

    @jax.jit
    def loss(envelope):
        a, b = make(envelope, 3.0).rotation(jnp.asarray(1.3), jnp.arange(POSITIONS))
        return ((2 * a * b).real * jnp.arange(1.0, 1 + POSITIONS)).sum()

    gradient = jax.jit(jax.grad(loss))(envelope)
    for one in np.eye(24)[[0, 5, 11]]:
        slope = _bloch.central_difference(lambda x: float(loss(x)), envelope, one, 1e-3)
        np.testing.assert_allclose(gradient @ one, slope, rtol=1e-7)


def test_flips_beyond_the_table_are_nan():
    """More than 360° in the middle of the slice."""
    found = SSFPFID([1.0, 4.0], 0.01, pulse=pulse()).signal(Tissue(1.0, 0.1, b1=np.array([1.0, 2.0])))
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"envelope": [1.0, -1.0]}, "envelope.*sum to zero"),
        ({"envelope": [1.0, np.nan]}, "envelope.*finite"),
        ({"envelope": np.ones((2, 2))}, "envelope.*vector"),
        ({"envelope": np.repeat([1.0, -1.0], [30, 28])}, "envelope.*known to"),
        ({"time_bandwidth": 0.0}, "time_bandwidth.*> 0"),
        ({"thickness": -1.0}, "thickness.*> 0"),
        ({"positions": 0}, "positions.*>= 1"),
    ],
)
def test_bad_pulses_are_refused(change, message):
    """One line that names the argument."""
    with pytest.raises(ValueError, match=message):
        SelectivePulse(**{"envelope": np.ones(8), "time_bandwidth": 4.0} | change)


def test_pulses_of_one_sequence_share_their_positions():
    """Else the sum across the slice has no meaning."""
    with pytest.raises(ValueError, match=r"positions, extent.*the same"):
        FSE([1.0], 0.01, excitation_pulse=pulse(), pulse=SelectivePulse(np.ones(8), 2.0)).signal(Tissue(1.0, 0.1))
    with pytest.raises(ValueError, match=r"samples.*>= 2"):
        sinc_pulse(1, 4.0)
