"""Sequences by their events as Pulseq files: times, moments and phases are those of the signal model."""

import dataclasses

import numpy as np
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.base.units import GAMMA_HZ_PER_T
from acqdesign.export import Pulseq, PulseqOptions, read_design, with_lines, write_design
from acqdesign.export.npz import as_design
from acqdesign.export.plan import make_plan
from acqdesign.export.pns import predict_pns
from acqdesign.scene.scanner import system_limits
from acqdesign.signal import BSSFP, MPRAGE, SPGR, SSFPFID, InversionRecovery, MultiGradientEcho, SpinEcho, SpinLock

pp = pytest.importorskip("pypulseq")

FLIPS = np.deg2rad([10.0, 40.0, 25.0, 60.0, 30.0, 20.0])
LINES = {
    "points": np.random.default_rng(0).uniform(-0.5, 0.5, (6, 2)),
    "shape": np.array([16, 20, 15]),
    "fov_m": np.array([0.192, 0.2, 0.18]),
    "samples_per_line": 16,
}
SEQUENCES = {
    "mrf": SSFPFID(FLIPS, np.linspace(10e-3, 12e-3, 6), 4e-3, inversion_time=20e-3),
    "spgr": SPGR(FLIPS, 10e-3, 4e-3),
    "bssfp": BSSFP(FLIPS, 6e-3),
    "mprage": MPRAGE(FLIPS, 8e-3, inversion_time=0.5, tr=1.5, te=3e-3),
    "mgre": MultiGradientEcho(FLIPS[:2], np.array([3e-3, 5e-3, 5e-3]), tr=60e-3),
    "ideal": SPGR(FLIPS[:2], 10e-3, 4e-3, state="ideal"),
}


def design(name):
    return with_lines(as_design("design", SEQUENCES[name].design()), LINES)


@pytest.fixture(scope="module", params=list(SEQUENCES))
def written(request, tmp_path_factory):
    """A sequence with lines, the report of its file, and pypulseq's reading of that."""
    path = tmp_path_factory.mktemp("seq") / "design.seq"
    report = write_design(path, design(request.param), Pulseq(PulseqOptions(dummies=0, noise_scan=False)))
    sequence = pp.Sequence(pp.Opts(gamma=GAMMA_HZ_PER_T))
    sequence.read(str(path))
    assert sequence.check_timing()[0]
    return request.param, report, sequence


def played(sequence):
    """Times, flips, phases and uses of pulses, and times of the echoes, from the blocks."""
    now, pulses, echoes = 0.0, [], []
    for number in sequence.block_events:
        block = sequence.get_block(number)
        if block.rf is not None:
            flip = 2 * np.pi * np.abs(np.trapezoid(block.rf.signal, block.rf.t)) if len(block.rf.t) == 2 else np.nan
            pulses.append((now + block.rf.delay + block.rf.center, flip, block.rf.phase_offset, block.rf.use))
        if block.adc is not None:
            echoes.append((now + block.adc.delay + 8.5 * block.adc.dwell, block.adc.phase_offset))
        now += block.block_duration
    return pulses, np.array(echoes)


def test_lines_are_where_they_were_asked_for(written):
    """`calculate_kspace` within 1e-3 of a cell, every line at all readouts of a series, once in a train."""
    name, report, sequence = written
    k = sequence.calculate_kspace()[0].reshape(3, -1, 16) * LINES["fov_m"][:, None, None]
    count = len(SEQUENCES[name].design()["flips_rad"]) if name in ("mrf", "spgr", "bssfp") else None
    if name == "mprage":
        assert sorted(map(tuple, np.round(k[1:, :, 0].T, 2))) == sorted(
            map(tuple, np.round(LINES["points"] * [20, 15], 2))
        )
    else:
        each = count or (3 if name == "mgre" else 1)
        expected = np.tile(np.repeat(LINES["points"], each, 0), (2 if count is None else 1, 1)) * [20, 15]
        assert np.abs(k[1:] - expected.T[..., None]).max() < 1e-3
    assert np.abs(k[0] - (np.arange(16) - 8)).max() < 1e-3
    assert len(report.played["points"]) == k.shape[1]


