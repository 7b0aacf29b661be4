"""A sweep: one submit script gives every combination its own run, one table gathers them."""

import csv
import json
import os
import subprocess
from pathlib import Path

import pytest

from acqdesign.merge import main, merge_runs

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "slurm" / "sweep.sbatch"


def write_run(folder, options, summary):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"options": options}))
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))


def test_a_table_has_what_differs_and_what_came_of_it(tmp_path, capsys):
    """The same options have no column, unfinished runs no numbers; nested numbers get names with dots."""
    shared = {"steps": 5, "out": "somewhere"}
    write_run(
        tmp_path / "b" / "deep", shared | {"seed": 1, "lines": 8}, {"nrmse": 0.25, "compare": {"none": {"loss": 2}}}
    )
    write_run(tmp_path / "a", shared | {"seed": 0, "lines": 8, "out": "else"}, None)
    assert merge_runs(tmp_path) == [
        {"run": "a", "seed": 0, "nrmse": None, "compare.none.loss": None},
        {"run": "b/deep", "seed": 1, "nrmse": 0.25, "compare.none.loss": 2},
    ]
    assert main([str(tmp_path), "--out", str(tmp_path / "table.csv")]) == 0
    with open(tmp_path / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["nrmse"] for row in rows] == ["", "0.25"]
    assert main([str(tmp_path)]) == 0
    assert "b/deep,1,0.25,2" in capsys.readouterr().out


def test_what_files_hold_is_printed_without_terminal_sequences(tmp_path, capsys):
    write_run(tmp_path / "a", {"phantom": "\x1b[2Jhead"}, None)
    write_run(tmp_path / "b", {"phantom": "brain"}, None)
    assert main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "head" in printed
    assert "\x1b" not in printed


def test_no_runs_and_broken_runs_are_named(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "folder: got" in capsys.readouterr().err
    write_run(tmp_path / "a", {}, None)
    (tmp_path / "a" / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"run: got .*a .*expected files that a run wrote"):
        merge_runs(tmp_path)


def submit(folder, index, *args):
    """The script as SLURM runs it, with a `python` that prints its arguments."""
    fake = folder / "python"
    fake.write_text('#!/bin/sh\necho "$@"\n')
    fake.chmod(0o755)
    env = {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": str(index)}
    return subprocess.run([str(SCRIPT), *args], cwd=folder, env=env, capture_output=True, text=True)


def test_the_submit_script_runs_every_combination_once_and_resumes(tmp_path):
    """Of 27 indices, the first, the last and every seed; one index too many is refused."""
    said = [submit(tmp_path, index, "sweep.json").stdout for index in (0, 1, 3, 9, 26)]
    flags = ("--seed", "--acceleration", "--rms-flip-deg")
    chosen = [tuple(words[words.index(flag) + 1] for flag in flags) for words in map(str.split, said)]
    assert chosen == [("0", "2", "40"), ("1", "2", "40"), ("0", "3", "40"), ("0", "2", "45"), ("2", "4", "60")]
    assert all("-m acqdesign.learn_joint --config sweep.json" in line for line in said)
    assert submit(tmp_path, 27, "sweep.json").returncode == 2
    checkpoint = tmp_path / "runs/sweep/seed-0-acceleration-2-rms-40/checkpoint"
    checkpoint.mkdir(parents=True)
    (checkpoint / "step-00000100.json").touch()
    assert "--resume runs/sweep/seed-0-acceleration-2-rms-40" in submit(tmp_path, 0, "sweep.json").stdout
    assert len(set(said)) == 5


@pytest.mark.parametrize("options", [None, [], "text"])
def test_a_run_without_options_is_named(options, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps({"options": options}))
    with pytest.raises(ValueError, match=r"run: got .*run \(TypeError: .*expected files that a run wrote"):
        merge_runs(tmp_path)
