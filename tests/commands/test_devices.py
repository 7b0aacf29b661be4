"""Commands on several devices and processes: equal results, checkpoints of any mesh, clear ends."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.commands import devices
from acqdesign.commands.devices import DeviceOptions, explain
from acqdesign.commands.run import run_command

ROOT = Path(__file__).resolve().parents[2]
# A constant rate: others depend on the number of steps, with which a run goes on.
SMALL = "--precision double --no-figures --checkpoint-every 10 --schedule constant"
# Half as many iterations as usual: planes so small are nearly solved by then, and further ones would amplify rounding.
JOINT = (
    "learn_joint --shape 2 8 8 --lines 24 --coils 2 --echoes 6 --te-eff-ms 15 --calibration 3 --iterations 6 " + SMALL
)


def start(command, out, *more, devices=8):
    """A command in a process of its own, on virtual devices of the CPU."""
    name, *flags = command.split()
    env = {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    call = [sys.executable, "-m", f"acqdesign.{name}", *flags, "--out", str(out), *map(str, more)]
    if "--resume" in more:
        call = [sys.executable, "-m", f"acqdesign.{name}", *map(str, more)]
    return subprocess.Popen(call, env=os.environ | env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(*args, **more):
    process = start(*args, **more)
    _, error = process.communicate(timeout=500)
    assert process.returncode == 0, error[-3000:]


def parameters(out, step=20):
    with np.load(out / "checkpoint" / f"step-{step:08d}.npz", allow_pickle=False) as held:
        return {name: held[name] for name in held.files if name.startswith("state.params")}


def check_equal(found, wanted):
    for name, values in parameters(wanted).items():
        np.testing.assert_allclose(parameters(found)[name], values, rtol=0, atol=1e-8 * np.abs(values).max())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "mesh"),
    [
        (f"learn_joint --starts 2 --exchange-every 5 {JOINT[11:]}", "coils=2,planes=2"),
        (
            f"learn_traj --shape 4 10 10 --phantom brain brain --coils 2 --lines 40 --noise 0.02 {SMALL}",
            "anatomies=2,coils=2,planes=2",
        ),
        (
            f"learn_traj --shape 4 10 10 --phantom brain brain --coils 2 --lines 40 --recipe reference {SMALL}",
            "anatomies=2,coils=2",
        ),
        (f"learn_flips --tissue wm,gm --echoes 12 --starts 2 {SMALL}", "tissues=2"),
    ],
    ids=["joint", "traj", "reference", "flips"],
)
def test_commands_on_a_mesh_equal_one_device(tmp_path, command, mesh):
    """1e-8 after 20 steps, checkpoints included; several starts too."""
    run(command, tmp_path / "one", "--steps", 20)
    run(command, tmp_path / "many", "--steps", 20, "--mesh", mesh)
    check_equal(tmp_path / "many", tmp_path / "one")
    assert json.loads((tmp_path / "many" / "config.json").read_text())["platform"]["devices"] == 8


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [("planes=2", None), (None, "coils=2,planes=2")])
def test_a_checkpoint_of_one_mesh_goes_on_on_another(tmp_path, first, then):
    run(JOINT, tmp_path / "whole", "--steps", 20)
    run(JOINT, tmp_path / "cut", "--steps", 10, *(["--mesh", first] if first else []))
    run(JOINT, "", "--resume", tmp_path / "cut", "--steps", 20, *(["--mesh", then] if then else []))
    check_equal(tmp_path / "cut", tmp_path / "whole")


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def both(out, steps):
    """Two processes of one device each."""
    shared = ["--mesh", "coils=2", "--coordinator", f"localhost:{free_port()}", "--num-processes", 2]
    return [start(JOINT, out, "--steps", steps, *shared, "--process-id", n, devices=1) for n in (0, 1)]


@pytest.mark.slow
def test_of_two_processes_only_the_first_writes(tmp_path):
    processes = both(tmp_path / "two", 20)
    said = [process.communicate(timeout=500) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert "results in" in said[0][0]
    assert "results in" not in said[1][0]
    run(JOINT, tmp_path / "one", "--steps", 20)
    check_equal(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lost", "how"),
    [(0, signal.SIGKILL), (1, signal.SIGKILL), (0, signal.SIGSTOP), (1, signal.SIGSTOP)],
    ids=["0", "1", "0 hangs", "1 hangs"],
)
def test_a_lost_process_ends_the_other_within_a_minute(tmp_path, lost, how):
    """With a message, and the last checkpoint whole: one process goes on from it."""
    processes = both(tmp_path / "two", 10**6)
    checkpoints = tmp_path / "two" / "checkpoint"
    deadline = time.monotonic() + 300
    while not list(checkpoints.glob("step-*.json")):
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes), processes[0].communicate()
        time.sleep(0.2)
    processes[lost].send_signal(how)
    begun = time.monotonic()
    try:
        _, error = processes[1 - lost].communicate(timeout=60)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    print(f"ended after {time.monotonic() - begun:.1f} s, code {processes[1 - lost].returncode}: {error[-600:]}")
    assert processes[1 - lost].returncode != 0
    assert any(word in error for word in ("process was lost", "another task died", "heartbeat"))
    done = max(int(path.stem[5:]) for path in checkpoints.glob("step-*.json"))
    run(JOINT, "", "--resume", tmp_path / "two", "--steps", done + 10, devices=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coordinator": "a:1"}, "--coordinator: got nothing beside it, expected all of"),
        ({"coordinator": "a:1", "num_processes": 2, "process_id": 0}, "no --mesh beside it"),
        ({"coordinator": "a", "num_processes": 2, "process_id": 0, "mesh": "coils=2"}, "expected HOST:PORT"),
        ({"coordinator": "a:1", "num_processes": 2, "process_id": 2, "mesh": "coils=2"}, "expected 0 to 1"),
        ({"coordinator": "a:99999", "num_processes": 2, "process_id": 0, "mesh": "coils=2"}, "got a:99999, .*65535"),
        ({"mesh": "coils"}, "expected AXIS=N"),
        ({"mesh": "lines=2"}, "--mesh: got 'lines', expected one of anatomies, tissues, coils, planes"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        DeviceOptions(**options).check()


def test_a_device_out_of_memory_says_what_would_fit(capsys):
    def main(argv):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 42 bytes.\nmore")

    assert run_command(main, [], prog="learn") == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for part in ("device out of memory", "allocating 42 bytes", "--coils", "--mesh coils=2", "--shape"):
        assert part in error


def test_other_errors_of_the_runtime_are_not_explained_away():
    assert explain(jax.errors.JaxRuntimeError("INTERNAL: a bug")) is None
    assert explain(ValueError("out of memory")) is None


@pytest.mark.parametrize(
    ("numbers", "count", "said"),
    [
        ([0, 1, 2], 3, [None, None, None]),
        ([0, 1, 1], 3, ["two processes 1"] * 3),
        ([0, 1], 3, ["no process 2 came within 1 s"] * 2),
        ([0], 2, ["no process 1 came"]),
        ([1, 2], 3, ["Connection refused.*expected the process with --process-id 0 there within 1 s"] * 2),
    ],
)
def test_processes_that_do_not_come_or_share_a_number_are_told_in_one_line(numbers, count, said, monkeypatch):
    """JAX ends them by an abort, after two minutes."""
    monkeypatch.setattr(devices, "_MEETING_S", 1)
    address = f"localhost:{free_port()}"

    def meet(number):
        try:
            return devices._meet(address, count, number)
        except UsageError as error:
            return str(error)

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(meet, numbers))
    for text, wanted in zip(found, said, strict=True):
        assert text is None if wanted is None else re.search(wanted, text), found


def test_a_second_first_process_is_told_that_its_port_is_taken():
    with socket.create_server(("localhost", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=r"Address already in use.*Another process may have --process-id 0"):
            devices._meet(f"localhost:{port}", 2, 0)


def test_what_else_knocks_is_not_a_process(monkeypatch):
    monkeypatch.setattr(devices, "_MEETING_S", 5)
    port = free_port()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(devices._meet, f"localhost:{port}", 2, 0)
        time.sleep(0.3)
        with socket.create_connection(("localhost", port)) as other:
            other.sendall(b"GET / HTTP/1.1\r\n")
        pool.submit(devices._meet, f"localhost:{port}", 2, 1).result()
        assert first.result() is None
