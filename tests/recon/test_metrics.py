"""Metrics against their definitions in NumPy and against scikit-image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import normalized_root_mse, peak_signal_noise_ratio, structural_similarity

from acqdesign import recon

nrmse, psnr = (jax.jit(metric, static_argnames="dims") for metric in (recon.nrmse, recon.psnr))
ssim = jax.jit(recon.ssim)


@pytest.fixture
def pair(rng):
    """A batch of complex images and one truth, larger than the windows of the structural similarity."""
    truth = rng.random((3, 16, 13)) * np.exp(1j * rng.random((3, 16, 13)))
    image = truth + 0.1 * (rng.standard_normal((2, 3, 16, 13)) + 1j * rng.standard_normal((2, 3, 16, 13)))
    return image, truth


@pytest.mark.parametrize(("dtype", "tol"), [(np.complex64, 1e-6), (np.complex128, 1e-13)])
def test_nrmse_and_psnr_are_their_formulas(pair, dtype, tol):
    image, truth = pair
    found = nrmse(jnp.asarray(image, dtype), jnp.asarray(truth, dtype))
    assert found.dtype == np.finfo(dtype).dtype
    want = [np.linalg.norm(one - truth) / np.linalg.norm(truth) for one in image]
    np.testing.assert_allclose(found, want, rtol=10 * tol)
    decibels = psnr(jnp.asarray(image, dtype), jnp.asarray(truth, dtype))
    assert decibels.dtype == np.finfo(dtype).dtype
    top = np.abs(truth).max()
    want = [peak_signal_noise_ratio(np.abs(truth), np.abs(one), data_range=top) for one in image]
    np.testing.assert_allclose(decibels, want, rtol=10 * tol)


def test_nrmse_of_real_images_is_scikit_images(rng):
    truth, image = rng.random((2, 4, 5, 6))
    found = nrmse(jnp.asarray(image), jnp.asarray(truth))
    np.testing.assert_allclose(found, normalized_root_mse(truth, image), rtol=1e-12)


@pytest.mark.parametrize(("dtype", "tol"), [(np.complex64, 1e-5), (np.complex128, 1e-7)])
def test_ssim_is_scikit_images_plane_by_plane(pair, dtype, tol):
    """Gaussian windows of 11 voxels and sigma 1.5, whole windows only, range of the whole volume."""
    image, truth = pair
    top = np.abs(truth).max()
    how = {"data_range": top, "gaussian_weights": True, "use_sample_covariance": False}
    planes = [[structural_similarity(*np.abs(pair), **how) for pair in zip(truth, one, strict=True)] for one in image]
    want = np.mean(planes, axis=1)
    found = ssim(jnp.asarray(image, dtype), jnp.asarray(truth, dtype))
    assert found.dtype == np.finfo(dtype).dtype
    np.testing.assert_allclose(found, want, atol=tol)


@pytest.mark.parametrize(
    ("plane", "want"),
    [
        ((16, 13), (0.9417792820855688, 0.930076392822564)),
        ((8, 7), (0.9559800333099974, 0.9467270670738991)),
        ((6, 20), (0.9381618230271613, 0.9470622250850084)),
    ],
)
def test_ssim_is_what_dm_pix_gave(rng, plane, want):
    """Numbers of dm-pix 0.4.5, zero outside a head: windows of 11 voxels, and of 7 and 6 in smaller planes."""
    truth = rng.random((3, *plane)) * np.exp(1j * rng.random((3, *plane)))
    truth[:, :2] = 0
    noise = rng.standard_normal((2, 3, *plane)) + 1j * rng.standard_normal((2, 3, *plane))
    image = truth + 0.1 * noise
    image[:, :, :1] = 0
    np.testing.assert_allclose(ssim(jnp.asarray(image), jnp.asarray(truth)), want, rtol=1e-12)


def test_the_truth_is_perfect_and_scale_does_not_matter(pair):
    image, truth = map(jnp.asarray, pair)
    assert float(nrmse(truth, truth)) == 0
    assert float(psnr(truth, truth)) == np.inf
    np.testing.assert_allclose(ssim(truth, truth), 1, atol=1e-12)
    for metric in (nrmse, psnr, ssim):
        np.testing.assert_allclose(metric(7 * image, 7 * truth), metric(image, truth), rtol=1e-10)


def test_dims_say_what_one_image_is(rng):
    truth, image = rng.random((2, 5, 6, 4))
    planes = nrmse(jnp.asarray(image), jnp.asarray(truth), dims=2)
    want = [np.linalg.norm(x - t) / np.linalg.norm(t) for x, t in zip(image, truth, strict=True)]
    np.testing.assert_allclose(planes, want, rtol=1e-12)
    assert psnr(jnp.asarray(image), jnp.asarray(truth), dims=2).shape == (5,)


@pytest.mark.parametrize("metric", [nrmse, ssim])
@pytest.mark.parametrize("at_truth", [False, True])
def test_gradients_are_finite_where_magnitudes_vanish(metric, at_truth):
    """Images of the brain are zero outside it, and a fit may start at the truth."""
    truth = jnp.zeros((2, 12, 12), complex).at[:, 3:6, 4:9].set(1.0)
    image = truth if at_truth else truth * 1.1
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(metric(x, truth))))(image)
    assert bool(jnp.isfinite(gradient).all())
    assert bool((jnp.abs(gradient).max() > 1e-6) != at_truth)


@pytest.mark.parametrize("metric", [nrmse, psnr, ssim])
@pytest.mark.parametrize(
    ("image", "truth", "name"),
    [((4, 5, 6), (4, 5, 7), "image"), ((5, 6), (4, 5, 6), "image"), ((4, 5), (4, 5), "truth")],
)
def test_shapes_that_do_not_go_together_are_named(metric, image, truth, name):
    with pytest.raises(ValueError, match=f"{name}: got an array of shape"):
        metric(jnp.ones(image), jnp.ones(truth))


def test_a_plane_alone_is_told_how_to_say_so():
    with pytest.raises(ValueError, match="Say dims=2 where that is one image"):
        nrmse(np.ones((4, 5)), np.ones((4, 5)))
