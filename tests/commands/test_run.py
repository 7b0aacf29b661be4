"""Run directories, options and exit codes: nothing is lost, bad use gets one line and its code."""

import csv
import dataclasses
import hashlib
import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from acqdesign.__main__ import main as console
from acqdesign.base.checks import UsageError
from acqdesign.commands.config import RENAMED, flat_options, read_config
from acqdesign.commands.export import ExportOptions
from acqdesign.commands.flags import description
from acqdesign.commands.options import RunOptions
from acqdesign.commands.run import configure, parse_options, run_and_report, run_command
from acqdesign.design import Design, Problem, run, term
from acqdesign.design.driver import report
from acqdesign.design.folder import run_folder
from acqdesign.learn_joint import JointOptions
from acqdesign.optim import NonFiniteError
from acqdesign.plot import write_figure
from acqdesign.scene import Tissue
from acqdesign.signal import Sequence

from ._lines import COMMANDS, main


class Pulses(Sequence):
    """Whose signal costs nothing to compile."""

    flips: jax.Array

    def signal(self, tissue):
        return jnp.sin(self.flips) * jnp.ones((*tissue.shape, 1), self.flips.dtype)


@dataclasses.dataclass(frozen=True)
class SceneOptions:
    """What is scanned."""

    shape: tuple[int, int, int] = (8, 9, 10)
    """Image shape [voxels]."""
    phantom: tuple[str, ...] = ("brain",)
    """Image files."""
    noise: float = 0.0
    """Noise."""
    field: Literal["1.5T", "3T"] = "3T"
    """Field strength."""


@dataclasses.dataclass(frozen=True)
class LearnOptions:
    """Learns nothing in particular."""

    run: RunOptions = dataclasses.field(default_factory=lambda: RunOptions(steps=12))
    scene: SceneOptions = dataclasses.field(default_factory=SceneOptions)


def problem(flips):
    """Flips that are to become one radian each."""
    train, tissue = Pulses(flips), Tissue(jnp.ones(1, flips.dtype), 0.1 * jnp.ones(1, flips.dtype))
    return Problem(tissue, sequence=train, terms=term(lambda scan: jnp.sum((scan.sequence.flips - 1) ** 2), "away"))


def learn(argv):
    """A command as the package's are: options, a problem, a run."""
    options = parse_options(LearnOptions, argv, prog="learn")
    configure(options.run, "learn")
    keys = jax.random.split(options.run.key, options.run.starts)
    problems = [problem(jax.random.normal(key, (3,), options.run.dtype)) for key in keys]
    more = {"starts": [Design(None, p.sequence) for p in problems], "key": options.run.key, "progress": False}
    optimizer = options.run.make_optimizer(options.run.lr)
    return run_and_report("learn", options, problems[0], optimizer=optimizer, **more)


def command(*argv):
    return run_command(learn, [*map(str, argv), "--no-figures"], prog="learn")


