"""Readouts along any path as Pulseq: samples where they were designed, within the limits, read back by pypulseq."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.base.units import GAMMA_HZ_PER_T
from acqdesign.design import Design
from acqdesign.encoding import TRAJECTORIES, FreeForm, Hardware
from acqdesign.export import Pulseq, PulseqOptions, trajectory, write_design
from acqdesign.export.npz import as_design
from acqdesign.scene import brain, system_limits
from acqdesign.signal import SPGR

pp = pytest.importorskip("pypulseq")

PRISMA = system_limits("prisma")
FLAT, SOLID = (1, 16, 18), (12, 10, 14)
NAMES = {"radial": FLAT, "spiral": FLAT, "epi": FLAT, "kooshball": SOLID, "cones": SOLID, "free": FLAT}


def design(name, dwell=10e-6, slew=0.7, sequence=None):
    """The start of a trajectory as it is played within a share of the slew."""
    scene, key = brain(NAMES[name]), jax.random.key(0)
    limits = dataclasses.replace(PRISMA, max_slew_t_per_m_s=slew * PRISMA.max_slew_t_per_m_s)
    made, hardware = TRAJECTORIES[name].start(scene, key), Hardware.of(limits, scene, dwell)
    if name == "free":
        made = FreeForm(hardware.project(made.coordinates()))
    played = made.within(hardware)
    geometry = {"shape": scene.shape, "fov_m": scene.fov}
    return as_design("design", Design(played, sequence).entries() | geometry)


def export(path, given, **options):
    """The report of a file, and pypulseq's k-space of it in cells, (3, readouts, samples)."""
    options = {"system": PRISMA, "dummies": 1, "noise_scan": False} | options
    report = write_design(path, given, Pulseq(PulseqOptions(**options)))
    events = path.read_text().split("[SHAPES]")[0]
    assert not re.search(r"\s-0\s", events)  # a time that not every reader takes
    sequence = pp.Sequence(pp.Opts(gamma=GAMMA_HZ_PER_T))
    sequence.read(str(path))
    assert sequence.check_timing()[0]
    count = given["coordinates"].shape[1]
    k = sequence.calculate_kspace()[0].reshape(3, -1, count) * np.asarray(given["fov_m"], float)[:, None, None]
    return report, sequence, k


@pytest.mark.parametrize("name", list(NAMES))
def test_samples_lie_where_they_were_designed(name, tmp_path):
    """`calculate_kspace` within 1e-3 of a cell on every axis, gradient and slew within the limits in vector sum."""
    given = design(name, dwell=20e-6 if name == "cones" else 10e-6)
    report, sequence, k = export(tmp_path / "a.seq", given)
    expected = trajectory(given) * np.asarray(given["shape"])
    assert np.abs(np.moveaxis(k, 0, -1) - expected).max() < 1e-3
    axes = [axis for axis in sequence.waveforms() if np.size(axis)]
    times = np.unique(np.round(np.concatenate([axis[0] for axis in axes]), 9))
    gradient = np.stack([np.interp(times, *axis, left=0, right=0) for axis in axes]) / GAMMA_HZ_PER_T
    assert np.linalg.norm(gradient, axis=0).max() <= PRISMA.max_gradient_t_per_m
    assert np.linalg.norm(np.diff(gradient) / np.diff(times), axis=0).max() <= PRISMA.max_slew_t_per_m_s * (1 + 1e-5)
    assert report.max_slew_t_per_m_s <= PRISMA.max_slew_t_per_m_s
    long = given["coordinates"].shape[1] * float(given["dwell_s"]) > 5e-3
    assert any("off-resonance" in line for line in report.lines()) == long


def test_at_the_slew_limit_the_report_says_how_far_samples_are_off(tmp_path):
    """An eighth of the largest bend at most, to both sides; the limits are kept."""
    given = design("radial", slew=1.0)
    report, _, k = export(tmp_path / "a.seq", given)
    off = np.abs(np.moveaxis(k, 0, -1) - trajectory(given) * np.asarray(given["shape"])).max()
    bend = GAMMA_HZ_PER_T * PRISMA.max_slew_t_per_m_s * 10e-6**2 * float(max(given["fov_m"]))
    assert 1e-3 < off <= bend / 8 * (1 + 1e-3)
    assert any(f"up to {off:.2g} of a cell off" in line for line in report.lines())
    assert report.max_slew_t_per_m_s <= PRISMA.max_slew_t_per_m_s