def test_pulses_and_echoes_have_the_times_flips_and_phases_of_the_model(written):
    """TE, TR and TI to the raster's half; the receiver's phase is its pulse's, with that of the model in both."""
    name, _, sequence = written
    pulses, echoes = played(sequence)
    times, flips, phases, uses = (np.array(part) for part in zip(*pulses, strict=True))
    excited = uses == "excitation"
    before = np.searchsorted(times[excited], echoes[:, 0]) - 1
    te = echoes[:, 0] - times[excited][before]
    np.testing.assert_allclose(np.exp(1j * (echoes[:, 1] - phases[excited][before])), 1, atol=1e-5)
    made, tr = SEQUENCES[name], np.diff(times)
    if name in ("mrf", "spgr", "bssfp"):
        each = 6 + (name == "mrf")
        np.testing.assert_allclose(te, made.design()["te_s"][0], atol=1.1e-5)
        np.testing.assert_allclose(tr.reshape(-1)[: each - 1][-5:], made.design()["tr_s"][:5], atol=1.1e-5)
        np.testing.assert_allclose(flips[excited].reshape(6, 6), np.tile(FLIPS, (6, 1)), rtol=1e-4)
        turned = phases[excited].reshape(6, 6) - made.design()["phases_rad"]
        np.testing.assert_allclose(np.exp(1j * turned), 1, atol=1e-4)
    if name == "mrf":
        np.testing.assert_allclose(tr[0], 20e-3, atol=1.1e-5)
    if name == "mprage":
        np.testing.assert_allclose(tr[:6], [0.5, *[8e-3] * 5], atol=1.1e-5)
    if name == "mgre":
        np.testing.assert_allclose(te.reshape(-1, 3) - [3e-3, 8e-3, 13e-3], 0, atol=1.1e-5)
        np.testing.assert_allclose(tr[:6], 60e-3, atol=1.1e-5)
    if name in ("mprage", "ideal"):  # RF spoiling takes the place of ideal spoiling
        n = np.arange(excited.sum())
        expected = np.deg2rad(117 if name == "ideal" else 84) * n * (n + 1) / 2
        np.testing.assert_allclose(np.exp(1j * phases[excited]), np.exp(1j * expected), atol=1e-4)


def test_moments_between_pulses_are_those_of_the_orders(written):
    """From pulse to pulse: nothing on any axis for balanced SSFP; the same for all orders of one, along x alone."""
    name, report, sequence = written
    times, _, _, uses = zip(*played(sequence)[0], strict=True)
    moments = []
    for waveform in sequence.waveforms():
        t, g = waveform if np.size(waveform) else (np.array([0.0, 1.0]), np.zeros(2))
        whole = np.concatenate([[0.0], np.cumsum(0.5 * np.diff(t) * (g[1:] + g[:-1]))])
        n = np.clip(np.searchsorted(t, times), 1, len(t) - 1)
        at = np.clip(times, t[0], t[-1])
        moments.append(np.diff(whole[n - 1] + 0.5 * (at - t[n - 1]) * (g[n - 1] + np.interp(at, t, g))))
    moments = np.array(moments)[:, [n for n in range(len(times) - 1) if uses[n] == uses[n + 1] == "excitation"]]
    unit = report.plan.order_area * GAMMA_HZ_PER_T
    assert np.abs(moments[1:]).max() < 1e-4 * unit
    np.testing.assert_allclose(moments[0], 0 if name == "bssfp" else unit, atol=1e-4 * unit)


@pytest.mark.parametrize("name", ["mrf", "mprage"])
def test_both_versions_play_the_same(name, tmp_path):
    """1.4 and 1.5 of one design: k-space to 1e-6 of a cell."""
    found = {}
    for version in ("1.4", "1.5"):
        path = tmp_path / f"{version}.seq"
        report = write_design(path, design(name), Pulseq(PulseqOptions(version=version, dummies=0)))
        found[version] = read_design(path, Pulseq(uses=None if version == "1.5" else report.plan.uses()))
    np.testing.assert_allclose(found["1.4"]["points"], found["1.5"]["points"], rtol=0, atol=1e-7)


@pytest.mark.parametrize("system", ["prisma", "mr750"])
def test_selective_pulses_are_balanced_within_the_limits(system, tmp_path):
    """A slab: no moment along z from pulse to pulse, and the vector sum within gradient and slew."""
    limits = system_limits(system)
    report = write_design(
        tmp_path / "a.seq", design("bssfp"), Pulseq(PulseqOptions(system=limits, slab_m=0.15, dummies=0))
    )
    sequence = pp.Sequence(pp.Opts(gamma=GAMMA_HZ_PER_T, grad_raster_time=limits.gradient_raster_s))
    sequence.read(str(tmp_path / "a.seq"))
    axes = sequence.waveforms()
    times = np.unique(np.round(np.concatenate([axis[0] for axis in axes]), 9))
    gradient = np.stack([np.interp(times, *axis, left=0, right=0) for axis in axes]) / GAMMA_HZ_PER_T
    assert np.linalg.norm(gradient, axis=0).max() <= limits.max_gradient_t_per_m
    assert np.linalg.norm(np.diff(gradient) / np.diff(times), axis=0).max() <= limits.max_slew_t_per_m_s
    whole = np.concatenate([[0.0], np.cumsum(0.5 * np.diff(times) * (gradient[2, 1:] + gradient[2, :-1]))])
    pulses = [pulse[0] for pulse in played(sequence)[0]]
    moments = np.diff(np.interp(pulses, times, whole)).tolist()
    within = [moment for n, moment in enumerate(moments) if (n + 1) % 6]  # not before a repetition's first pulse
    assert np.abs(within).max() < 1e-3 * report.plan.rephasing_area