def files(folder):
    """Every file of a folder with its content."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_leaves_what_the_design_page_promises(tmp_path):
    out = tmp_path / "run"
    assert command("--out", out, "--seed", 3, "--noise", "inf") == 0
    config = json.loads((out / "config.json").read_text())
    assert config["command"] == "learn"
    assert config["seed"] == 3
    assert config["options"]["steps"] == 12
    assert config["options"]["noise"] == "inf"
    assert set(config["options"]) == set(flat_options(LearnOptions()))
    assert {"acqdesign", "jax", "python", "numpy"} <= set(config["versions"])
    assert config["platform"]["backend"] == jax.default_backend()
    summary = json.loads((out / "summary.json").read_text())
    promised = {"initial_loss", "final_loss", "seconds_per_step", "compile_seconds", "peak_memory_bytes"}
    assert promised <= set(summary)
    assert summary["rms_flip_deg"] > 0
    assert summary["peak_memory_bytes"] > 2**20
    with (out / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(13))
    assert float(rows[-1]["loss"]) == summary["final_loss"]
    assert (out / "checkpoint" / "step-00000012.json").exists()


def test_default_folder_is_new_each_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("--steps", 1) == 0
    assert command("--steps", 1) == 0
    runs = sorted((tmp_path / "runs").iterdir())
    assert len(runs) == 2
    assert all(path.name.startswith("learn-2") for path in runs)


def test_a_folder_with_a_run_is_refused_and_untouched_unless_overwritten(tmp_path, capsys):
    command("--out", tmp_path)
    before = files(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    assert command("--out", tmp_path, "--seed", 9) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--overwrite replaces that run" in error
    assert {path: path.read_bytes() for path in before} == before
    (tmp_path / "lines.png").write_bytes(b"old")
    assert command("--out", tmp_path, "--seed", 9, "--steps", 5, "--overwrite") == 0
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 9
    assert not (tmp_path / "lines.png").exists()
    assert not (tmp_path / "checkpoint" / "step-00000012.json").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_equal_seeds_give_equal_bytes_and_others_do_not(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        command("--out", tmp_path / name, "--seed", seed)
    a, b, c = ((tmp_path / name / "history.csv").read_bytes() for name in "abc")
    assert a == b != c


def test_resume_ends_as_the_uninterrupted_run(tmp_path):
    command("--out", tmp_path / "whole", "--steps", 20)
    command("--out", tmp_path / "parts", "--steps", 9)
    half = tmp_path / "parts" / "checkpoint" / ".step-00000010.npz.x.tmp"
    half.write_bytes(b"what a killed process leaves")
    assert command("--resume", tmp_path / "parts", "--steps", 20) == 0
    whole, parts = ((tmp_path / name / "history.csv").read_bytes() for name in ("whole", "parts"))
    assert whole == parts
    assert not half.exists()


@pytest.mark.parametrize("args", [["--seed", 7], ["--lr", 0.5], ["--shape", 8, 8, 8], ["--out", "elsewhere"]])
def test_resume_with_other_options_is_refused_and_changes_nothing(args, tmp_path, capsys):
    """`--resume DIR --seed OTHER` once rewrote config.json before it was refused."""
    command("--out", tmp_path / "run", "--steps", 3)
    before = files(tmp_path / "run")
    assert command("--resume", tmp_path / "run", *args) == 2
    assert args[0] in capsys.readouterr().err
    assert files(tmp_path / "run") == before


@pytest.mark.parametrize("name", ["checkpoint", "checkpoint-lines"])
def test_folders_that_lead_out_of_the_run_are_refused(name, tmp_path, capsys):
    """`--overwrite` once removed checkpoints that a link in the folder pointed to."""
    command("--out", tmp_path / "other", "--steps", 2)
    before = sorted((tmp_path / "other" / "checkpoint").iterdir())
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(tmp_path / "other" / "checkpoint")
    assert command("--out", tmp_path / "run", "--overwrite") == 2
    assert f"whose {name} is a link to" in capsys.readouterr().err
    assert sorted((tmp_path / "other" / "checkpoint").iterdir()) == before


def test_flags_that_the_run_has_may_be_said_again_on_resuming(tmp_path):
    """`--resume DIR --deterministic` of a deterministic run was an unrecognised option."""
    command("--out", tmp_path, "--steps", 2, "--deterministic")
    assert command("--resume", tmp_path, "--steps", 3, "--deterministic") == 0
    assert command("--resume", tmp_path, "--steps", 3) == 0


def test_a_link_under_a_final_name_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "history.csv").symlink_to(tmp_path / "mine")
    assert command("--out", tmp_path / "run", "--steps", 2, "--overwrite") == 0
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "run" / "history.csv").is_symlink()


def test_config_gives_back_options_and_flags_come_first(tmp_path):
    command("--out", tmp_path / "a", "--steps", 7, "--shape", 1, 2, 3, "--phantom", "x", "y")
    args = ["--config", str(tmp_path / "a" / "config.json"), "--steps", "8"]
    options = parse_options(LearnOptions, args, prog="learn")
    assert options.scene.shape == (1, 2, 3)
    assert options.scene.phantom == ("x", "y")
    assert (options.run.steps, options.run.no_figures, options.run.out) == (8, True, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"stepz": 3}, "the unknown key 'stepz'.*Did you mean 'steps'"),
        ({"options": {"fov": 3}}, "the unknown key 'fov'.*Known keys: .*out"),
        ({"steps": "many"}, "steps: got 'many', expected int"),
        ({"steps": True}, "steps: got True, expected int"),
        ({"steps": 2.5}, "steps: got 2.5, expected int"),
        ({"lr": "fast"}, "lr: got 'fast', expected float"),
        ({"shape": [1, 2]}, r"shape: got \[1, 2\], expected tuple"),
        ({"phantom": "brain"}, "phantom: got 'brain', expected tuple"),
        ({"field": "7T"}, "field: got '7T', expected Literal"),
        ({"overwrite": 1, "no_figures": 1}, "no_figures: got 1, expected bool"),
        ([1, 2], "without an object of options"),
    ],
)
def test_a_wrong_config_names_the_key(tmp_path, content, message):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_config(LearnOptions, path, ignored=("overwrite",))


def test_config_takes_every_type_and_infinities(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"lr": 1, "noise": "inf", "max_minutes": None, "shape": [4, 5, 6], "out": "x"}))
    options = read_config(LearnOptions, path, ignored=("out",))
    assert options.run == RunOptions(steps=12, lr=1.0)
    assert options.scene == SceneOptions(shape=(4, 5, 6), noise=float("inf"))


@pytest.mark.parametrize("args", [["--stepz", "3"], ["--steps", "x"], ["--precision", "half"], ["--run.steps", "3"]])
def test_wrong_usage_is_one_line_and_2(args, capsys, tmp_path):
    assert command("--out", tmp_path / "never", *args) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert args[0].lstrip("-") in error
    assert "---" not in error
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(
    "args",
    [
        ["--steps", "0"],
        ["--lr", "-1"],
        ["--optimizer", "adm"],
        ["--schedule", "cos"],
        ["--starts", "0"],
        ["--max-minutes", "0"],
        ["--checkpoint-minutes", "0"],
        ["--seed", "99999999999999999999"],
        ["--seed", "-1"],
        ["--steps", "3000000000"],
        ["--resume", "a", "--overwrite"],
        ["--config", "absent.json"],
        ["--resume", "absent"],
        ["--out", __file__],
    ],
)
def test_wrong_input_is_one_line_and_2(args, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command(*args) == 2
    error = capsys.readouterr().err
    assert error.startswith("learn: ")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("points: got 3\n\x1b[31mlines"), 2),
        (NonFiniteError(3, ["loss"], {}), 3),
        (FloatingPointError("overflow"), 3),
        (np.linalg.LinAlgError("singular"), 3),
        (OSError(28, "No space left on device"), 4),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_have_exit_codes_and_print_no_escapes(error, code, capsys):
    def main(argv):
        raise error

    assert run_command(main, [], prog="learn") == code
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert "\x1b" not in text


@pytest.mark.parametrize("error", [ValueError("broadcast"), TypeError("a bug"), KeyError("a bug")])
def test_a_mistake_in_the_program_keeps_its_traceback(error):
    """An error that is not the package's own is a bug, even of the kind that wrong use has elsewhere."""

    def main(argv):
        raise error

    with pytest.raises(type(error), match=r"broadcast|a bug"):
        run_command(main, [], prog="learn")