def test_both_versions_play_the_same(tmp_path):
    """Version 1.4 says no edges of waveforms: these begin and end at rest."""
    given = design("spiral")
    _, _, new = export(tmp_path / "new.seq", given)
    report = write_design(tmp_path / "old.seq", given, Pulseq(PulseqOptions(system=PRISMA, version="1.4", dummies=0)))
    old = report.played["coordinates"] * np.asarray(given["shape"])
    np.testing.assert_allclose(old, np.moveaxis(new, 0, -1), rtol=0, atol=1e-5)


def test_one_plane_is_a_slice_of_its_thickness_spoiled_across(tmp_path):
    """Bandwidth over gradient is the field of view across, along x; what is left in plane is taken back."""
    given = design("radial")
    report, sequence, _ = export(tmp_path / "a.seq", given)
    blocks = [sequence.get_block(n) for n in sequence.block_events]
    block = next(b for b in blocks if b.rf is not None)
    assert 4.0 / block.rf.shape_dur / block.gx.amplitude == pytest.approx(float(given["fov_m"][0]), rel=1e-5)
    assert report.lines()[0].startswith("2D slice of gradient waveforms: ")
    times = np.cumsum([0.0, *(b.block_duration for b in blocks)])
    pulses = [times[n] + b.rf.delay + b.rf.center for n, b in enumerate(blocks) if b.rf is not None]
    ends = []
    for t, g in sequence.waveforms():
        whole = np.concatenate([[0.0], np.cumsum(0.5 * np.diff(t) * (g[1:] + g[:-1]))])
        ends.append(np.interp(pulses, t, whole))
    moments = np.diff(ends)
    assert np.abs(moments[1:]).max() < 1e-3 / float(max(given["fov_m"]))
    assert np.abs(moments[0]).min() > 1 / float(given["fov_m"][0])


def test_a_sequence_plays_them_too(tmp_path):
    """Flips of a train along spokes: an event table with waveforms."""
    flips = np.deg2rad([10.0, 20.0, 15.0, 5.0])
    given = design("radial", sequence=SPGR(flips, 10e-3, 4e-3))
    place = np.arange(len(given["coordinates"]))
    report, sequence, k = export(tmp_path / "a.seq", given | {"train": place // 4, "echo": place % 4}, dummies=0)
    assert len(report.plan.lines) == len(place) // 4
    assert np.abs(np.moveaxis(k, 0, -1) - trajectory(given) * np.asarray(given["shape"])).max() < 1e-3
    excited = sequence.rf_times()[0]
    np.testing.assert_allclose(np.diff(excited)[:3], 10e-3, atol=1.1e-5)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"dwell_s": np.float32(4e-6)}, {}, "dwell_s: got 4e-06, expected a multiple of 10 us"),
        ({"coordinates": 0}, {}, "coordinates: got 126 samples, expected a multiple of 4.*124 or 128"),
        ({"fov_m": np.array([0.005, 0.02, 0.02])}, {}, r"coordinates: got readouts of .* Learn with --system prisma"),
        ({"train": np.zeros(32, int), "echo": np.arange(32)}, {}, "not straight lines.*bin and cfl"),
        ({"fov_m": np.array([0.0001, 0.22, 0.22])}, {}, "slab_m: got 0.0001 m, which takes a gradient"),
    ],
)  # fmt: skip
def test_what_cannot_be_played_is_refused(change, options, message, tmp_path):
    given = design("radial")
    if "coordinates" in change:
        change = {"coordinates": given["coordinates"][:, :126]}
    with pytest.raises(UsageError, match=message):
        write_design(tmp_path / "a.seq", given | change, Pulseq(PulseqOptions(system=PRISMA, **options)))
