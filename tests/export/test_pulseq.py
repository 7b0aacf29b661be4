"""Pulseq files: pypulseq reads back what was designed, within the scanner's limits, and damaged files are refused."""

import dataclasses
import hashlib
import importlib
import re
import time
import tracemalloc

import numpy as np
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.base.units import GAMMA_HZ_PER_T
from acqdesign.export import Pulseq, PulseqOptions, pulseq, pulseq_text, read_design, shapes, with_samples, write_design
from acqdesign.export.plan import make_plan
from acqdesign.export.pns import passing_slew, predict_pns
from acqdesign.export.pulseq_play import play
from acqdesign.export.pulseq_text import read_tables
from acqdesign.export.sequence import build_sequence
from acqdesign.scene.scanner import EchoShape, min_echo_spacing, system_limits

pp = pytest.importorskip("pypulseq")

GENERIC = system_limits("generic")


def train_design(echoes, trains, *, esp=5e-3, samples=16, seed=0):
    rng = np.random.default_rng(seed)
    lines = echoes * trains
    return {
        "points": rng.uniform(-0.5, 0.5, (lines, 2)).astype(np.float32),
        "shape": np.array([16, 20, 15]),
        "fov_m": np.array([0.048, 0.055, 0.0451], np.float32),
        "samples_per_line": np.array(samples),
        "train": rng.permutation(np.repeat(np.arange(trains), echoes)),
        "echo": np.zeros(lines, int),
        "flips_rad": rng.uniform(0.0, np.pi, echoes).astype(np.float32),
        "phases_rad": rng.uniform(0.0, 2 * np.pi, echoes).astype(np.float32),
        "esp_s": np.float32(esp),
    } | {}


def with_echoes(design):
    """Echoes in order within each train."""
    echo = np.empty(len(design["train"]), int)
    for train in np.unique(design["train"]):
        mine = np.flatnonzero(design["train"] == train)
        echo[mine] = np.arange(len(mine))
    return design | {"echo": echo}


def single_design(lines=6):
    rng = np.random.default_rng(1)
    return {
        "points": rng.uniform(-0.5, 0.5, (lines, 2)),
        "shape": np.array([16, 20, 15]),
        "fov_m": np.array([0.048, 0.055, 0.045]),
        "samples_per_line": np.array(16),
    }


DESIGN = with_echoes(train_design(4, 3))


@pytest.mark.parametrize("design", [DESIGN, single_design()], ids=["trains", "single"])
def test_older_versions_play_the_same(tmp_path, design):
    """Versions 1.4 and 1.5 of one design: equal k-space to pypulseq, 1e-6 of a cell."""
    kspace = {}
    for version in ("1.4", "1.5"):
        path = tmp_path / f"{version}.seq"
        write_design(path, design, to=Pulseq(PulseqOptions(version=version)))
        major, minor = re.search(r"major (\d+)\nminor (\d+)", path.read_text()).groups()
        assert f"{major}.{minor}" == version
        sequence = pp.Sequence()
        sequence.read(str(path))
        assert sequence.check_timing()[0]
        uses = None if version == "1.5" else "e" + "r" * len(design.get("flips_rad", ()))
        kspace[version] = read_design(path, by=Pulseq(uses=uses))
    np.testing.assert_allclose(kspace["1.4"]["points"], kspace["1.5"]["points"], rtol=0, atol=1e-8)
    np.testing.assert_allclose(kspace["1.4"]["readout"], kspace["1.5"]["readout"], rtol=0, atol=1e-8)
    with pytest.raises(UsageError, match=r"version: got '1\.3', expected one of 1\.4, 1\.5"):
        PulseqOptions(version="1.3")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """One design in trains, written with a selective excitation; the file, the report, and pypulseq's own reading."""
    path = tmp_path_factory.mktemp("seq") / "design.seq"
    report = write_design(path, DESIGN, to=Pulseq(PulseqOptions(slab_m=0.04)))
    sequence = pp.Sequence(pp.Opts(gamma=GAMMA_HZ_PER_T))
    sequence.read(str(path))
    return path, report, sequence


def in_order(design):
    """Lines by train, then echo, which is the order of playing."""
    return np.lexsort((design["echo"], design["train"]))


