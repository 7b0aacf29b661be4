"""Gradient-spoiled SSFP and fingerprinting against isochromats, truncation and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.scene.tissue import Tissue
from acqdesign.signal import SSFPFID, simulate

from . import _bloch
from ._functions import ssfp_fid

TOLERANCE = {np.float64: 1e-10, np.float32: 1e-5}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_fingerprinting_equals_isochromats(dtype, rng):
    """Inverted, with varied flips, phases, TR and TE, off resonance."""
    n = 40
    flips, phases = rng.uniform(0.1, 1.2, n), rng.uniform(0, 6, n)
    tr, te = rng.uniform(8e-3, 15e-3, n), rng.uniform(1e-3, 4e-3, n)
    flips, phases, tr, te = (x.astype(dtype) for x in (flips, phases, tr, te))
    got = ssfp_fid(
        flips, tr, dtype(0.8), dtype(0.09), te=te, phases=phases, b0=dtype(20.0), b1=dtype(0.9), m0=dtype(2.0),
        inversion_time=0.02, inversion_efficiency=0.9,
    )  # fmt: skip
    start = 1 - 1.9 * np.exp(-0.02 / 0.8)
    points = _bloch.turn_points(128)
    want = 2 * _bloch.bloch(
        0.9 * flips, phases, [(te, 0), (tr - te, 1)], 0.8, 0.09, b0=20.0, mz=start, dephasing=points
    )
    assert got.dtype == np.result_type(dtype, np.complex64)
    assert abs(got - want).max() <= 2 * TOLERANCE[dtype]


def test_a_thousand_pulses_are_real_and_equal_isochromats():
    """The usual fingerprinting train: one phase, one TR, real arithmetic, still exact after 1000 pulses."""
    flips = np.abs(np.sin(np.arange(1000) / 60)) + 0.05
    got = ssfp_fid(flips, 0.012, 1.2, 0.08, te=0.003, inversion_time=0.01)
    start = 1 - 2 * np.exp(-0.01 / 1.2)
    steps = [(0.003, 0), (0.009, 1)]
    want = _bloch.bloch(flips, 0 * flips, steps, 1.2, 0.08, mz=start, dephasing=_bloch.turn_points(1024))
    assert got.dtype == np.float64
    assert abs(got - want).max() <= TOLERANCE[np.float64]


def test_off_resonance_only_turns_the_echo_where_tr_is_one_value(rng):
    """The short cut for one TR equals the general path, which one TR a pulse takes."""
    flips, phases = rng.uniform(0.1, 1.2, 15), rng.uniform(0, 6, 15)
    one = ssfp_fid(flips, 0.01, 0.8, 0.09, te=0.004, phases=phases, b0=33.0)
    many = ssfp_fid(flips, np.full(15, 0.01), 0.8, 0.09, te=np.full(15, 0.004), phases=phases, b0=33.0)
    assert abs(one - many).max() <= 1e-14


def test_t2_prime_is_a_spread_of_off_resonance(rng):
    """T2' equals isochromats that also differ in off-resonance, by their Lorentzian."""
    flips, phases = rng.uniform(0.1, 1.2, 6), rng.uniform(0, 6, 6)
    te, tr, t2_prime = 0.004, 0.01, 0.02
    spread = np.tan(np.pi * ((np.arange(4001) + 0.5) / 4001 - 0.5)) / (2 * np.pi * t2_prime)
    voxel = [ssfp_fid(flips, np.full(6, tr), 0.8, 0.09, te=te, phases=phases, b0=spread).mean(axis=0)]
    got = ssfp_fid(flips, tr, 0.8, 0.09, te=te, phases=phases, t2_prime=t2_prime)
    assert abs(got - voxel[0]).max() <= 1e-3
    assert abs(got - ssfp_fid(flips, tr, 0.8, 0.09, te=te, phases=phases) * np.exp(-te / t2_prime)).max() <= 1e-14


def test_diffusion_of_the_spoilers(rng):
    """Spoilers that last from echo to pulse damp every pathway as in the textbook EPG."""
    flips = rng.uniform(0.1, 1.2, 20)
    got = ssfp_fid(flips, 0.01, 0.8, 0.09, te=0.003, diffusivity=2e-9, spoiler_moment=8e4)
    steps = [(0.003, 0), (0.007, 1)]
    want = _bloch.epg(flips, 0 * flips, steps, 0.8, 0.09, diffusion=2e-9 * 8e4**2)
    assert abs(got - want).max() <= 1e-14