def test_a_bug_ends_a_command_with_code_1_and_its_traceback(tmp_path):
    code = (
        "import sys\nfrom acqdesign import learn_traj as module\ndef broken(*_, **__): raise ValueError('a bug')\n"
        "module.Problem = broken\nsys.exit(module.main(['--shape', '4', '6', '4', '--lines', '9', '--samples', '4']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "ValueError: a bug")
    assert "Traceback" in done.stderr


def test_warnings_are_one_line_without_escapes(capsys):
    def main(argv):
        warnings.warn("a \x1b[31mred\nthing", stacklevel=1)
        return 0

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert run_command(main, [], prog="learn") == 0
    assert capsys.readouterr().err == "learn: warning: a [31mred thing\n"


@pytest.mark.parametrize("verdict", ["diverged", "stalled", "improving"])
def test_a_stalled_or_diverging_run_is_named(verdict, capsys):
    found = run(problem(jnp.zeros(3)), 1, progress=False)
    capsys.readouterr()
    report(dataclasses.replace(found, result=dataclasses.replace(found.result, verdict=verdict)))
    said = capsys.readouterr()
    assert said.out.startswith("loss 3 -> ")
    assert said.err == "" if verdict == "improving" else said.err.startswith(f"warning: {verdict}: the loss")


def test_sigterm_outside_a_fit_exits_with_143():
    def main(argv):
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(5)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        run_command(main, [], prog="learn")
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_two_runs_cannot_share_a_folder(tmp_path):
    """The second is refused while the first lives, --overwrite or not, and changes nothing."""
    with run_folder(tmp_path, {"command": "learn"}):
        before = files(tmp_path)
        code = (
            "import sys\nfrom pathlib import Path\nfrom acqdesign.commands.run import run_command\n"
            "from acqdesign.design.folder import run_folder\n"
            "def main(argv):\n    with run_folder(Path(argv[0]), {}, overwrite=True):\n        return 0\n"
            "sys.exit(run_command(main, sys.argv[1:], prog='learn'))\n"
        )
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
        assert done.returncode == 2
        assert "which another run is writing to" in done.stderr
        assert files(tmp_path) == before


def test_a_folder_that_cannot_be_made_is_4(capsys):
    assert command("--out", "/proc/no/such/place") == 4
    assert capsys.readouterr().err.startswith("learn: ")


def test_precision_and_starts_reach_the_fit(tmp_path):
    command("--out", tmp_path, "--precision", "double", "--starts", 2, "--steps", 3)
    with np.load(tmp_path / "checkpoint" / "step-00000003.npz", allow_pickle=False) as held:
        assert held["state.params.sequence.flips"].shape == (2, 3)
        assert held["state.params.sequence.flips"].dtype == np.float64


@pytest.mark.parametrize("name", COMMANDS)
def test_flags_of_earlier_versions_name_the_new_ones(name, capsys, tmp_path):
    """On the command line and in a file of options, unless the command still has them."""
    known = flat_options(COMMANDS[name][1]())
    assert set(RENAMED) - set(known)
    for old in set(RENAMED) - set(known):
        (tmp_path / "old.json").write_text(json.dumps({old: 1}))
        name_of = "--" + old.replace("_", "-")
        for args in ([name_of, 1], [f"{name_of}=1"], ["--config", tmp_path / "old.json"]):
            assert main(name, *args) == 2
            error = capsys.readouterr().err
            assert error.count("\n") == 1
            assert f"of an earlier version, expected {RENAMED[old]}" in error
    assert "--term deviation_t2=WEIGHT" in RENAMED["weight_crlb_t2"]


# What the commands of version 0.1 wrote before their options were the same: some of them.
OLD = {
    "learn_traj": {"phantom": ["brain"], "lines": 20, "objective": None, "ridge": 1e-3, "steps": 5},
    "learn_flips": {"sequence": "fse", "echoes": 4, "te_ms": 2.0, "ti_ms": 20.0, "objective": None, "steps": 5},
    "learn_joint": {"phantom": ["brain"], "contrast": "T1w", "reconstruction": "image", "weight_nrmse": 1.0},
}


@pytest.mark.parametrize("name", COMMANDS)
def test_runs_of_another_version_are_not_resumed(name, tmp_path, capsys):
    """Nor those of another command; one line says so, and nothing in their folder changes."""
    (tmp_path / "config.json").write_text(json.dumps({"command": name, "options": OLD[name], "seed": 0}))
    before = files(tmp_path)
    assert main(name, "--resume", tmp_path) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "as another command or version wrote it, expected every option of this one. Start a new run." in error
    assert files(tmp_path) == before


def test_help_teaches_flat_flags_with_units_and_defaults(capsys):
    with pytest.raises(SystemExit) as caught:
        command("--help-all")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    names = "out overwrite seed steps optimizer lr schedule config resume checkpoint-every starts no-figures"
    for name in [*names.split(), "style", "max-minutes", "deterministic", "precision", "shape"]:
        assert f"--{name} " in text
    assert "--run." not in text
    assert "(1 to 10000000; default: 12)" in " ".join(text.split())
    assert text.index("--precision") < text.index(" device options") < text.index("--mesh")


@pytest.mark.parametrize("kind", [JointOptions, ExportOptions])
def test_help_has_its_description_in_whole_words_and_an_example_a_line(kind, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    lines = description(kind).splitlines()
    assert max(map(len, lines)) <= 60
    assert all(line.startswith(" ") for line in lines)
    assert " ".join(" ".join(lines).split()) == " ".join(inspect.getdoc(kind).split())
    assert sum(line.startswith("    python -m") for line in lines) >= 3


def test_a_figure_that_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.png"
    write_figure(path, Figure())
    good = path.read_bytes()
    assert good.startswith(b"\x89PNG")

    class Broken(Figure):
        def savefig(self, file, **options):
            file.write(b"half")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        write_figure(path, Broken())
    assert path.read_bytes() == good
    assert [entry.name for entry in Path(tmp_path).iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        ([], 2, "learn_traj "),
        (["--list"], 0, "doctor "),
        (["learn_trai"], 2, "command: got 'learn_trai'"),
        (["learn_joint", "--learn", "none"], 2, "--learn"),
        (["export", "absent", "--to", "npz"], 2, "absent"),
    ],
)
def test_one_command_has_all_others(args, code, said, capsys):
    assert console(args) == code
    out, err = capsys.readouterr()
    assert said in out + err


TINY = "--steps 1 --shape 4 6 4 --lines 9 --samples 4 --no-figures --out run"


@pytest.mark.parametrize("redirect", ["2>/dev/full", "2>&-", ">/dev/full", ">&-", "| true"])
def test_results_are_written_whatever_becomes_of_the_terminal(tmp_path, redirect):
    line = f"set -o pipefail; {sys.executable} -m acqdesign.learn_traj {TINY} {redirect}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize("variables", [{"COLUMNS": "1"}, {"COLUMNS": "5"}, {"PYTHONIOENCODING": "ascii"}])
def test_help_is_printed_on_every_terminal(tmp_path, variables):
    line = [sys.executable, "-m", "acqdesign.learn_flips", "--help"]
    environment = os.environ | variables
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--echoes" in done.stdout


def test_what_was_understood_of_each_file_is_printed_and_kept(tmp_path, monkeypatch, capsys):
    """A line each, in `summary.json` too: of the start's file, and of phantoms."""
    monkeypatch.chdir(tmp_path)
    np.save("mask.npy", np.ones((6, 4)))
    np.save("head.npy", np.arange(1.0, 97).reshape(4, 6, 4))
    small = ["--phantom", "head.npy", "--steps", 1, "--samples", 4, "--no-figures", "--out", "run"]
    assert main("learn_traj", "--init", "mask.npy", "--shape", 4, 6, 4, *small) == 0
    files = json.loads(Path("run/summary.json").read_text())["files"]
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if ": " in line][:2] == files
    assert files == [
        "mask.npy: Mask: mask of 24 of 24 cells, centre at n//2; matrix 4 x 6 x 4; 24 lines of 4 samples",
        "head.npy: an image of float32; matrix 4 x 6 x 4; fills the field of view, as it has no voxel size",
    ]