def test_pypulseq_plays_the_intended_positions_over_a_long_train(tmp_path):
    """`calculate_kspace` of the file at its samples, to 1e-3 of a cell on every axis, over 64 echoes."""
    design = with_echoes(train_design(64, 2))
    write_design(tmp_path / "long.seq", design, to=Pulseq(PulseqOptions(dummies=0, noise_scan=False)))
    sequence = pp.Sequence(pp.Opts(gamma=GAMMA_HZ_PER_T))
    sequence.read(str(tmp_path / "long.seq"))
    k = sequence.calculate_kspace()[0].reshape(3, 128, 16)
    cells = k * np.array(design["fov_m"], float)[:, None, None]
    expected = design["points"][in_order(design)] * design["shape"][1:]
    assert np.abs(cells[1:] - expected.T[..., None]).max() < 1e-3
    assert np.abs(cells[0] - (np.arange(16) - 8)).max() < 1e-3


@pytest.mark.parametrize("samples", [252, 256, 280])
def test_six_digits_are_enough_for_large_matrices(tmp_path, samples):
    """The first lobe makes up for what the file's digits leave of the crushers: every sample to 1e-3 of a cell."""
    size = np.array([samples, 256, 200])
    design = with_echoes(train_design(2, 1, esp=8e-3, samples=samples)) | {"shape": size, "fov_m": size * 0.9e-3}
    write_design(tmp_path / "fine.seq", design, to=Pulseq(PulseqOptions(dummies=0, noise_scan=False)))
    sequence = pp.Sequence(pp.Opts(gamma=GAMMA_HZ_PER_T))
    sequence.read(str(tmp_path / "fine.seq"))
    cells = sequence.calculate_kspace()[0].reshape(3, 2, samples) * (size * 0.9e-3)[:, None, None]
    assert np.abs(cells[0] - (np.arange(samples) - samples // 2)).max() < 1e-3
    expected = design["points"][in_order(design)] * size[1:]
    assert np.abs(cells[1:] - expected.T[..., None]).max() < 1e-3


def test_pypulseq_finds_no_fault(written):
    _, _, sequence = written
    passed, errors = sequence.check_timing()
    assert passed, errors
    assert "Event timing check passed successfully" in sequence.test_report()


def test_a_design_comes_back(written):
    """Positions, flips, phases and times, to the file's six digits; the report holds the same."""
    path, report, _ = written
    found = read_design(path)
    order = in_order(DESIGN)
    for name in ("train", "echo"):
        np.testing.assert_array_equal(found[name], DESIGN[name][order])
    for name in ("shape", "samples_per_line"):
        np.testing.assert_array_equal(found[name], DESIGN[name])
    for name in ("fov_m", "flips_rad", "phases_rad", "esp_s"):
        np.testing.assert_allclose(found[name], DESIGN[name], rtol=0, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(found["points"], DESIGN["points"][order], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found["te_s"], 5e-3 * np.arange(1, 5), rtol=1e-5)
    np.testing.assert_allclose(found["excitation_rad"], np.pi / 2, rtol=1e-5)
    np.testing.assert_allclose(found["tr_s"], [3.0], rtol=1e-5)
    for name, value in report.played.items():
        np.testing.assert_array_equal(found[name], np.asarray(value).astype(found[name].dtype))


def test_the_order_of_pulses_is_cpmg(written):
    """Excitation about y and refocusing about x, half a spacing apart and then whole ones, in the file itself."""
    _, _, sequence = written
    excited, refocused = (sequence.rf_times()[n] for n in (0, 2))
    assert len(excited) == 4  # one dummy train
    assert len(refocused) == 16
    np.testing.assert_allclose(np.array(refocused[:4]) - excited[0], 5e-3 * (np.arange(4) + 0.5), rtol=1e-9)
    first = next(b for b in map(sequence.get_block, sequence.block_events) if b.rf is not None)
    assert first.rf.use == "excitation"
    assert first.rf.phase_offset == pytest.approx(np.pi / 2, abs=1e-5)
    assert first.gz is not None


@pytest.mark.parametrize("name", ["generic", "prisma", "mr750"])
@pytest.mark.parametrize("kind", ["train", "single", "slab"])
def test_gradients_keep_the_limits_on_every_axis_and_in_vector_sum(name, kind):
    """At the shortest echo spacing, where the limits bind: slopes and corners of all waveforms."""
    limits = system_limits(name)
    options = PulseqOptions(system=limits, dwell_s=16e-6, dummies=0)
    design = single_design()
    if kind == "slab":
        options = dataclasses.replace(options, slab_m=0.04)
    if kind == "train":
        voxel = tuple(float(f / n) for f, n in zip(design["fov_m"], design["shape"], strict=True))
        pulses = {"refocusing_s": 0.6e-3, "excitation_s": 0.3e-3}
        shape = EchoShape(16, 16e-6, voxel, **pulses)
        esp = min_echo_spacing(limits, shape)
        design = with_echoes(train_design(4, 2, esp=esp)) | {"fov_m": design["fov_m"]}
        design["points"][0] = 0.5
        options = dataclasses.replace(options, **pulses)
    sequence = build_sequence(make_plan(design, options))
    assert sequence.check_timing()[0]
    axes = sequence.waveforms()
    times = np.unique(np.round(np.concatenate([axis[0] for axis in axes]), 9))
    gradient = np.stack([np.interp(times, *axis, left=0, right=0) for axis in axes]) / GAMMA_HZ_PER_T
    slew = np.diff(gradient) / np.diff(times)
    assert np.linalg.norm(gradient, axis=0).max() <= limits.max_gradient_t_per_m
    assert np.linalg.norm(slew, axis=0).max() <= limits.max_slew_t_per_m_s
    assert np.abs(slew).max() > 0.2 * limits.max_slew_t_per_m_s


def test_labels_and_definitions_say_what_a_reconstruction_needs(written):
    """Noise first, then the nearest grid cell and echo of each line; matrix, field of view and signature."""
    path, _, sequence = written
    labels = sequence.evaluate_labels(evolution="adc")
    order = in_order(DESIGN)
    np.testing.assert_array_equal(labels["NOISE"], [1] + [0] * 12)
    np.testing.assert_array_equal(labels["SEG"][1:], DESIGN["echo"][order])
    cells = np.round(DESIGN["points"][order] * [20, 15]).astype(int) + np.array([10, 7])
    np.testing.assert_array_equal(labels["LIN"][1:], np.clip(cells[:, 0], 0, 19))
    np.testing.assert_array_equal(labels["PAR"][1:], np.clip(cells[:, 1], 0, 14))
    np.testing.assert_allclose(sequence.get_definition("FOV"), DESIGN["fov_m"], rtol=1e-6)
    np.testing.assert_array_equal(sequence.get_definition("ImgSize"), [16, 20, 15])
    assert sequence.get_definition("TurboFactor") == 4
    assert "[SIGNATURE]" in path.read_text()


def test_a_selective_excitation_is_rephased_and_of_its_thickness(written):
    """Bandwidth over gradient is the slab; z has no moment left at the first refocusing pulse."""
    _, _, sequence = written
    block = next(b for b in map(sequence.get_block, sequence.block_events) if b.rf is not None)
    assert 4.0 / block.rf.shape_dur / block.gz.amplitude == pytest.approx(0.04, rel=1e-5)
    times, gradient = sequence.waveforms()[2]
    excited, refocused = (sequence.rf_times()[n][0] for n in (0, 2))
    fine = np.linspace(excited, refocused, 20001)
    moment = np.trapezoid(np.interp(fine, times, gradient, left=0, right=0), fine)
    assert abs(moment) < 1e-4 * block.gz.amplitude * block.rf.shape_dur


@pytest.mark.parametrize("slab_m", [None, 0.03])
def test_single_echoes_are_spoiled_gradient_echoes(tmp_path, slab_m):
    """Positions to 1e-3 of a cell, flip, TE and TR; quadratic phases of 117° on pulse and receiver alike."""
    design = single_design()
    options = PulseqOptions(slab_m=slab_m, te_s=4e-3, tr_s=12e-3, dummies=3, noise_scan=False)
    report = write_design(tmp_path / "spgr.seq", design, to=Pulseq(options))
    found = read_design(tmp_path / "spgr.seq")
    cells = (found["points"] - design["points"]) * design["shape"][1:]
    assert np.abs(cells).max() < 1e-3
    assert "echo" not in found
    np.testing.assert_allclose(found["flips_rad"], np.deg2rad(15), rtol=1e-5)
    np.testing.assert_allclose(found["te_s"], 4e-3, atol=1e-5)
    np.testing.assert_allclose(found["tr_s"], 12e-3, rtol=1e-6)
    sequence = pp.Sequence()
    sequence.read(str(tmp_path / "spgr.seq"))
    assert sequence.check_timing()[0]
    blocks = [sequence.get_block(n) for n in sequence.block_events]
    pulses = np.array([b.rf.phase_offset for b in blocks if b.rf is not None])
    receiver = np.array([b.adc.phase_offset for b in blocks if b.adc is not None])
    n = np.arange(9)
    expected = np.deg2rad(117) * n * (n + 1) / 2
    np.testing.assert_allclose(np.exp(1j * pulses), np.exp(1j * expected), atol=1e-4)
    np.testing.assert_allclose(receiver, pulses[3:], atol=1e-6)
    assert report.power == pytest.approx((15 / 180) ** 2)


def test_an_echo_that_no_line_needs_is_played_without_a_readout(tmp_path):
    design = {name: DESIGN[name] for name in DESIGN}
    keep = np.arange(12) != 5
    for name in ("points", "train", "echo"):
        design[name] = DESIGN[name][keep]
    write_design(tmp_path / "gap.seq", design)
    found = read_design(tmp_path / "gap.seq")
    order = in_order(design)
    np.testing.assert_array_equal(found["echo"], design["echo"][order])
    np.testing.assert_array_equal(found["train"], design["train"][order])
    assert len(found["flips_rad"]) == 4


@pytest.mark.parametrize("samples", [12, 16])
def test_readouts_with_both_ends_are_played_as_they_are(tmp_path, samples):
    """Inclusive grids have their centre between samples, where the echo is."""
    readout = np.linspace(-0.5, 0.5, samples).astype(np.float32)
    design = DESIGN | {"readout": readout, "samples_per_line": samples}
    report = write_design(tmp_path / "ends.seq", design)
    np.testing.assert_allclose(report.played["readout"], readout, rtol=0, atol=1e-3 / 16)


def test_a_plane_is_given_a_readout(tmp_path):
    """One plane has no readout: it needs samples, which become voxels along x of the plane's thickness."""
    plane = DESIGN | {"shape": np.array([1, 20, 15]), "samples_per_line": 1, "readout": np.zeros(1)}
    plane["fov_m"] = np.array([0.003, 0.055, 0.0451])
    with pytest.raises(UsageError, match=r"one plane.*samples"):
        write_design(tmp_path / "plane.seq", plane)
    report = write_design(tmp_path / "plane.seq", with_samples(plane, 32))
    np.testing.assert_array_equal(report.played["shape"], [32, 20, 15])
    np.testing.assert_allclose(report.played["fov_m"], [0.096, 0.055, 0.0451])
    np.testing.assert_allclose(report.played["readout"], (np.arange(32) - 16) / 32, atol=1e-5)


def test_a_flip_of_zero_and_a_line_at_the_centre_play(tmp_path):
    design = DESIGN | {"flips_rad": np.array([0.0, 1.0, 2.0, -3.0]), "phases_rad": np.zeros(4)}
    design["points"] = np.zeros_like(DESIGN["points"])
    report = write_design(tmp_path / "zero.seq", design)
    np.testing.assert_allclose(report.played["flips_rad"], [0, 1, 2, 3], atol=1e-5)
    np.testing.assert_allclose(report.played["phases_rad"], [0, 0, 0, np.pi], atol=1e-5)
    np.testing.assert_allclose(report.played["points"], 0, atol=1e-6)


def test_predicted_stimulation_is_that_of_the_whole_sequence():
    """What the hardest stretches predict, against pypulseq's model over a whole train."""
    design = with_echoes(train_design(12, 2, esp=3.2e-3))
    settled = make_plan(design, PulseqOptions(dummies=0, noise_scan=False, tr_s=0.05))
    whole = build_sequence(settled)
    hardware = importlib.import_module("pypulseq.utils.safe_pns_prediction").safe_example_hw()
    _, norm, _, _ = whole.calculate_pns(hardware, time_range=[0.0, 0.09], do_plots=False)
    assert predict_pns(settled) == pytest.approx(norm.max(), rel=0.02)


def test_stimulation_over_the_limit_warns_with_the_slew_that_passes(tmp_path):
    """And at that slew, with the echo spacing it asks for, the prediction is under the limit."""
    design = with_echoes(train_design(8, 1, esp=3.4e-3)) | {"fov_m": np.array([0.016, 0.02, 0.015])}
    options = PulseqOptions(system=system_limits("prisma"), crusher=0.3)
    with pytest.warns(UserWarning, match=r"predicted at \d+ % of the limit; a slew rate of .* passes") as caught:
        report = write_design(tmp_path / "steep.seq", design, to=Pulseq(options))
    assert report.pns > 1
    assert report.advice == str(caught[0].message)
    slew, esp = passing_slew(design, options)
    system = dataclasses.replace(options.system, max_slew_t_per_m_s=slew)
    gentle = make_plan(design | {"esp_s": esp}, dataclasses.replace(options, system=system))
    assert predict_pns(gentle) < 1
    assert slew < 200


def test_a_scanner_s_own_file_gives_the_model_of_its_numbers(tmp_path):
    """With those of the published example, as the scanner writes them, the prediction is the example's."""
    example = importlib.import_module("pypulseq.utils.safe_pns_prediction").safe_example_hw()
    rows = ["### ASCCONV BEGIN ###", 'asCOMP[0].tName = "AS"']
    for axis in "xyz":
        held, name = getattr(example, axis), axis.upper()
        for n in range(3):
            rows += [f"flGSWDTau{name}[{n}] = {getattr(held, f'tau{n + 1}')}"]
            rows += [f"flGSWDA{name}[{n}] = {getattr(held, f'a{n + 1}')}"]
        rows += [f"flGSWDStimulationLimit{name} = {held.stim_limit}"]
        rows += [f"flGSWDStimulationThreshold{name} = {held.stim_thresh}"]
        rows += [f"asGPAParameters[0].sGCParameters.flGScaleFactor{name} = {held.g_scale}"]
    path = tmp_path / "scanner.asc"
    path.write_text("\n".join([*rows, "### ASCCONV END ###", ""]))
    reports = [
        write_design(tmp_path / "a.seq", DESIGN, to=Pulseq(pns_hardware=given)) for given in (None, path, str(path))
    ]
    assert reports[1].pns == reports[2].pns == pytest.approx(reports[0].pns, rel=1e-9)
    assert [report.lines()[-1].split(", by ")[1] for report in reports[:2]] == [
        "a published example of a scanner",
        "the scanner's model",
    ]


def test_a_scanner_file_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "scanner.asc").write_text("nothing of use")
    with pytest.raises(UsageError, match=r"asc: got .*scanner.asc"):
        write_design(tmp_path / "design.seq", DESIGN, to=Pulseq(pns_hardware=tmp_path / "scanner.asc"))
    assert not (tmp_path / "design.seq").exists()


def change(name, value):
    return DESIGN | {name: value}


@pytest.mark.parametrize(
    ("design", "options", "message"),
    [
        ({"flips_rad": np.ones(3)}, {}, "none of points.*learn_joint"),
        ({k: v for k, v in DESIGN.items() if k != "fov_m"}, {}, "none of fov_m.*--fov-mm"),
        ({k: v for k, v in DESIGN.items() if k != "esp_s"}, {}, "echoes without esp_s"),
        (change("echo", np.zeros(12, int)), {}, "line 0 at another's echo 0 of train"),
        (change("echo", DESIGN["echo"] + 1), {}, "echo: got 4 for line"),
        (change("phases_rad", np.zeros(3)), {}, "phases_rad: .*one entry for each of 4 pulses"),
        (change("esp_s", 5.003e-3), {}, "multiple of 1e-05 s. The nearest is 0.005 s"),
        (change("esp_s", 1e-3), {}, "esp_s: got 0.001, expected at least"),
        (change("esp_s", 2.2e-3), {"crusher": 0.1, "dwell_s": 60e-6},
         r"\d+ lines out of reach on generic, the worst line \d+ \(train \d, echo \d\).*echo spacing of 0.00"),
        (DESIGN, {"tr_s": 0.01}, "tr_s: got 0.01, expected at least"),
        (DESIGN, {"refocusing_s": 0.2e-3}, "takes a B1 of .* Make it 0.0"),
        (DESIGN, {"refocusing_s": 0.6001e-3}, "refocusing_s: .*multiple of 2e-06 s"),
        (DESIGN, {"dwell_s": 5e-6}, "dwell_s: got 5e-06.*Even µs always are"),
        (change("readout", np.linspace(-0.5, 0.5, 16) ** 3), {}, "not evenly spaced"),
        (change("readout", np.linspace(0.1, 0.5, 16)), {}, "both sides of the centre"),
        (change("readout", np.linspace(0.5, -0.5, 16)), {}, r"samples from \+ to -.*readout\[::-1\]"),
        (DESIGN, {"slab_m": 1e-3}, "slab_m: got 0.001 m, which takes a gradient .* expected at least 0.00"),
        (DESIGN | {"points": None, "coordinates": np.zeros((2, 16, 3))}, {}, "not straight lines.*bin and cfl"),
        (single_design(), {"te_s": 1e-3}, "te_s: got 0.001, expected at least"),
        (single_design(), {"tr_s": 1e-3}, "tr_s: got 0.001, expected at least"),
        (single_design() | {"flips_rad": np.array([0.1, 0.2])}, {}, "flips that vary"),
        (single_design() | {"fov_m": np.array([0.002, 0.05, 0.05])}, {"dwell_s": 2e-6}, "dwell_s: got 2e-06"),
    ],
)  # fmt: skip
def test_what_cannot_be_played_is_refused_with_a_remedy(tmp_path, design, options, message):
    """The worst of it by name, and nothing written over what was there."""
    path = tmp_path / "design.seq"
    path.write_text("good")
    with pytest.raises(UsageError, match=message):
        write_design(path, design, to=Pulseq(PulseqOptions(**options)))
    assert path.read_text() == "good"


def test_a_line_out_of_reach_is_played_at_the_echo_spacing_the_error_names():
    """The remedy works, and ten microseconds less does not."""
    design = change("esp_s", 2.2e-3)
    with pytest.raises(UsageError, match="out of reach") as caught:
        make_plan(design, PulseqOptions(crusher=0.1, dwell_s=60e-6, refocusing_s=0.6e-3, excitation_s=0.3e-3))
    options = PulseqOptions(crusher=0.1, dwell_s=60e-6, refocusing_s=0.6e-3, excitation_s=0.3e-3)
    esp = float(str(caught.value).split("spacing of ")[-1].split(" s")[0])
    make_plan(design | {"esp_s": esp}, options)
    with pytest.raises(UsageError, match=r"out of reach|at least"):
        make_plan(design | {"esp_s": esp - 1e-5}, options)


def resigned(text):
    body = text.rpartition("\n[SIGNATURE]")[0]
    return text.replace(text.split("Hash ")[1].strip(), hashlib.md5(body.encode()).hexdigest())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t[: len(t) // 2], "which does not unpack|which is not in it"),
        (lambda t: t[: t.index("[SHAPES]") + 60], "shape"),
        (lambda t: t.replace("minor 5", "minor 9").replace("[BLOCKS]", "[BLOCKS] x"),
         "version 1.9, expected version 1.2, 1.3, 1.4, 1.5. Convert it"),
        (lambda t: "hello", r"no section \[VERSION\]"),
        (lambda t: resigned(t.replace("ImgSize 16 20", "ImgSize 16 2.5")), r"definition ImgSize.*Pulseq\(shape="),
        (lambda t: resigned(t.replace("FOV ", "Fov ")), r"definition FOV.*Pulseq\(fov_m="),
        (lambda t: resigned(t.replace("num_samples 2", "num_samples 99999999", 1)), "a shape of 99999999 samples"),
        (lambda t: resigned(t.replace("[BLOCKS]", "[BLOCKS]\nnot numbers")), "requires 8 columns but 2 were found"),
        (lambda t: resigned(t.replace("[BLOCKS]", "[BLOCKS]\n9999 100 99 0 0 0 0 0")), "event 99, which is not in it"),
        (lambda t: resigned(t.replace("[TRAP]", "[TRAP]\n 9999 nan 10 10 10 0")), "not finite in .TRAP."),
        (lambda t: resigned(t.replace("[TRAP]", "[TRAP]\n 9999 1 10 -10 10 0")), "negative or long"),
        (lambda t: resigned(t.replace("extension LABELSET 1", "extension ROTATIONS 1")),
         "blocks with the extension ROTATIONS.*rotate"),
        (lambda t: resigned(t.replace("[EXTENSIONS]", "[EXTENSIONS]\n 9999 1 1 9999")), "perhaps in a circle"),
        (lambda t: resigned(t.replace("[SHAPES]", "[SHAPES]\n\nshape_id 99\nnum_samples 9\n0\n0\n99\n")), "shape 99"),
        (lambda t: resigned(t.replace("[ADC]\n1 16 ", "[ADC]\n1 9000000 ")), "a pulse within a readout"),
        (lambda t: resigned(t.replace("[SHAPES]", "[SHAPING]")), "shape 1, which is not in it"),
        (lambda t: resigned(t.replace("[SHAPES]", "[BLOCKS]")), r"two sections \[BLOCKS\]"),
    ],
    ids=["truncated", "cut in a shape", "version", "foreign", "matrix", "fov", "oversized shape", "garbled",
         "dangling", "nan", "negative", "rotation", "circle", "false shape", "long readout", "section", "twice"],
)  # fmt: skip
def test_damaged_files_are_refused_by_name_and_reason(written, tmp_path, damage, message):
    path = tmp_path / "damaged.seq"
    path.write_text(damage(written[0].read_text()), encoding="utf-8")
    with pytest.raises(UsageError, match=message) as caught:
        read_design(path)
    assert "damaged.seq" in str(caught.value)


LIMITS = pp.Opts(max_grad=32, grad_unit="mT/m", max_slew=130, slew_unit="T/m/s", gamma=GAMMA_HZ_PER_T)


def foreign(path, version_1_4=False):
    """What other programs put into files: shaped pulses and gradients, inversions, triggers, labels, odd delays."""
    seq, make = pp.Sequence(LIMITS), {"system": LIMITS}
    common = {"duration": 2e-3, "apodization": 0.5, "time_bw_product": 4, **make}
    excite, slab, back = pp.make_sinc_pulse(1.5, slice_thickness=3e-3, use="excitation", return_gz=True, **common)
    refocus = pp.make_sinc_pulse(2.5, use="refocusing", phase_offset=0.4, delay=1e-4, **common)
    invert = pp.make_block_pulse(np.pi, duration=1e-3, use="inversion", **make)
    read = pp.make_trapezoid("x", flat_area=64, flat_time=1.6e-3, **make)
    adc = pp.make_adc(16, duration=1.6e-3, delay=read.rise_time, **make)
    before = pp.make_trapezoid("x", area=0.5 * read.area + 2, duration=1e-3, **make)
    bump = 2e5 * np.sin((np.arange(60) + 0.5) / 60 * np.pi)
    spoil = pp.make_arbitrary_grad("y", waveform=bump, first=0, last=0, **make)
    for n in range(4):
        if not version_1_4:  # which cannot tell it from refocusing
            seq.add_block(invert)
        seq.add_block(pp.make_trigger("physio1", duration=1e-3))
        seq.add_block(excite, slab)
        seq.add_block(before, back, pp.make_label("LIN", "SET", n), pp.make_label("SLC", "INC", 1))
        for m in range(2):
            wind = pp.make_trapezoid("y", area=4.0 * (n - m), duration=1e-3, **make)
            seq.add_block(refocus, pp.make_delay(3e-3))
            seq.add_block(wind)
            noise = n == 3 and m == 1
            seq.add_block(read, adc, pp.make_label("NOISE", "SET", int(noise)))
            seq.add_block(pp.scale_grad(wind, -1))
        seq.add_block(spoil, pp.make_label("NOISE", "SET", 0))
    seq.set_definition("FOV", [0.25, 0.25, 0.02])
    seq.set_definition("ImgSize", [16, 16, 4])
    seq.write(str(path), create_signature=True, v141_compat=version_1_4)
    if not version_1_4:
        seq = pp.Sequence(LIMITS)
        seq.read(str(path))
    k, _, excited, refocused, times = seq.calculate_kspace()
    return k.reshape(3, 8, 16)[:, :7], np.sort(np.concatenate([excited, refocused])), times.reshape(8, 16)[:7]


@pytest.mark.parametrize("version_1_4", [False, True])
def test_k_space_and_pulses_of_other_programs_are_what_pypulseq_plays(tmp_path, version_1_4):
    """`calculate_kspace` without noise; cells are 4/m. Version 1.4 has no uses, and these trains no order to tell."""
    k, pulsed, times = foreign(tmp_path / "a.seq", version_1_4)
    pulses, found, said = play(read_tables(tmp_path / "a.seq"), "err" if version_1_4 else None)
    assert said == ([] if version_1_4 else ["4 x inversion"])
    lines = found.start[:, :, None] + found.kinds[found.kind]
    np.testing.assert_allclose(lines, k.transpose(1, 0, 2), atol=5e-3 if version_1_4 else 1e-9)
    np.testing.assert_allclose(found.time, times[:, 0], atol=1e-9)
    np.testing.assert_allclose(pulses.time, pulsed, atol=1e-9)
    assert "".join(pulses.use) == "err" * 4
    np.testing.assert_allclose(pulses.flip, np.tile([1.5, 2.5, 2.5], 4), rtol=1e-4)
    np.testing.assert_allclose(pulses.phase, np.tile([0.0, 0.4, 0.4], 4), atol=1e-5)


def test_a_scan_takes_no_more_memory_than_the_file_allows(tmp_path):
    """A file of 20,000 lines was once read in 200 times its size; now in less than four, the same line each time."""
    write_design(tmp_path / "a.seq", single_design(), to=Pulseq(PulseqOptions(dummies=0, noise_scan=False)))
    text = (tmp_path / "a.seq").read_text()
    blocks, lobes = (re.search(rf"\[{name}\]\n((?:[ \d].*\n)+)", text) for name in ("BLOCKS", "TRAP"))
    rows = [line.split() for line in blocks.group(1).splitlines()]
    traps = [line.split() for line in lobes.group(1).splitlines()]
    scans, most = 3400, 1 + max(int(row[0]) for row in traps)
    known = {row[0] for row in traps}
    many = "".join(
        f"{n * len(rows) + int(row[0]):6d} "
        + " ".join(
            str(n * most + int(word)) if 3 <= c <= 5 and word in known else word for c, word in enumerate(row[1:], 1)
        )
        + "\n"
        for n in range(scans)
        for row in rows
    )
    more = "".join(f"{n * most + int(row[0]):6d} {' '.join(row[1:])}\n" for n in range(scans) for row in traps)
    text = text.replace(blocks.group(1), many).replace(lobes.group(1), more)
    (tmp_path / "b.seq").write_text(resigned(text))
    tracemalloc.start()
    found = read_design(tmp_path / "b.seq")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found["points"]) == 6 * scans > 20_000
    wanted = read_design(tmp_path / "a.seq")["points"]
    np.testing.assert_allclose(found["points"].reshape(scans, 6, 2), np.broadcast_to(wanted, (scans, 6, 2)), atol=1e-9)
    assert peak < 4 * (tmp_path / "b.seq").stat().st_size


