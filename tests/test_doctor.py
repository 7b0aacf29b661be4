"""The doctor tells a sound machine from a broken one, and says how to have what is missing."""

import pytest

from acqdesign import doctor


@pytest.mark.parametrize("backend", ["finufft", "dft"])
def test_a_sound_backend_equals_the_sum(backend):
    assert doctor.check_backend(backend) < 1e-5


def test_a_wrong_transform_is_seen(monkeypatch, capsys):
    monkeypatch.setattr(
        doctor, "nufft_forward", lambda image, points, **_: 1j * doctor.jnp.sum(points) * image.sum()
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
    assert "build jax-finufft" in out
    assert 'pip install "acqdesign[pulseq]"' in out