def forged(folder, step, change):
    """The checkpoint of a step with its record changed, under a checksum that fits."""
    path = folder / "checkpoint" / f"step-{step:08d}.json"
    record = json.loads(path.read_text())
    body = change({name: record[name] for name in ("step", "sha256", "meta")})
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(record | body | {"body_sha256": digest}))
    return path


def edited(folder, **options):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"options": config["options"] | options}))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("another run's checkpoint", "step-00000004.json: key: got .* expected that of the run to resume"),
        ("lr", r"step-00000004.json: lr: got None, expected that of the run to resume, 0.5"),
        ("optimizer", "step-00000004.json: optimizer: got adam, expected that of the run to resume, sgd"),
        ("noise", "step-00000004.json: noise: got 0.0, expected that of the run to resume, 0.25"),
        ("no key", "step-00000004.json: key: got None"),
        ("no config", r"step-00000004.json \(KeyError: 'config'\)"),
        ("no history", "history: got another log, expected step and loss of each of 4 logged steps"),
        ("a huge step", "step-99999999.json: got step 99999999, expected at most the run's 12"),
        ("a later step", "history: got another log, expected step and loss of each of 9 logged steps"),
        ("an older format", "format version 1, this program reads 2"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_by_what_differs(fault, message, tmp_path, capsys):
    """One that was put in, and one whose config.json was edited since; with checksums that fit."""
    run, stem = tmp_path / "run", tmp_path / "run" / "checkpoint" / "step-00000004"
    command("--out", run, "--steps", 4)
    if fault == "another run's checkpoint":
        command("--out", tmp_path / "other", "--steps", 4, "--seed", 9)
        shutil.rmtree(run / "checkpoint")
        shutil.copytree(tmp_path / "other" / "checkpoint", run / "checkpoint")
    elif fault in ("lr", "optimizer", "noise"):
        edited(run, **{fault: {"lr": 0.5, "optimizer": "sgd", "noise": 0.25}[fault]})
    elif fault in ("no key", "no config"):
        forged(run, 4, lambda body: body | {"meta": {k: v for k, v in body["meta"].items() if k != fault[3:]}})
    elif fault == "no history":
        with np.load(f"{stem}.npz") as held:
            np.savez(f"{stem}.npz", **{k: v for k, v in held.items() if not k.startswith("history")})
        digest = hashlib.sha256(Path(f"{stem}.npz").read_bytes()).hexdigest()
        forged(run, 4, lambda body: body | {"sha256": digest})
    elif fault == "an older format":
        record = json.loads(Path(f"{stem}.json").read_text())
        Path(f"{stem}.json").write_text(json.dumps(record | {"version": 1}))
    else:
        step = 9 if fault == "a later step" else 99999999
        path = forged(run, 4, lambda body: body | {"step": step})
        path.rename(path.with_name(f"step-{step:08d}.json"))
        Path(f"{stem}.npz").rename(path.with_name(f"step-{step:08d}.npz"))
    edited(run, steps=12)
    capsys.readouterr()
    assert command("--resume", run) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_python_drops_still_ends_with_its_code(number, code, capsys):
    """While it collects garbage, say, as figures are drawn."""

    class Garbage:
        def __del__(self):
            os.kill(os.getpid(), number)
            for _ in range(10):
                pass

    def main(argv):
        Garbage()
        return 0

    assert run_command(main, [], prog="learn") == code
    assert capsys.readouterr().err.splitlines()[-1].startswith("learn: interrupted")


def test_an_interrupt_while_figures_are_drawn_ends_with_130(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("acqdesign.design.driver.shown", lambda found: os.kill(os.getpid(), signal.SIGINT))
    assert run_command(learn, ["--out", str(tmp_path), "--steps", "1"], prog="learn") == 130
    assert capsys.readouterr().err.endswith("learn: interrupted\n")
    assert (tmp_path / "summary.json").exists()


@pytest.mark.parametrize(("code", "said"), [(130, ""), (143, ""), (2, "the end\n")])
def test_an_interrupted_process_does_not_wait_for_its_devices(code, said):
    call = (
        f"import atexit; atexit.register(print, 'the end'); from acqdesign.commands.streams import leave; leave({code})"
    )
    done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (code, said)


def test_options_of_another_command_are_refused(tmp_path, capsys):
    """Also where all of them happen to be known."""
    (tmp_path / "config.json").write_text(json.dumps({"command": "learn_flips", "options": {"steps": 3}}))
    assert main("learn_traj", "--config", tmp_path / "config.json") == 2
    assert "got that of a run of learn_flips, expected one of learn_traj" in capsys.readouterr().err


def test_errors_of_the_file_system_end_with_the_file(tmp_path, capsys):
    """And not with "-> None"."""
    (tmp_path / "history.csv").mkdir()
    assert command("--out", tmp_path, "--overwrite") in (2, 4)
    error = capsys.readouterr().err
    assert error.endswith("/history.csv'\n")
    assert "None" not in error


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("MPLBACKEND", "nowhere", "warning: ignored MPLBACKEND: ValueError"),
        ("TQDM_MININTERVAL", "soon", "warning: ignored TQDM_MININTERVAL: ValueError"),
        ("TQDM_BAR_FORMAT", "{nothing}", "warning: ignored TQDM_BAR_FORMAT: KeyError"),
    ],
)
def test_settings_of_other_packages_that_are_none_stop_nothing(name, value, said, tmp_path):
    call = [sys.executable, "-m", "acqdesign.learn_traj", *TINY.replace("--no-figures", "").split()]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {name: value})
    assert done.returncode == 0, done.stderr
    assert said in done.stderr
    assert list((tmp_path / "run").glob("*.png"))


