"""Maps of tissue parameters: what a dictionary and least squares find, and that their spread is that of the bound."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.recon import fit_tissue, match_dictionary
from acqdesign.scene import Tissue
from acqdesign.signal import FSE, InversionRecovery, tissue_bounds

TRAIN = FSE(np.linspace(1.0, 2.2, 16), 0.01)
VOXELS = 2000


def noisy(sequence, tissue, sigma, rng, count=VOXELS):
    """So many voxels of one tissue under complex noise."""
    clean = np.asarray(sequence.signal(tissue))
    return clean + sigma * (rng.standard_normal((count, clean.size)) + 1j * rng.standard_normal((count, clean.size)))


def test_the_dictionary_gives_back_its_own_atoms():
    """Whatever the size and phase of M0, which is found besides, in single precision."""
    t1, t2 = np.meshgrid([0.5, 1.0, 2.0], [0.04, 0.08, 0.15], indexing="ij")
    atoms = Tissue(t1.astype(np.float32), t2.astype(np.float32))
    sequence = InversionRecovery(np.float32(1.5), np.array([0.1, 0.5, 1.2], np.float32), te=0.02, tr=3.0)
    only = Tissue(t1[:, 0].astype(np.float32), np.float32(0.08))
    m0 = np.array([[2.0], [0.5j]], np.complex64)
    found = match_dictionary(sequence, m0[..., None] * sequence.signal(only), only)
    np.testing.assert_array_equal(found.t1, [only.t1, only.t1])
    np.testing.assert_allclose(found.m0, np.broadcast_to(m0, (2, 3)), rtol=1e-5)
    train = match_dictionary(TRAIN, 3j * TRAIN.signal(atoms), atoms)
    np.testing.assert_array_equal(train.t2, atoms.t2)
    assert train.shape == (3, 3)


def test_a_fine_dictionary_reaches_the_bound(rng):
    """Of T2, within the spread of 3000 voxels."""
    tissue, sigma = Tissue(1.0, 0.08), 0.01
    atoms = Tissue(1.0, np.geomspace(0.05, 0.12, 600))
    found = match_dictionary(TRAIN, noisy(TRAIN, tissue, sigma, rng), atoms)
    ratio = np.var(np.asarray(found.t2)) / tissue_bounds(TRAIN, tissue, ("t2",), noise=sigma)[0]
    assert abs(ratio - 1) <= 4 * np.sqrt(2 / VOXELS)


@pytest.mark.parametrize("names", [pytest.param(("t2",), marks=pytest.mark.slow), ("t2", "b1")])
def test_least_squares_reach_the_bound(names, rng):
    """With B1 known or fitted as well, from another start: no bias, the bound's variance, and as much is said of it."""
    pytest.importorskip("optimistix")
    tissue, sigma = Tissue(1.0, 0.08, m0=2.0 * np.exp(0.4j), b1=0.92), 0.008
    start = Tissue(1.0, 0.06, b1=0.92 if names == ("t2",) else 1.0)
    found, deviation = fit_tissue(TRAIN, noisy(TRAIN, tissue, sigma, rng), start, names, noise=sigma)
    bounds = np.asarray(tissue_bounds(TRAIN, tissue, names, noise=sigma))
    for name, bound in zip(names, bounds, strict=True):
        values = np.asarray(getattr(found, name))
        assert abs(values.mean() - float(getattr(tissue, name))) <= 5 * np.sqrt(bound / VOXELS) + 0.1 * np.sqrt(bound)
        assert abs(values.var() / bound - 1) <= 4 * np.sqrt(2 / VOXELS)
        np.testing.assert_allclose(np.mean(np.asarray(deviation[name])), np.sqrt(bound), rtol=0.02)


def test_noise_is_found_from_what_is_left(rng):
    """Its deviations are those of the noise that was put in; of any batch shape, within `jit`, from a dictionary."""
    pytest.importorskip("optimistix")
    tissue, sigma = Tissue(0.8, 0.08), 0.01
    sequence = InversionRecovery(1.5, np.geomspace(0.05, 2.0, 8), tr=3.0)
    samples = noisy(sequence, tissue, sigma, rng, 400).reshape(20, 20, 8)
    atoms = Tissue(np.geomspace(0.3, 2.0, 30), 0.08)

    @jax.jit
    def mapped(samples):
        return fit_tissue(sequence, samples, match_dictionary(sequence, samples, atoms), ("t1",))

    found, deviation = mapped(samples)
    assert found.shape == deviation["t1"].shape == (20, 20)
    bound = float(tissue_bounds(sequence, tissue, ("t1",), noise=sigma)[0])
    np.testing.assert_allclose(np.sqrt(np.mean(np.asarray(deviation["t1"]) ** 2)), np.sqrt(bound), rtol=0.05)
    assert abs(np.asarray(found.t1).mean() - 0.8) <= 5 * np.sqrt(bound / 400)


def test_empty_voxels_and_wrong_input(unchecked_types):
    """No signal is no error; samples that are not the sequence's are, and fields that a tissue has not."""
    atoms = Tissue(1.0, jnp.array([0.05, 0.1]))
    assert np.asarray(match_dictionary(TRAIN, np.zeros((2, 16)), atoms).m0).tolist() == [0, 0]
    for wrong in (np.zeros((2, 15)), np.float32(1.0)):
        with pytest.raises(UsageError, match=r"samples: got .*, expected shape \(\.\.\., 16\)"):
            match_dictionary(TRAIN, wrong, atoms)
    with pytest.raises(UsageError, match="names: got 't2_prime', expected one of t1, t2, b1"):
        fit_tissue(TRAIN, np.zeros((2, 16)), Tissue(1.0, 0.1), ("t2_prime",))