def test_a_tissues_effects_are_passed_on(rng):
    """M0, T2' and B1 act; real without a `b0`, under jit too."""
    flips = rng.uniform(0.1, 1.2, 10)
    tissue = Tissue(np.array([0.8, 1.2]), np.array([0.08, 0.1]), m0=1.5, b1=np.array([0.9, 1.0]), t2_prime=0.05)
    sequence = SSFPFID(flips, 0.012, 0.003, inversion_time=0.02, inversion_efficiency=0.95)
    plain = {"te": 0.003, "inversion_time": 0.02, "inversion_efficiency": 0.95}
    got = simulate(sequence, tissue)
    assert got.dtype == np.float64
    factor = 1.5 * np.exp(-0.003 / 0.05)
    alone = [
        factor * ssfp_fid(flips * b1, 0.012, t1, t2, **plain) for t1, t2, b1 in ((0.8, 0.08, 0.9), (1.2, 0.1, 1.0))
    ]
    want = np.array(alone)
    assert abs(got - want).max() <= 1e-15
    under_jit = jax.jit(simulate)(sequence, tissue)  # which effects act is static
    assert under_jit.dtype == np.float64
    assert abs(under_jit - want).max() <= 1e-15


def test_derivatives_in_every_mode(rng):
    """By every design variable and tissue parameter that the real path takes, one TR."""

    def signal(flips, tr, te, t1, t2, b1, inversion_time, inversion_efficiency, t2_prime):
        return ssfp_fid(
            flips, tr, t1, t2, te=te, b1=b1, inversion_time=inversion_time,
            inversion_efficiency=inversion_efficiency, t2_prime=t2_prime,
        )  # fmt: skip

    arguments = {
        "flips": rng.uniform(0.2, 2.0, 10), "tr": 0.012, "te": 0.003, "t1": np.array([0.8, 1.2]),
        "t2": np.array([0.09, 0.04]), "b1": 1.1, "inversion_time": 0.02, "inversion_efficiency": 0.95, "t2_prime": 0.05,
    }  # fmt: skip
    _bloch.check_derivatives(signal, arguments)


def test_gradients_do_not_depend_on_blocks_or_replay(rng, monkeypatch):
    """Blocks of tissues, replayed or not, give the gradient of all tissues at once."""
    flips, t2 = jnp.asarray(rng.uniform(0.1, 1.2, 20)), jnp.linspace(0.05, 0.2, 150)

    def gradient():
        return jax.jit(jax.grad(lambda f: (ssfp_fid(f, 0.012, 1.0, t2) ** 2).sum()))(flips)

    whole = gradient()
    monkeypatch.setattr("acqdesign.signal.engine.CACHE_BYTES", 1)
    blocks = gradient()
    monkeypatch.setattr("acqdesign.signal.engine.STORED_BYTES", 1)
    replayed = gradient()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr("acqdesign.signal.engine.DEVICE_BYTES", 1)
    on_gpu = gradient()
    assert abs(blocks - whole).max() <= 1e-13
    assert abs(replayed - whole).max() <= 1e-13
    assert abs(on_gpu - whole).max() <= 1e-13


def test_memory_on_a_gpu_does_not_grow_with_tissues(monkeypatch):
    """Tissues whose states would not fit go in blocks: ten times as many take no more but for their echoes."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr("acqdesign.signal.engine.DEVICE_BYTES", 1 << 22)
    flips = jnp.ones(64, jnp.float32)

    def memory(tissues):
        gradient = jax.grad(lambda f, t2: (ssfp_fid(f, 0.012, 1.0, t2) ** 2).sum())
        t2 = jax.ShapeDtypeStruct((tissues,), jnp.float32)
        program = jax.jit(gradient).lower(flips, t2).compile()
        return program.memory_analysis().temp_size_in_bytes - 2 * 4 * 64 * tissues

    assert memory(20_000) <= 1.2 * memory(2_000)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tr": 0.0}, "tr.*> 0"),
        ({"tr": np.full(3, 0.01)}, "tr.*each of the 4"),
        ({"te": 0.02}, "te: got 0.02 s with tr = 0.01 s.*Use te <= 0.01"),
        ({"te": -0.001}, "te.*>= 0"),
        ({"inversion_time": 0.0}, "inversion_time.*> 0"),
        ({"inversion_time": np.ones(2)}, "inversion_time.*one number"),
        ({"t2": 3.0}, "T2 <= 2 T1"),
        ({"t2_prime": -1.0}, "t2_prime.*> 0"),
        ({"t1": 1j}, "t1.*real"),
    ],
)
def test_bad_input_is_refused(change, words):
    """Times out of range, wrong lengths and half of a pair are errors that name the argument."""
    with pytest.raises(ValueError, match=words):
        ssfp_fid(**({"flips": np.ones(4), "tr": 0.01, "t1": 1.0, "t2": 0.1} | change))