@pytest.mark.parametrize(
    ("name", "given", "meant"),
    [
        ("learn_flips", "--max-flip", "--max-flip-deg"),
        ("learn_joint", "--te", "--te-ms or --te-eff-ms"),
        ("learn_traj", "--stepz=3", "--steps"),
        ("learn_traj", "--accelration", "--acceleration"),
    ],
)
def test_an_unknown_flag_names_those_that_may_be_meant(name, given, meant, capsys):
    assert main(name, given, 3) == 2
    error = capsys.readouterr().err
    flag_of = given.partition("=")[0]
    assert error == f"{name}: {flag_of}: got an unknown flag, expected one of this command. Did you mean {meant}?\n"


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("learn_traj", ["--acceleration", 4, "--init", "a.npz"], "--init: got a.npz with --acceleration"),
        ("learn_joint", ["--acceleration", 4, "--init", "a.seq"], "--init: got a.seq with --acceleration"),
        ("learn_traj", ["--out", "held"], "--out: got held, which holds a run"),
        ("learn_joint", ["--out", "held"], "--out: got held, which holds a run"),
        ("learn_traj", ["--out", "held/config.json"], "which is a file, expected a folder"),
        ("learn_traj", ["--starts", 3, "--init", "caipi"], "--starts: got 3 with --init caipi"),
        ("learn_traj", ["--optimizer", "lbfgs", "--augment"], "--optimizer: got lbfgs with --augment"),
        ("learn_traj", ["--init", "absent.seq"], "absent.seq"),
    ],
)
def test_what_flags_alone_say_is_wrong_is_refused_before_any_work(name, args, message, tmp_path, monkeypatch, capsys):
    """Before a phantom is read: `--acceleration 4 --init FILE` once took 40 s to be refused."""
    monkeypatch.chdir(tmp_path)
    Path("held").mkdir()
    Path("held/config.json").write_text("{}")
    monkeypatch.setattr("acqdesign.commands.options.load_scene", lambda *_, **__: pytest.fail("work was done"))
    assert main(name, *args) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_last_line_of_a_run_that_was_stopped_says_how_to_go_on(tmp_path, capsys):
    assert command("--out", tmp_path, "--max-minutes", 1e-9) == 0
    assert capsys.readouterr().out.endswith(f"go on with: python -m acqdesign.learn --resume {tmp_path}\n")
    assert command("--resume", tmp_path, "--max-minutes", 9) == 0
    assert "go on with" not in capsys.readouterr().out
