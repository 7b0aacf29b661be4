"""The doctor tells a sound machine from a broken one, and says how to have what is missing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from acqdesign import doctor


@pytest.mark.parametrize("backend", ["finufft", "dft"])
def test_a_sound_backend_equals_the_sum(backend):
    assert doctor.check_backend(backend) < 1e-5


def test_a_wrong_transform_is_seen(monkeypatch, capsys):
    monkeypatch.setattr(
        doctor, "nufft_forward", lambda image, points, **_: 1j * doctor.jnp.full(len(points), image.sum())
    )
    monkeypatch.setattr(doctor, "available_backends", lambda: {"dft": None})
    assert doctor.main([]) == 3
    assert "WRONG: backend dft" in capsys.readouterr().out


def test_what_is_missing_comes_with_its_remedy(monkeypatch, capsys):
    missing = "the installed jax-finufft has no kernels for the platform 'gpu'"
    monkeypatch.setattr(doctor, "available_backends", lambda: {"finufft": missing})
    monkeypatch.setattr(doctor.util, "find_spec", lambda name: None)
    assert doctor.main([]) == 0
    out = capsys.readouterr().out
    assert missing in out
    assert "nox -s cuda builds them" in out
    assert 'pip install "acqdesign[pulseq]"' in out


def test_a_gpu_that_jax_does_not_use_is_named_with_the_remedy(monkeypatch, capsys):
    """And `--gpu` is a failure where none is in use."""
    monkeypatch.setattr(doctor, "nvidia_gpus", lambda: ["NVIDIA H100"])
    monkeypatch.setattr(doctor, "check_backend", lambda name: 1e-7)
    assert doctor.main(["--gpu"]) == 3
    out = capsys.readouterr().out
    assert "NVIDIA H100: not used" in out
    assert "nox -s cuda" in out
    assert "WRONG: no GPU in use" in out
    assert doctor.main([]) == 0


def test_the_cuda_build_ends_clearly_without_a_gpu():
    """Nothing is downloaded or compiled; the way out is named."""
    script = Path(__file__).resolve().parents[1] / "tools" / "build_cuda_finufft.py"
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env={**os.environ, "PATH": ""}
    )
    assert done.returncode == 1
    assert "No NVIDIA GPU here" in done.stderr
    assert "--arch 90" in done.stderr