def test_stimulation_is_predicted_of_the_closest_readouts():
    """A long delay or rest is not what is looked at."""
    plan = make_plan(design("mprage"), PulseqOptions(dummies=0))
    assert 0.05 < predict_pns(plan) < 1
    assert len(plan.hardest()) > 1
    assert all(part.repetitions[0].items[0].kind == "pulse" for part in plan.hardest())


@pytest.mark.parametrize(
    ("sequence", "options", "message"),
    [
        (BSSFP(FLIPS, 1e-3), {}, r"te_s: got .* for gradients from pulse to readout, expected at least .* ms more"),
        (SSFPFID(FLIPS, 3e-3, 2.5e-3), {}, r"tr_s: got .* for gradients from readout to pulse"),
        (SSFPFID(FLIPS, 10e-3, 3e-3), {"tr_s": 0.03}, "tr_s: got 0.03, expected at least"),
        (SpinEcho(FLIPS[:2], np.full(2, 20e-3), tr=1.0), {}, "events: got refocusing pulses"),
        (SpinLock(FLIPS[:2], np.full(2, 20e-3), tr=1.0), {}, "events: got Lock"),
    ],
)  # fmt: skip
def test_what_cannot_be_played_is_refused_with_how_much_is_missing(sequence, options, message, tmp_path):
    made = with_lines(as_design("design", sequence.design()), LINES)
    with pytest.raises(UsageError, match=message):
        write_design(tmp_path / "a.seq", made, Pulseq(PulseqOptions(**options)))
    assert not list(tmp_path.iterdir())


def test_acquisitions_follow_each_other(tmp_path):
    """Inversions of several delays, each with every line; the labels say which."""
    made = InversionRecovery(np.full(3, 1.5), np.array([0.05, 0.3, 0.9]), tr=1.5)
    path = tmp_path / "a.seq"
    write_design(path, with_lines(as_design("design", made.design()), LINES), Pulseq(PulseqOptions(dummies=0)))
    sequence = pp.Sequence(pp.Opts(gamma=GAMMA_HZ_PER_T))
    sequence.read(str(path))
    labels = sequence.evaluate_labels(evolution="adc")
    np.testing.assert_array_equal(labels["SET"][1:], np.repeat(np.arange(3), 6))
    np.testing.assert_array_equal(labels["REP"][1:], np.tile(np.arange(6), 3))
    times = np.array([pulse[0] for pulse in played(sequence)[0]]).reshape(18, 2)
    np.testing.assert_allclose(np.diff(times)[:, 0], np.repeat([0.05, 0.3, 0.9], 6), atol=1.1e-5)


def test_series_and_trains_take_lines_in_their_own_ways():
    """Pulses of one echo spacing make one image; others take every line at each readout, as asked for."""
    train, series = (as_design("design", SEQUENCES[name].design()) for name in ("mprage", "mrf"))
    assert len(with_lines(train, LINES)["points"]) == 6
    assert len(with_lines(train, LINES, ordering="every")["points"]) == 36
    assert len(with_lines(series, LINES)["points"]) == 36
    assert len(with_lines(series, LINES, ordering="linear")["points"]) == 6
    assert dataclasses.is_dataclass(make_plan(with_lines(series, LINES), PulseqOptions(dummies=0)))


def test_the_diagram_is_of_the_first_repetition_with_readouts(written):
    """Pulses, readouts and gradients of the file from the repetition's start, dummies and all else left out."""
    name, report, sequence = written
    diagram = report.diagram
    count = {"mgre": 3, "ideal": 1}.get(name, 6)
    assert diagram["adc"].shape == (count, 2)
    np.testing.assert_allclose(np.diff(diagram["adc"]), 16 * report.plan.shape.dwell_s, rtol=1e-4)
    echoes = played(sequence)[1][:count, 0]
    np.testing.assert_allclose(diagram["adc"].mean(1) + 0.5 * report.plan.shape.dwell_s, echoes, atol=1e-6)
    assert diagram["rf"][1].max() == pytest.approx(report.peak_b1_t, rel=0.02) or name in ("mgre", "ideal")
    assert np.abs(diagram["x"][1]).max() <= report.max_gradient_t_per_m * (1 + 1e-5)
    for axis in "xyz":
        assert diagram[axis][1][-1] == pytest.approx(0, abs=1e-6)
