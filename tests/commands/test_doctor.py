"""The doctor tells a sound machine from a broken one, and says how to have what is missing."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from acqdesign import doctor

BUILD = Path(__file__).resolve().parents[2] / "tools" / "build_cuda_finufft.py"


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


def test_the_cuda_build_uses_the_compiler_and_libraries_that_came_with_jax(monkeypatch, tmp_path):
    """Those of PyPI's wheels, under the names that linkers look for; CUDA_HOME goes before."""
    monkeypatch.syspath_prepend(str(BUILD.parent))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    wheels = tmp_path / "site" / "nvidia" / "cu13"
    for name in ("bin/nvcc", "lib/libcudart.so.13", "lib/libcufft.so.12"):
        (wheels / name).parent.mkdir(parents=True, exist_ok=True)
        (wheels / name).touch()
    build = importlib.import_module(BUILD.stem)
    monkeypatch.delenv("CUDA_HOME", raising=False)
    assert build.compiler() == str(wheels / "bin" / "nvcc")
    links = build.link_names(tmp_path / "links")
    assert (links / "libcudart.so").resolve() == wheels / "lib" / "libcudart.so.13"
    assert (links / "libcufft.so").resolve() == wheels / "lib" / "libcufft.so.12"
    own = tmp_path / "own" / "bin" / "nvcc"
    own.parent.mkdir(parents=True)
    own.touch()
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "own"))
    assert build.compiler() == str(own)


def test_the_cuda_build_ends_clearly_without_a_gpu():
    """Nothing is downloaded or compiled; the way out is named."""
    done = subprocess.run([sys.executable, str(BUILD)], capture_output=True, text=True, env={**os.environ, "PATH": ""})
    assert done.returncode == 1
    assert "No NVIDIA GPU here" in done.stderr
    assert "--arch 90" in done.stderr
