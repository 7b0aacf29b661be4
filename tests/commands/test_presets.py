"""Protocols by name, and the help that people need first."""

import json
import re
from pathlib import Path

import pytest

from acqdesign.base.checks import UsageError
from acqdesign.commands.config import flat_options
from acqdesign.commands.flags import description, short_help
from acqdesign.commands.options import FIRST
from acqdesign.commands.presets import PRESETS
from acqdesign.commands.run import _given, parse_options

from ._lines import COMMANDS, SMALL, main


def parsed(name, *words):
    return parse_options(COMMANDS[name][1], [str(word) for word in words], prog=f"python -m acqdesign.{name}")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_its_options_over_the_usual_ones(name):
    """Each says what it is and where it is from, and every option is one of its command's, other than usual."""
    preset = PRESETS[name]
    usual = flat_options(COMMANDS[preset.command][1]())
    found = flat_options(parsed(preset.command, "--preset", name))
    assert set(preset.options) <= set(usual)
    assert found == usual | preset.options | {"preset": name}
    assert re.search(r"\(\d{4}\)|adni", preset.about)


def test_flags_take_the_place_of_a_presets_and_of_what_they_exclude():
    """Also where they ask for what is usual without it."""
    found = flat_options(parsed("learn_traj", "--preset", "t1w-3d-1mm", "--lines", 500, "--coils", 1))
    assert (found["lines"], found["acceleration"], found["coils"]) == (500, None, 1)
    assert found["shape"] == [256, 240, 208]
    found = flat_options(
        parsed("learn_flips", "--preset", "mrf-400", "--t1-ms", 900, "--t2-ms", 80, "--term", "bound_t1")
    )
    assert (found["tissue"], found["objective"], found["echoes"]) == (None, None, 400)
    found = flat_options(parsed("learn_joint", "--preset", "tse-t2-3d", "--sar-fraction", 0.1, "--init", "lines.npz"))
    assert (found["rms_flip_deg"], found["lines"], found["shape"], found["echoes"]) == (None, None, None, 128)


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        ("learn_flips", ["--preset", "mrf"], "--preset: got 'mrf', expected one of .* Did you mean 'mrf-400'"),
        (
            "learn_traj",
            ["--preset", "mprage"],
            r"mprage, a protocol of learn_flips, .* python -m acqdesign.learn_flips",
        ),
        ("learn_flips", ["--preset", "mprage", "--config", "x.json"], "--preset: got mprage with x.json"),
        ("learn_flips", ["--preset", "mprage", "--resume", "run"], "--preset: got mprage with run"),
        ("learn_flips", ["--preset", "mrf-400", "--te-ms", "0"], "--te-ms: got 0.0, expected 0.01 to"),
    ],
)
def test_wrong_presets_are_named(command, words, message):
    with pytest.raises(UsageError, match=message):
        parsed(command, *words)


def test_a_run_of_a_preset_is_asked_for_again_by_its_name_or_its_configuration(tmp_path):
    """Both are the same options; the configuration has them all, whatever becomes of the preset."""
    words = ["--preset", "t2-map-16", "--echoes", 8, "--steps", 3]
    first = parsed("learn_flips", *words)
    assert _given("learn_flips", first) == {"preset": "t2-map-16", "echoes": 8, "steps": 3}
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"command": "learn_flips", "options": flat_options(first)}))
    again = flat_options(parsed("learn_flips", "--config", path))
    assert again | {"config": None} == flat_options(first)


def test_presets_are_listed(capsys):
    for command in COMMANDS:
        assert main(command, "--presets") == 0
        said = capsys.readouterr().out
        for name, preset in PRESETS.items():
            assert f"{name}: python -m acqdesign.{preset.command} --preset {name}\n" in said
        assert "--echoes 400 --tr-ms 12.0" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_what_is_needed_first_and_the_rest_on_request(command, capsys, monkeypatch):
    """Of learn_traj on one screen and a half; every flag is in the whole help."""
    monkeypatch.setenv("COLUMNS", "80")
    assert main(command, "--help") == 0
    short = capsys.readouterr().out
    assert len(short.splitlines()) <= (80 if command == "learn_joint" else 60)
    assert max(map(len, short.splitlines())) <= 80
    assert description(COMMANDS[command][1]) in short
    monkeypatch.setenv("COLUMNS", "200")
    assert main(command, "--help-all") == 0
    whole = capsys.readouterr().out
    known = {"--" + name.replace("_", "-") for name in flat_options(COMMANDS[command][1]())}
    shown = set(re.findall(r"^  (--[\w-]+)", short, re.M))
    assert len(shown) >= 20
    assert shown <= known <= set(re.findall(r"(--[\w-]+) ", whole))
    assert f"All {len(known)} flags" in short


def test_every_flag_that_is_needed_first_is_one():
    known = [set(flat_options(kind())) for _, kind in COMMANDS.values()]
    assert set(FIRST) <= set.union(*known)
    for command, (_, kind) in COMMANDS.items():
        assert "(1.5T or 3T or 7T; 3T)" in " ".join(short_help(kind, command, FIRST).split())


def test_a_presets_run_is_small_where_flags_say_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = ["--preset", "mrf-400", "--steps", 1, *SMALL["learn_flips"], "--no-figures", "--out", "run"]
    assert main("learn_flips", *few) == 0
    held = json.loads(Path("run/config.json").read_text())
    assert held["options"]["tr_ms"] == 12.0
    assert held["given"]["preset"] == "mrf-400"
