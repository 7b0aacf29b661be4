"""Pulseq files of others: what pypulseq writes is read where pypulseq plays it, or refused by name."""

import re
import time

import numpy as np
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.export import Pulseq, read_design

pp = pytest.importorskip("pypulseq")

from . import _sequences as made  # noqa: E402


def written(sequence, path, **how):
    sequence.write(str(path), check_timing=False, **how)
    return path


def understood(path, **how):
    said = []
    return read_design(path, tell=said.append, **how), said[0]


def assert_as_pypulseq_plays(found, sequence, axes):
    """Every sample of every line, to 1e-6 cycles/voxel, in the axes of the design."""
    count = int(found["samples_per_line"])
    k = sequence.calculate_kspace()[0].reshape(3, -1, count)[["xyz".index(axis) for axis in axes]]
    k = k * (found["fov_m"].astype(float) / found["shape"])[:, None, None]
    np.testing.assert_allclose(np.broadcast_to(found["readout"], k[0].shape), k[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.broadcast_to(found["points"].T[..., None], k[1:].shape), k[1:], rtol=0, atol=1e-6)


AXES = [("xyz", 1), ("xyz", -1), ("yxz", 1), ("yxz", -1), ("zxy", 1), ("zxy", -1)]


@pytest.mark.parametrize(("axes", "sign"), AXES, ids=[f"{a[0]}{'+' if s > 0 else '-'}" for a, s in AXES])
@pytest.mark.parametrize("kind", made.KINDS)
def test_positions_are_those_that_pypulseq_plays(tmp_path, kind, axes, sign):
    """Along x, y and z, rising and falling, of 1.5 and of 1.4; without uses the same lines and trains as with them."""
    sequence = made.KINDS[kind](axes=axes, sign=sign)
    path = written(sequence, tmp_path / "a.seq")
    played = pp.Sequence(made.SYSTEM)
    played.read(str(path))
    found, said = understood(path)
    assert_as_pypulseq_plays(found, played, axes)
    assert ("train" in found) == (kind in ("tse", "haste"))
    assert f"version 1.5; positions in 1/m; readout along {axes[0]}" in said
    assert ("from + to -" in said) == (sign < 0)
    written(sequence, tmp_path / "b.seq", v141_compat=True)
    written(made.KINDS[kind](axes=axes, sign=sign, uses=False), tmp_path / "c.seq")
    for name, version in (("b.seq", "1.4"), ("c.seq", "1.5")):
        other, said = understood(tmp_path / name)
        assert f"version {version}" in said
        assert set(other) == set(found)
        for entry, values in found.items():
            np.testing.assert_allclose(other[entry], values, rtol=0, atol=1e-6, err_msg=entry)


@pytest.mark.parametrize(
    ("kind", "by_use", "by_flip"),
    [("mprage", "4 x inversion", "4 x inversion"), ("t2 prepared", "4 x preparation of 4 pulses|4 x T2 preparation",
     "4 x T2 preparation"), ("gre", "", ""), ("tse", "", ""), ("bssfp", "pulse of 15 deg", "1 x pulse of 15 deg")],
)  # fmt: skip
def test_preparations_are_named(tmp_path, kind, by_use, by_flip):
    for name, how in (("a.seq", {}), ("b.seq", {"v141_compat": True})):
        said = understood(written(made.KINDS[kind](), tmp_path / name, **how))[1]
        assert re.search(by_use if name == "a.seq" else by_flip, said)
        assert by_flip or " x " not in said.split("; matrix")[0]


def test_trains_are_told_by_timing_phase_and_moment(tmp_path):
    """Trains of four with a dummy train before them; single spin echoes; their flips are not what tells them."""
    found = read_design(written(made.tse(), tmp_path / "a.seq", v141_compat=True))
    np.testing.assert_array_equal(found["train"], np.repeat(np.arange(6), 4))
    np.testing.assert_array_equal(found["echo"], np.tile(np.arange(4), 6))
    np.testing.assert_allclose(np.rad2deg(found["flips_rad"]), [150, 120, 100, 60], rtol=1e-5)
    np.testing.assert_allclose(found["te_s"], 8e-3 * np.arange(1, 5), rtol=1e-5)
    np.testing.assert_allclose(found["esp_s"], 8e-3, rtol=1e-5)
    np.testing.assert_allclose(np.rad2deg(found["excitation_rad"]), 90, rtol=1e-5)
    found = read_design(written(made.tse(echoes=1, flips=(70,), phase=0.0), tmp_path / "b.seq", v141_compat=True))
    np.testing.assert_array_equal(found["echo"], np.zeros(24))
    np.testing.assert_allclose(found["te_s"], [8e-3], rtol=1e-5)


def test_pulses_that_may_be_either_are_refused_with_what_to_say(tmp_path):
    """Trains that are not CPMG, and uses that are wrong; said, they are read, but for readouts off the centre."""
    path = written(made.tse(phase=0.0, dummies=0), tmp_path / "a.seq", v141_compat=True)
    with pytest.raises(UsageError, match=r"30 pulses without uses.*may be gradient or spin.*Pulseq\(uses=\"errrr\"\)"):
        read_design(path)
    found = read_design(path, by=Pulseq(uses="errrr"))
    np.testing.assert_array_equal(found["echo"], np.tile(np.arange(4), 6))
    with pytest.raises(UsageError, match=r"readout 0, from .* expected readouts through the centre of k-space"):
        read_design(path, by=Pulseq(uses="e"))
    with pytest.raises(UsageError, match="30 pulses for uses='errr', expected letters"):
        read_design(path, by=Pulseq(uses="errr"))
    make = made.Maker()
    for encode in make.encodes():
        make.pulse(12, "excitation")
        make.read(encode, 0.0, 0.0)
    bent = written(make.done(), tmp_path / "b.seq", v141_compat=True)
    with pytest.raises(UsageError, match=r"miss the centre of k-space as gradient and as"):
        read_design(bent)


@pytest.mark.parametrize(("kind", "message"), [("epi", "as of echo-planar imaging"), ("radial", "several directions")])
def test_readouts_that_are_no_lines_of_one_direction_are_refused_by_name(kind, message, tmp_path):
    make = made.Maker()
    for n, encode in enumerate(make.encodes()):
        make.pulse(12, "excitation")
        if kind == "radial":
            make.axes = "xyz" if n % 2 else "yxz"
            make.gx.channel = make.axes[0]
        else:
            make.gx, make.back, make.forth = pp.scale_grad(make.gx, -1), -make.back, -make.forth
        make.read(encode, make.back, make.forth)
    for compat in (False, True):
        with pytest.raises(UsageError, match=message):
            read_design(written(make.done(), tmp_path / "a.seq", v141_compat=compat))


# Text, versions and extensions


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = written(made.gre(), tmp_path_factory.mktemp("seq") / "plain.seq")
    return path.read_text(), read_design(path)


def assert_same(path, wanted):
    found, said = understood(path)
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-6, err_msg=name)
    return said


