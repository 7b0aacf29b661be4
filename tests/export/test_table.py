"""Tables for product sequences: in degrees and milliseconds, lines in the order of playing; what else is refused."""

import numpy as np
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.export import read_design, write_design

SCHEDULE = {
    "flips_rad": np.deg2rad([30.0, 45.0, 60.0]),
    "phases_rad": np.deg2rad([0.0, 117.0, 351.0]),
    "tr_s": [0.011, 0.012, 0.0135],
    "te_s": [0.002],
    "ti_s": 0.02,
}
TRAINS = {
    "points": [[0.25, 0.0], [0.0, -0.5], [0.125, 0.25], [-0.25, 0.375]],
    "train": [1, 0, 0, 1],
    "echo": [0, 1, 0, 1],
    "flips_rad": np.deg2rad([150.0, 90.0]),
    "esp_s": 5e-3,
    "excitation_rad": np.deg2rad(90.0),
}


def test_schedules_are_a_row_a_pulse_in_units_of_protocols(tmp_path):
    path = tmp_path / "a.csv"
    write_design(path, SCHEDULE)
    assert path.read_text().splitlines() == [
        "# rows: 3",
        "# TE [ms]: 2", "# TI [ms]: 20", "flip [deg],phase [deg],TR [ms]", "30,0,11", "45,117,12", "60,351,13.5",
    ]  # fmt: skip
    found = read_design(path)
    for name, values in SCHEDULE.items():
        np.testing.assert_allclose(found[name], values, rtol=5e-7)


def test_lines_are_in_the_order_of_playing_with_their_echo_s_pulse(tmp_path):
    path = tmp_path / "a.csv"
    write_design(path, TRAINS)
    assert path.read_text().splitlines() == [
        "# rows: 4",
        "# excitation [deg]: 90", "# ESP [ms]: 5", "train,echo,ky [cycles/voxel],kz [cycles/voxel],flip [deg]",
        "0,0,0.125,0.25,150", "0,1,0,-0.5,90", "1,0,0.25,0,150", "1,1,-0.25,0.375,90",
    ]  # fmt: skip
    found = read_design(path)
    np.testing.assert_allclose(found["flips_rad"], TRAINS["flips_rad"], rtol=5e-7)
    np.testing.assert_array_equal(found["train"], [0, 0, 1, 1])
    np.testing.assert_array_equal(found["points"], np.array(TRAINS["points"])[[2, 1, 0, 3]])


@pytest.mark.parametrize(
    ("text", "flips"),
    [
        ("flip [deg]\n90\n60\n", [90, 60]),
        ("\ufeffflip [deg];phase [deg]\r\n90;0\r\n60;180\r\n", [90, 60]),  # as spreadsheets write it in Europe
        ('# my protocol\n# ESP [ms]: 8\n\n"flip [deg]"\tphase [deg]\n90\t0\n60\t0\n', [90, 60]),
        ("flip [rad]\n0.5\n0.25\n", np.rad2deg([0.5, 0.25])),
    ],
)
def test_tables_of_spreadsheets_are_read(tmp_path, text, flips):
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode())
    np.testing.assert_allclose(np.rad2deg(read_design(path)["flips_rad"]), flips, rtol=1e-6)


LINES = "train,echo,ky [cycles/voxel],kz [cycles/voxel],flip [deg]\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flips\n90\n", r"the columns 'flips', expected some of 'flip \[deg\]'"),
        ("flip [deg],flip [deg]\n90,90\n", "each once"),
        ("flip [deg]\n1.5\n0.5\n", r"flips are 1.5 deg at most, expected degrees.*'flip \[rad\]'"),
        ("flip [deg]\nninety\n", "could not convert.*expected 1 numbers in each row"),
        ("flip [deg],TR [ms]\n90\n", "expected 2 numbers in each row"),
        ("flip [deg]\n90\nnan\n", "flips_rad: got values that are not finite"),
        ("flip [deg]\n", "flips_rad: got nothing"),
        ("", "the columns ''"),
        ("# rows: 3\nflip [deg]\n90\n60\n", "2 rows of 3"),
        ("# ESP [ms]: five\nflip [deg]\n90\n", r"expected numbers after 'ESP \[ms\]'"),
        ("ky [cycles/voxel],flip [deg]\n0,90\n", "one of ky and kz"),
        ("ky [cycles/voxel],kz [cycles/voxel],flip [deg]\n0,0,90\n", "lines and pulses, but no echo"),
        (f"{LINES}0,0,0,0,90\n1,0,0,0,91\n", r"flip \[deg\] of one echo differs between trains"),
        (f"{LINES}0,0,0,0,90\n0,2,0,0,90\n", "echoes 0 to 2, some missing"),
    ],
)
def test_other_tables_are_refused_by_what_is_wrong(tmp_path, text, message):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_design(path)
