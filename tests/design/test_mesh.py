"""Problems on several devices and processes: the results of one device, in few messages, or an error that helps."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from acqdesign.base.sharding import agree_on_stop, device_mesh, is_main_process, mesh_sizes

ROOT = Path(__file__).resolve().parents[2]
LENGTHS = {"anatomies": 2, "coils": 6, "planes": 253}
TOLERANCE = {"double": 1e-8, "single": 1e-3}


def start(*args, devices=8, **env):
    """A worker in a process of its own, on virtual devices of the CPU."""
    settings = {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    call = [sys.executable, str(Path(__file__).with_name("_mesh_worker.py")), *args]
    return subprocess.Popen(
        call, env=os.environ | settings | env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def results(process):
    out, error = process.communicate(timeout=500)
    assert process.returncode == 0, error[-3000:]
    return json.loads(out.splitlines()[-1])


def check_equal(found, wanted, precision):
    """Every array in units of its size, and every loss, after twenty steps."""
    for name, values in wanted.items():
        expected = np.asarray(values)
        off = np.abs(np.asarray(found[name]) - expected).max()
        assert off <= TOLERANCE[precision] * np.abs(expected).max(), name
    assert wanted["loss"][-1] < 0.99 * wanted["loss"][0]


ALL = "anatomies=2,coils=2,planes=2"
MESHES = ("anatomies=2", "coils=4", "planes=2", ALL)


@pytest.mark.parametrize("case", ["plain", "own"])
def test_eight_devices_equal_one_and_send_as_much_for_four_times_the_lines(case):
    """Anatomies, coils and planes split at once: 1e-8 after 20 steps in float64; the program's sums over devices.

    Of the built-in parts, and of a user's own trajectory, sequence, reconstruction and term.
    """
    mesh = ALL if case == "plain" else "anatomies=2,coils=4"
    found = results(start(f"none;{mesh}", "double", case, "lowered"))
    check_equal(found[mesh], found["none"], "double")
    few, many = found[f"messages {mesh}"]
    assert few == many
    # With planes conjugate gradients' inner products are among them.
    assert 0 < few["all_reduce"] < 40


def test_steps_on_some_planes_are_shared_as_steps_on_all_are():
    found = results(start("none;planes=2", "double", "parts", devices=2))
    check_equal(found["planes=2"], found["none"], "double")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["double", "single"])
@pytest.mark.parametrize("case", ["plain", "poses", "terms", "subspace"])
def test_every_mesh_equals_one_device(case, precision):
    """Each axis alone and together, single and double, whatever the loss is made of."""
    meshes = MESHES if case == "plain" else (ALL,)
    found = results(start(";".join(("none", *meshes)), precision, case))
    for mesh in meshes:
        check_equal(found[mesh], found["none"], precision)


@pytest.mark.slow
def test_readouts_exchange_alike_on_every_mesh():
    """Echoes exchanged four times in 20 steps: still 1e-8 in float64, and another design than without."""
    found = results(start(f"none;{ALL}", "double", "exchange"))
    check_equal(found[ALL], found["none"], "double")
    kept = results(start("none", "double", "plain"))["none"]
    assert not np.allclose(found["none"]["trajectory.points"], kept["trajectory.points"], atol=0.1)


@pytest.mark.slow
def test_messages_of_the_compiled_program_do_not_grow_with_lines():
    """All kinds of messages, once XLA has added its own."""
    found = results(start(";".join(MESHES), "single", "plain", "compiled"))
    for mesh in MESHES:
        few, many = found[f"messages {mesh}"]
        assert few == many, mesh
        assert 0 < sum(few.values()) < (30 if "planes" in mesh else 20), mesh


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["double", "single"])
def test_two_processes_equal_one_device(precision):
    """Over localhost, each with two devices of a mesh of four."""
    mesh, address = "coils=2,anatomies=2", f"localhost:{free_port()}"
    both = [start(mesh, precision, "plain", devices=2, COORDINATOR=address, PROCESS=str(n)) for n in (0, 1)]
    found = [results(process)[mesh] for process in both]
    wanted = results(start("none", precision, "plain"))["none"]
    for one in found:
        check_equal(one, wanted, precision)


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("planes", "--mesh: got planes, expected AXIS=N"),
        ("planes=0", "expected AXIS=N"),
        ("coil=2", "--mesh: got 'coil', expected one of anatomies.*Did you mean 'coils'"),
        ("coils=2,coils=3", "coils twice"),
        ("planes=8", "planes=8 for 253 planes, expected a divisor of 253. Those are 1, 11, 23, 253"),
        ("tissues=2", "expected one or more of anatomies, coils, planes"),
        (
            "coils=6,anatomies=2",
            'takes 12 devices, expected at most the 1 cpu device here.*would fit: coils=1,anatomies=1.*devices", 12',
        ),
    ],
)
def test_a_mesh_that_does_not_fit_says_what_would(text, message):
    with pytest.raises(ValueError, match=message):
        device_mesh(text, LENGTHS)


def test_what_would_fit_uses_the_devices_there_are(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    with pytest.raises(ValueError, match=r"This would fit: coils=2,anatomies=2\."):
        device_mesh("coils=6,anatomies=2", LENGTHS)


def test_one_process_leads_and_agrees_with_itself():
    assert mesh_sizes("anatomies=2, coils=4") == {"anatomies": 2, "coils": 4}
    assert is_main_process()
    assert agree_on_stop("SIGTERM") == "SIGTERM"