def test_signatures_and_line_ends_are_no_gates(plain, tmp_path):
    """None is no fault, a right one fits whatever the line ends, a wrong one is a warning that names the file."""
    text, wanted = plain
    unsigned = text.rpartition("\n[SIGNATURE]")[0]
    for name, content in {
        "crlf": text.replace("\n", "\r\n"),
        "unsigned": unsigned,
        "umlaut": unsigned.replace("[DEFINITIONS]\n", "[DEFINITIONS]\nName Schädel \n"),
        "marked": "\ufeff" + unsigned,
    }.items():
        (tmp_path / f"{name}.seq").write_bytes(content.encode())
        assert_same(tmp_path / f"{name}.seq", wanted)
    (tmp_path / "latin.seq").write_bytes(
        unsigned.replace("[DEFINITIONS]", "# Schädel\n[DEFINITIONS]").encode("latin-1")
    )
    assert_same(tmp_path / "latin.seq", wanted)
    (tmp_path / "edited.seq").write_text(text.replace("[BLOCKS]", "[BLOCKS] "))
    with pytest.warns(UserWarning, match=r"edited.seq: its signature does not fit its content"):
        assert_same(tmp_path / "edited.seq", wanted)


def test_extensions_and_sections_that_move_nothing_are_ignored_and_told(plain, tmp_path):
    text, wanted = plain
    body = text.rpartition("\n[SIGNATURE]")[0]
    rows = body.split("[BLOCKS]\n")[1].split("\n\n")[0]
    first = rows.splitlines()[0]
    body = body.replace(first, first[: first.rindex("0")] + "1", 1)
    more = "[EXTENSIONS]\n1 7 1 0\n\nextension {} 7\n1 0.5 0 0 0\n\n[SHAPES]"
    (tmp_path / "a.seq").write_text(body.replace("[SHAPES]", more.format("RF_SHIMS") + "", 1) + "\n[VENDOR]\n1 2 3\n")
    assert "ignored: section [VENDOR], extension RF_SHIMS" in assert_same(tmp_path / "a.seq", wanted)
    (tmp_path / "b.seq").write_text(body.replace("[SHAPES]", more.format("ROTATIONS"), 1))
    with pytest.raises(UsageError, match=r"blocks with the extension ROTATIONS.*Write it with its gradients rotated"):
        read_design(tmp_path / "b.seq")


