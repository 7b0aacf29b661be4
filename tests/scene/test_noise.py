"""Noise of coils from files: prewhitened coils tell of an image what the coils did, in white noise."""

import ismrmrd
import numpy as np
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.export import read_noise
from acqdesign.scene import birdcage_maps, load_noise, noise_covariance, prewhitened

from .test_maps import cfl

COILS, SHAPE = 3, (2, 4, 5)


@pytest.fixture(scope="module")
def mixed():
    """A covariance of coils that differ and share noise, in the units of some scanner, and samples of it."""
    rng = np.random.default_rng(5)
    mixing = 1e-6 * (np.eye(COILS) + 0.4 * (rng.normal(size=(COILS, COILS)) + 1j * rng.normal(size=(COILS, COILS))))
    white = rng.normal(size=(2, COILS, 60_000)) * np.sqrt(0.5)
    return mixing @ mixing.conj().T, mixing @ (white[0] + 1j * white[1])


def maps():
    return np.asarray(birdcage_maps(COILS, SHAPE, dtype=np.complex128))


def test_what_coils_tell_of_an_image_stays(mixed):
    """`Sᴴ Ψ⁻¹ S` in every voxel, of a covariance with a mean variance of one."""
    covariance, smaps = mixed[0], maps()
    white = np.asarray(prewhitened(smaps, covariance)).reshape(COILS, -1)
    scaled, flat = covariance * COILS / np.trace(covariance).real, smaps.reshape(COILS, -1)
    want = np.einsum("cr,cd,dr->r", flat.conj(), np.linalg.inv(scaled), flat)
    np.testing.assert_allclose((np.abs(white) ** 2).sum(0), want, rtol=1e-10)


def test_noise_that_is_white_already_changes_nothing():
    np.testing.assert_allclose(prewhitened(maps(), 4e-12 * np.eye(COILS)), maps(), rtol=1e-14)
    assert prewhitened(maps().astype(np.complex64), np.eye(COILS)).dtype == np.complex64


def test_noise_becomes_white_where_maps_do(mixed):
    """The same matrix on the samples: every virtual coil has a variance of one, and none shares any."""
    covariance = noise_covariance(mixed[1])
    np.testing.assert_allclose(covariance, np.cov(mixed[1]), rtol=1e-10)
    np.testing.assert_allclose(covariance, mixed[0], atol=0.02 * np.abs(mixed[0]).max())
    scaled = mixed[1] / np.sqrt(np.trace(covariance).real / COILS)
    virtual = np.asarray(prewhitened(scaled.reshape(COILS, 1, 1, -1), covariance)).reshape(COILS, -1)
    np.testing.assert_allclose(np.cov(virtual), np.eye(COILS), atol=1e-10)


@pytest.mark.parametrize("kind", ["samples.npy", "covariance.npy", "samples.cfl", "covariance.cfl", "scan.mrd"])
def test_every_file_gives_the_same_covariance(kind, mixed, tmp_path):
    covariance, samples = mixed[0], mixed[1][:, :600].astype(np.complex64)
    path, held = tmp_path / kind, samples if "covariance" not in kind else covariance.astype(np.complex64)
    if kind.endswith(".npy"):
        np.save(path, held)
    elif kind.startswith("samples"):
        cfl(path, np.moveaxis(held.reshape(COILS, 20, 30, 1), 0, -1))
    elif kind.startswith("covariance"):
        cfl(path, held.reshape(1, 1, 1, COILS, COILS))
    else:
        with ismrmrd.Dataset(str(path), "dataset", mode="w") as file:
            for n, part in enumerate(np.split(samples, 3, axis=1)):
                for data, noise in ((part, True), (100 * part[:, :64], False)):
                    one = ismrmrd.Acquisition.from_array(np.ascontiguousarray(data))
                    one.scan_counter = n
                    if noise:
                        one.setFlag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
                    file.append_acquisition(one)
    found = noise_covariance(read_noise(path)) if kind.endswith("mrd") else load_noise(path)
    want = covariance if "covariance" in kind else np.cov(samples)
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6 * np.abs(want).max())


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((600, 3), complex), r"shape \(600, 3\).*\(coils, samples\), more samples than coils. The coil axis"),
        (np.ones((3, 600)), "dtype float64, expected complex numbers"),
        (np.full((3, 600), np.nan + 0j), "1800 non-finite values"),
        (np.ones((3, 600), complex), "eigenvalues from 0 to 0, expected a positive definite"),
        (np.ones((3, 3)), "a positive definite one. Is a coil broken, or the same as another"),
        (np.triu(np.ones((3, 3))), "not Hermitian, expected a covariance"),
    ],
)
def test_what_is_no_noise_of_coils_is_told(array, message, tmp_path):
    np.save(tmp_path / "noise.npy", array)
    with pytest.raises(UsageError, match=rf"noise: .*noise.npy: got .*{message}"):
        load_noise(tmp_path / "noise.npy")


def test_other_endings_other_counts_and_no_noise_scan_are_told(tmp_path):
    with pytest.raises(UsageError, match=r"noise: got .*absent.mat, expected a file that ends in .npy"):
        load_noise(tmp_path / "absent.mat")
    with pytest.raises(UsageError, match="covariance: got of 2 coils, expected of 3, as many as there are maps"):
        prewhitened(maps(), np.eye(2))
    with ismrmrd.Dataset(str(tmp_path / "scan.mrd"), "dataset", mode="w") as file:
        file.append_acquisition(ismrmrd.Acquisition.from_array(np.ones((3, 8), np.complex64)))
    with pytest.raises(UsageError, match=r"mrd: got .*1 acquisitions, 0 of noise.*, expected noise scans"):
        read_noise(tmp_path / "scan.mrd")
