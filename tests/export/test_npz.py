"""`design.npz`: what is written comes back, in any program, and nothing in a file is trusted."""

import numpy as np
import pytest

from acqdesign.base import untrusted
from acqdesign.export import read_design, write_design

POINTS = np.linspace(-0.5, 0.5, 12).reshape(6, 2)
DESIGN = {
    "points": POINTS,
    "learned": np.arange(6) > 1,
    "samples_per_line": 64,
    "readout": np.linspace(-0.5, 0.5, 64),
    "shape": (64, 32, 24),
    "fov_m": (0.22, 0.2, 0.18),
    "train": np.arange(6) // 3,
    "echo": np.arange(6) % 3,
    "flips_rad": np.full(3, 2.5),
    "phases_rad": np.zeros(3),
    "tr_s": [2.0],
    "te_s": [0.08],
    "ti_s": 0.9,
    "excitation_rad": np.pi / 2,
    "esp_s": 5e-3,
    "dwell_s": 4e-6,
}
INTEGERS = {"samples_per_line", "shape", "train", "echo"}


def test_a_design_comes_back_in_its_stated_dtypes(tmp_path):
    path = tmp_path / "design.npz"
    write_design(path, DESIGN)
    found = read_design(path)
    assert set(found) == set(DESIGN)
    for name, value in DESIGN.items():
        dtype = np.int32 if name in INTEGERS else bool if name == "learned" else np.float32
        assert found[name].dtype == dtype
        np.testing.assert_array_equal(found[name], np.asarray(value).astype(dtype))


def test_plain_numpy_reads_it_without_pickle(tmp_path):
    write_design(tmp_path / "design.npz", DESIGN)
    with np.load(tmp_path / "design.npz", allow_pickle=False) as held:
        np.testing.assert_array_equal(held["points"], POINTS.astype(np.float32))
        assert held["points"].dtype == np.float32


def test_a_file_that_does_not_say_which_lines_were_learned_means_all(tmp_path):
    write_design(tmp_path / "design.npz", {"points": POINTS, "fov_m": None})
    found = read_design(tmp_path / "design.npz")
    assert set(found) == {"points", "learned"}
    assert found["learned"].all()


def test_flips_alone_and_arrays_of_one_s_own_part_alone_are_designs(tmp_path):
    """Without lines there is nothing to have learned of them; one's own arrays keep their axes, in single precision."""
    flips = {"flips_rad": np.ones(4), "phases_rad": np.zeros(4), "esp_s": 0.01}
    write_design(tmp_path / "design.npz", flips)
    assert set(read_design(tmp_path / "design.npz")) == set(flips)
    write_design(tmp_path / "design.npz", {"sequence.ti": 0.5, "trajectory.of.turns": np.ones((2, 3, 4))})
    found = read_design(tmp_path / "design.npz")
    assert {name: array.shape for name, array in found.items()} == {"sequence.ti": (), "trajectory.of.turns": (2, 3, 4)}
    assert {array.dtype for array in found.values()} == {np.dtype("f4")}


def test_files_of_others_may_hold_more(tmp_path):
    np.savez(tmp_path / "x.npz", points=POINTS, notes=np.array(["mine"]), object=np.array([{}], object))
    assert set(read_design(tmp_path / "x.npz")) == {"points", "learned"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"point": POINTS}, "the key 'point', expected keys out of points, learned"),
        ({"points": POINTS[0]}, r"points: got an array of shape \(2,\).*expected 2 axes"),
        ({"points": np.zeros((6, 3))}, r"points: got an array of shape \(6, 3\)"),
        ({"points": POINTS * np.nan}, "points: got values that are not finite"),
        ({"fov_m": (1e99, 1, 1)}, "fov_m: got values that are not finite"),
        ({"learned": np.ones(5, bool)}, "learned: got.*one entry for each of 6 lines"),
        ({"echo": np.zeros(7, int)}, "echo: got.*one entry for each of 6 lines"),
        ({"samples_per_line": [64]}, "samples_per_line: got.*expected 0 axes"),
        ({"points": POINTS + 1j}, "points: got.*expected real numbers"),
        ({"train": np.full(6, 0.5)}, "train: got.*values that int32 holds"),
        ({"phases_rad": np.zeros(2)}, "phases_rad: got.*one entry for each of 3 pulses"),
    ],
)
def test_a_wrong_design_is_not_written_and_the_old_one_stays(tmp_path, change, message):
    path = tmp_path / "design.npz"
    write_design(path, DESIGN)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        write_design(path, DESIGN | change)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"fov_m": np.ones(3)}, r"without a design, expected an array named points \(lines, 2\) or flips_rad"),
        ({"flips_rad": np.ones(3), "phases_rad": np.zeros(4)}, "phases_rad: got.*each of 3 pulses"),
        ({"points": POINTS[:, :1]}, r"points: got an array of shape \(6, 1\)"),
        ({"points": np.zeros((0, 2))}, "at least one line"),
        ({"points": POINTS + 1j}, "points: got.*expected real numbers"),
        ({"points": POINTS.astype(str)}, "points: got.*expected real numbers"),
        ({"points": np.array([[0, np.inf]])}, "points: got values that are not finite"),
        ({"points": np.full((2, 2), 1e300)}, "points: got values that are not finite"),
        ({"points": POINTS, "learned": np.full(6, 0.5)}, "learned: got.*values that bool holds"),
        ({"points": POINTS, "train": np.full(6, np.nan)}, "train: got.*values that int32 holds"),
        ({"points": POINTS, "shape": np.array([2**40, 1, 1])}, "shape: got.*values that int32 holds"),
        ({"points": POINTS, "learned": np.ones(4, bool)}, "learned: got.*each of 6 lines"),
        ({"points": POINTS, "esp_s": np.ones(2)}, "esp_s: got.*expected 0 axes"),
        ({"points": np.array([[{}, {}]], object)}, r"x.npz \(ValueError: dtype object"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        read_design(tmp_path / "x.npz")


def flipped(content):
    """Every byte in the middle third changed."""
    a, b = len(content) // 3, 2 * len(content) // 3
    return content[:a] + bytes(255 - c for c in content[a:b]) + content[b:]


@pytest.mark.parametrize("damage", [lambda c: c[:-40], flipped, lambda c: b"", lambda c: b"PK\x03\x04" + c[90:]])
def test_a_damaged_file_is_a_named_error(tmp_path, damage):
    path = tmp_path / "design.npz"
    write_design(path, DESIGN)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"design: got .*design.npz \(.*expected a readable design.npz"):
        read_design(path)


@pytest.mark.parametrize("name", ["absent.npz", "."])
def test_no_file_is_a_named_error(tmp_path, name):
    with pytest.raises(ValueError, match=r"expected a readable design\.npz"):
        read_design(tmp_path / name)


def test_a_bomb_is_refused_before_it_unpacks(tmp_path, monkeypatch):
    """By the sizes in the directory of the archive."""
    monkeypatch.setattr(untrusted, "_SLACK", 10_000)
    np.savez_compressed(tmp_path / "x.npz", points=np.zeros((5000, 2)))
    with pytest.raises(ValueError, match=r"which takes 2.4e\+05 bytes of memory, expected at most"):
        read_design(tmp_path / "x.npz")