def older(text, minor):
    """A file of 1.4 as one of 1.2 or 1.3: delays in place of durations, packed shapes, no shapes of times."""

    def table(name):
        return [line.split() for line in text.split(f"[{name}]\n")[1].split("\n\n")[0].splitlines() if line[0] != "#"]

    delays: dict[str, int] = {}
    blocks = []
    for number, duration, *events in table("BLOCKS"):
        assert events[-1] == "0"
        wait = delays.setdefault(duration, len(delays) + 1)
        blocks.append([number, str(wait), *(events[:-1] if minor == 2 else events)])
    shapes = []
    for part in text.split("\nshape_id ")[1:]:
        head, count, *values = part.split("\n\n")[0].split("\n")
        count = int(count.split()[1])
        held = np.array([float(value) for value in values if value])
        if len(held) < count:
            held = pp.decompress_shape.decompress_shape(type("S", (), {"num_samples": count, "data": held})())
        packed = pp.compress_shape.compress_shape(held, force_compression=True)
        shapes.append(
            "\n".join([f"shape_id {head}", f"num_samples {count}", *(f"{v:.9g}" for v in packed.data), "", ""])
        )
    rows = {
        "BLOCKS": blocks,
        "RF": [[*row[:4], *row[5:]] for row in table("RF")],
        "TRAP": table("TRAP"),
        "ADC": table("ADC"),
        "DELAYS": [[str(number), str(10 * int(duration))] for duration, number in delays.items()],
    }
    tables = "".join(f"[{name}]\n" + "\n".join(" ".join(row) for row in held) + "\n\n" for name, held in rows.items())
    definitions = text.split("[DEFINITIONS]\n")[1].split("\n\n")[0]
    version = f"[VERSION]\nmajor 1\nminor {minor}\nrevision 0\n\n"
    return f"{version}[DEFINITIONS]\n{definitions}\n\n{tables}[SHAPES]\n\n{''.join(shapes)}"


@pytest.mark.parametrize("minor", [2, 3])
def test_older_versions_play_the_same(tmp_path, minor):
    """Shaped pulses, whose blocks last as long as their longest event or delay."""
    sequence = made.haste()
    wanted = read_design(written(sequence, tmp_path / "a.seq"))
    written(sequence, tmp_path / "b.seq", v141_compat=True)
    (tmp_path / "old.seq").write_text(older((tmp_path / "b.seq").read_text(), minor))
    assert f"version 1.{minor}" in assert_same(tmp_path / "old.seq", wanted)


# Matrix, field of view and units


@pytest.mark.parametrize(
    ("definitions", "how", "message"),
    [
        ({"ImgSize": [8, 6, 4]}, {}, ""),
        ({"MatrixSize": [8, 6, 4]}, {}, ""),
        ({"Nx": 8, "Ny": 6, "Nz": 4}, {}, ""),
        ({}, {"shape": (8, 6, 4)}, ""),
        ({"ImgSize": [64, 6, 4]}, {"shape": (8, 6, 4)}, ""),
        ({"ImgSize": [8, 6, 4], "FOV": [192, 150, 120]}, {"fov_m": (0.192, 0.15, 0.12)}, ""),
        (
            {},
            {},
            r"no matrix in its definitions \(ImgSize, .*labels.*Pulseq\(shape=\(nx, ny, nz\)\); .* about \(8, 6, 4\)",
        ),
        ({"ImgSize": [8, 6, 4], "FOV": [192, 150, 120]}, {}, r"looks like mm: \(0.192, 0.15, 0.12\).*Pulseq\(fov_m="),
        ({"ImgSize": [8, 6, 4], "FOV": [19.2, 15, 12]}, {}, r"looks like cm: \(0.192, 0.15, 0.12\)"),
        ({"ImgSize": [2, 2, 2]}, {}, "positions from .*, expected cycles/voxel"),
    ],
)
def test_matrix_and_field_of_view_come_from_definitions_or_arguments(plain, tmp_path, definitions, how, message):
    text = plain[0].rpartition("\n[SIGNATURE]")[0]
    text = re.sub(r"^ImgSize .*\n", "", text, flags=re.MULTILINE)
    if "FOV" in definitions:
        text = re.sub(r"^FOV .*\n", "", text, flags=re.MULTILINE)
    added = "".join(f"{name} {' '.join(map(str, np.ravel(value)))}\n" for name, value in definitions.items())
    (tmp_path / "a.seq").write_text(text.replace("[DEFINITIONS]\n", "[DEFINITIONS]\n" + added))
    if message:
        with pytest.raises(UsageError, match=message):
            read_design(tmp_path / "a.seq", by=Pulseq(**how))
        return
    found = read_design(tmp_path / "a.seq", by=Pulseq(**how))
    for name in ("points", "readout", "shape", "fov_m"):
        np.testing.assert_allclose(found[name], plain[1][name], rtol=0, atol=1e-6)


