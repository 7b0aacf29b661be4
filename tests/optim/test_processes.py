"""Fits of several processes: their clocks differ, and what they do does not."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def start(folder, minutes, **env):
    """The worker in a process of its own, on one device of the CPU."""
    settings = {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=1",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    call = [sys.executable, str(Path(__file__).with_name("_clock_worker.py")), str(folder), str(minutes)]
    return subprocess.Popen(
        call, env=os.environ | settings | env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def results(process):
    out, error = process.communicate(timeout=200)
    assert process.returncode == 0, error[-3000:]
    return json.loads(out.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("hasty", [0, 1])
def test_the_first_process_s_clock_says_when_all_save_and_look(tmp_path, hasty):
    """One process's clock is due at every step, the other's never: each once looked, and stopped at a NaN, alone."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    minutes = [1e-12 if n == hasty else 1e9 for n in (0, 1)]
    both = [start(tmp_path, minutes[n], COORDINATOR=address, PROCESS=str(n)) for n in (0, 1)]
    try:
        found = [results(process) for process in both]
    finally:
        for process in both:
            process.kill()
    assert found[0] == found[1]
    assert found[0] == {"saved": [3, 4, 5] if hasty == 0 else [5], "steps until the NaN": 2 if hasty == 0 else 5}