def test_oversized_files_are_refused_before_they_are_read(written, monkeypatch):
    monkeypatch.setattr(pulseq_text, "_MAX_BYTES", 100)
    with pytest.raises(UsageError, match="a file of at most 100"):
        read_design(written[0])


def test_positions_that_differ_from_the_plan_are_refused(monkeypatch, tmp_path):
    """What is written is read back before it takes its name."""
    read = pulseq.read_pulseq

    def off(path, **how):
        found = read(path, **how)
        return found | {"points": found["points"] + 1e-3}

    monkeypatch.setattr(pulseq, "read_pulseq", off)
    with pytest.raises(UsageError, match="of a k-space cell off the design's"):
        write_design(tmp_path / "design.seq", DESIGN)
    assert not list(tmp_path.iterdir())


def test_slab_pulses_keep_to_the_b1_that_was_planned(written):
    """The planned peak of a selective pulse against pypulseq's own shape."""
    _, report, sequence = written
    block = next(b for b in map(sequence.get_block, sequence.block_events) if b.rf is not None)
    planned = make_plan(DESIGN, PulseqOptions(slab_m=0.04))
    peak = np.pi / 2 * shapes.SLAB_PEAK / (2 * np.pi * planned.shape.excitation_s)
    assert np.abs(block.rf.signal).max() == pytest.approx(peak, rel=2e-3)
    assert report.peak_b1_t <= GENERIC.max_b1_t * 1.001


@pytest.mark.slow
def test_a_whole_scan_exports_in_a_minute(tmp_path):
    """4032 lines in trains of 64: under 60 s and under 20 MB."""
    design = with_echoes(train_design(64, 63, samples=256))
    begin = time.perf_counter()
    write_design(tmp_path / "large.seq", design)
    assert time.perf_counter() - begin < 60
    assert (tmp_path / "large.seq").stat().st_size < 20e6