def test_a_coarse_scan_for_its_matrix_is_warned_of(tmp_path):
    sequence = made.gre()
    sequence.set_definition("ImgSize", [16, 12, 8])
    with pytest.warns(UserWarning, match=r"reach only ±0.*1/mm") as caught:
        read_design(written(sequence, tmp_path / "a.seq"))
    assert [str(one.message).split(": ")[1].split(" reach")[0] for one in caught] == ["readout", "points"]


def test_a_scan_of_noise_before_the_first_pulse_is_left_out(tmp_path):
    make = made.Maker()
    make.seq.add_block(make.adc, pp.make_delay(2e-3))
    for encode in make.encodes():
        make.pulse(12, "excitation")
        make.read(encode, make.back, make.forth)
    found, said = understood(written(make.done(), tmp_path / "a.seq"))
    assert len(found["points"]) == 24
    assert "1 readouts before the first pulse left out, as noise" in said


def test_flips_that_vary_over_gradient_echoes_are_left_out(tmp_path):
    make = made.Maker()
    for n, encode in enumerate(make.encodes()):
        make.pulse(5 + n, "excitation")
        make.read(encode, make.back, make.forth)
    assert "flips_rad" not in read_design(written(make.done(), tmp_path / "a.seq"))


def test_many_readouts_over_one_long_gradient_take_no_longer_than_the_gradient(tmp_path):
    """A file of 140 KB once took a minute: 3000 readouts, each over a gradient of 2**18 samples that is the same."""
    count, rows = 2000, 2**18
    blocks = "".join(f"{n} {rows} 1 {count + 1} {n} 0 1 0\n" for n in range(1, count + 1))
    lobes = "".join(f"{n} {n} 10 80 10 0\n" for n in range(1, count + 1))
    (tmp_path / "a.seq").write_text(
        "[VERSION]\nmajor 1\nminor 4\nrevision 1\n[DEFINITIONS]\nFOV 0.2 0.2 0.2\nImgSize 8 8 8\n"
        f"[BLOCKS]\n{blocks}\n[RF]\n1 10 1 1 0 0 0 0\n[GRADIENTS]\n{count + 1} 1 2 0 0\n[TRAP]\n{lobes}\n"
        f"[ADC]\n1 8 10000 2000 0 0\n[SHAPES]\nshape_id 1\nnum_samples 4\n1\n0\n0\n1\n\n"
        f"shape_id 2\nnum_samples {rows}\n1\n0\n0\n{rows - 3}\n"
    )
    begun = time.perf_counter()
    with pytest.raises(UsageError, match=r"a\.seq"):
        read_design(tmp_path / "a.seq")
    assert time.perf_counter() - begun < 5


@pytest.mark.parametrize("axes", ["xyz", "yxz", "zxy"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_matrix_that_labels_count_is_taken_where_lines_fill_it(axes, turned, tmp_path):
    """Of a file whose definitions have none: LIN and PAR, along either axis; an odd one too."""
    make = made.Maker(axes=axes, shape=np.array([8, 6, 5]))
    names = ("PAR", "LIN") if turned else ("LIN", "PAR")
    for encode in make.encodes():
        cells = np.round(encode * make.fov[1:]).astype(int) + make.shape[1:] // 2
        labels = [pp.make_label(label=name, type="SET", value=int(n)) for name, n in zip(names, cells, strict=True)]
        make.pulse(12, "excitation")
        make.lobes([make.back, *encode])
        make.seq.add_block(make.gx, make.adc, pp.make_delay(2e-3), *labels)
    seq = make.done()
    wanted = seq.definitions.pop("ImgSize")
    seq.write(str(tmp_path / "a.seq"), check_timing=False)
    said = []
    found = read_design(tmp_path / "a.seq", tell=said.append)
    order = ["xyz".index(axis) for axis in axes]
    order = [order[0], *sorted(order[1:])]
    np.testing.assert_array_equal(found["shape"], np.array(wanted)[order])
    assert "matrix from the labels LIN and PAR" in said[0]
