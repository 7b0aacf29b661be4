"""Laws of the packaged brain: volumes conserved on any grid, signals by equation, anatomy upright."""

import hashlib
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import acqdesign.scene as scene
from acqdesign.scene import load_brain, weighted_image
from acqdesign.scene.resample import box_resample, target_grid
from acqdesign.scene.tissue import tissue_properties

MILLILITRE = 1e-6

GRIDS = [(23, 28, 23), (90, 108, 90), (48, 48, 32), (17, 64, 31), (2, 3, 5), (80, 96, 80)]


def volumes_ml(maps, voxel_size):
    return np.asarray(maps, np.float64).sum(axis=(1, 2, 3)) * np.prod(voxel_size) / MILLILITRE


def test_volumes_are_those_of_the_templates():
    """Within the mask, at 1 mm; eight bits a voxel cost 2e-4."""
    got = volumes_ml(load_brain(contrast="maps"), (2e-3,) * 3)
    np.testing.assert_allclose(got, [996.75, 670.12, 220.64], rtol=5e-4)


@pytest.mark.parametrize("shape", GRIDS)
def test_resampling_to_a_shape_conserves_every_tissue(shape):
    voxel = [f / n for f, n in zip(scene.FOV, shape, strict=True)]
    want = volumes_ml(load_brain(contrast="maps"), (2e-3,) * 3)
    np.testing.assert_allclose(volumes_ml(load_brain(shape=shape, contrast="maps"), voxel), want, rtol=2e-7)


@pytest.mark.parametrize("voxel", [0.0033, 0.007, (0.002, 0.004, 0.01), (0.0111, 0.005, 0.003)])
def test_resampling_to_a_voxel_size_conserves_every_tissue(voxel):
    want = volumes_ml(load_brain(contrast="maps"), (2e-3,) * 3)
    got = volumes_ml(load_brain(voxel_size=voxel, contrast="maps"), np.broadcast_to(voxel, 3))
    np.testing.assert_allclose(got, want, rtol=2e-7)


@pytest.mark.parametrize("shape", [(23, 28, 23), (90, 108, 90), (1, 48, 48), (40, 50, 41)])
def test_maps_are_fractions(shape):
    maps = np.asarray(load_brain(shape=shape, contrast="maps"))
    assert maps.dtype == np.float32
    assert maps.shape == (3, *shape)
    assert maps.min() >= 0
    assert maps.sum(axis=0).max() <= 1 + 2e-6


def test_default_grid_is_the_stored_one():
    assert load_brain().shape == (80, 96, 80)
    assert load_brain().dtype == jnp.float32


@pytest.mark.parametrize("field", ["1.5T", "3T"])
def test_contrasts_follow_their_signal_equations(field):
    """A voxel of one tissue has exactly that tissue's signal over the brightest's."""
    pure = jnp.eye(3)[:, :, None, None]
    t = tissue_properties("gm,wm,csf", field).values()
    t1, t2, pd = (np.array([getattr(x, a) for x in t]) for a in ("t1", "t2", "pd"))
    e1 = np.exp(-0.02 / t1)
    want = {
        "T1w": pd * 0.5 * (1 - e1) / (1 - math.cos(math.pi / 6) * e1) * np.exp(-0.003 / t2),
        "T2w": pd * (1 - np.exp(-5 / t1)) * np.exp(-0.09 / t2),
        "PDw": pd * (1 - np.exp(-8 / t1)) * np.exp(-0.015 / t2),
    }
    for contrast, signal in want.items():
        got = np.asarray(weighted_image(pure, contrast, field))[:, 0, 0]
        np.testing.assert_allclose(got, signal / signal.max(), rtol=1e-12)


def test_contrasts_order_the_tissues_as_a_radiologist_expects():
    pure = jnp.eye(3)[:, :, None, None]
    gm, wm, csf = np.asarray(weighted_image(pure, "T1w"))[:, 0, 0]
    assert wm > gm > csf
    gm, wm, csf = np.asarray(weighted_image(pure, "T2w"))[:, 0, 0]
    assert csf > gm > wm
    gm, wm, csf = np.asarray(weighted_image(pure, "PDw"))[:, 0, 0]
    assert csf > gm > wm


def test_signals_are_summed_after_resampling_alike():
    """The image is linear in the maps: contrast and resampling commute."""
    maps = load_brain(shape=(23, 28, 23), contrast="maps")
    fine = np.asarray(load_brain(contrast="T2w"), np.float64)
    voxel = [f / n for f, n in zip(scene.FOV, (23, 28, 23), strict=True)]
    coarse = box_resample(fine, (23, 28, 23), voxel_in=(2e-3,) * 3, voxel_out=voxel)
    np.testing.assert_allclose(weighted_image(maps, "T2w"), coarse, atol=1e-6)


def test_axes_are_superior_posterior_left():
    """Known anatomy: symmetric about z; the spine's end is at the bottom; ventricles in the central plane."""
    gm, wm, csf = np.asarray(load_brain(contrast="maps"))
    np.testing.assert_array_equal(gm, gm[..., ::-1])
    bottom, top = (gm + wm)[1:6].sum(axis=0), (gm + wm)[-10:-4].sum(axis=0)
    assert np.count_nonzero(bottom > 1) < 0.2 * np.count_nonzero(top > 1)
    # The cerebellum and brain stem lie behind the middle; frontal lobes fill the front above them.
    y = np.arange(96)
    assert (gm + wm)[8:16].sum(axis=(0, 2)) @ y / (gm + wm)[8:16].sum() > 48
    # Lateral ventricles: fluid near the midline of the central plane, in front of its middle.
    plane = csf[40, 24:44, 32:48]
    assert plane.max() > 0.95


def test_one_plane_is_an_axial_slab_as_thick_as_its_pixels():
    shape = (1, 48, 48)
    maps = np.asarray(load_brain(shape=shape, contrast="maps"))
    thickness = (0.192 / 48 + 0.160 / 48) / 2
    full = np.asarray(load_brain(contrast="maps"), np.float64)
    # The slab reaches less than one stored plane to either side of the middle.
    assert thickness / 2 < 2e-3
    slab = full[:, 39:41].sum(axis=(1, 2, 3)) * thickness / 2 * 4e-6
    got = maps.astype(np.float64).sum(axis=(1, 2, 3)) * thickness * (0.192 / 48) * (0.160 / 48)
    np.testing.assert_allclose(got, slab, rtol=1e-6)


def test_shape_and_voxel_size_together_are_the_grid():
    """A larger field of view pads with zeros about the same centre."""
    small = np.asarray(load_brain(shape=(20, 24, 20), contrast="maps"))
    large = np.asarray(load_brain(shape=(24, 30, 22), voxel_size=0.008, contrast="maps"))
    np.testing.assert_allclose(large[:, 2:-2, 3:-3, 1:-1], small, atol=1e-6)
    assert not large[:, :2].any()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"contrast": "T3w"}, "contrast"),
        ({"field": "9T"}, "field"),
        ({"shape": (10, 10)}, "shape"),
        ({"shape": (0, 10, 10)}, "shape"),
        ({"voxel_size": -1e-3}, "voxel_size"),
        ({"voxel_size": float("nan")}, "voxel_size"),
        ({"voxel_size": (1e-3, 1e-3)}, "voxel_size"),
    ],
)
def test_bad_requests_are_refused_by_name(arguments, name):
    with pytest.raises(ValueError, match=name):
        load_brain(**arguments)


def test_box_resample_takes_means_over_boxes():
    """Against a hand count: 3 voxels to 2 with half of the middle one in each."""
    line = np.array([1.0, 4.0, 7.0]).reshape(3, 1, 1)
    got = box_resample(line, (2, 1, 1), voxel_in=(2.0, 1.0, 1.0), voxel_out=(3.0, 1.0, 1.0))
    np.testing.assert_allclose(got[:, 0, 0], [(2 * 1 + 4) / 3, (4 + 2 * 7) / 3], rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_box_resample_keeps_precision_and_constants(dtype):
    value = dtype(0.3 + (0.4j if np.issubdtype(dtype, np.complexfloating) else 0))
    cube = np.full((2, 7, 9, 5), value)
    got = box_resample(cube, (3, 4, 11), voxel_in=(1.0,) * 3, voxel_out=(7 / 3, 9 / 4, 5 / 11))
    assert got.dtype == dtype
    np.testing.assert_allclose(got, np.full((2, 3, 4, 11), value), rtol=4 * np.finfo(dtype).eps)


def test_box_resample_identity_is_exact(rng):
    cube = rng.standard_normal((5, 6, 7))
    got = box_resample(cube, (5, 6, 7), voxel_in=(1e-3,) * 3, voxel_out=(1e-3,) * 3)
    np.testing.assert_allclose(got, cube, rtol=1e-12)


def test_target_grid_keeps_the_field_of_view():
    assert target_grid((0.16, 0.192, 0.16), None, 2e-3) == ((80, 96, 80), (2e-3,) * 3)
    shape, voxel = target_grid((0.16, 0.192, 0.16), (23, 28, 23), None)
    np.testing.assert_allclose(np.multiply(shape, voxel), (0.16, 0.192, 0.16), rtol=1e-15)
    with pytest.raises(ValueError, match="shape"):
        target_grid((1.0,) * 3, None, None)


def test_licence_and_size_of_the_data():
    data = Path(scene.__file__).parent / "data"
    assert (data / "brain.npz").stat().st_size < 500e3
    text = (data / "LICENSE-MNI").read_text()
    assert "Copyright (C) 1993-2004 Louis Collins" in text
    assert "Fonov" in text
    with np.load(data / "brain.npz", allow_pickle=False) as npz:
        digest = hashlib.sha256(npz["left"].tobytes()).hexdigest()
    assert digest == "83b311fd5e1baa97b24147c0ad0962902ef55604c81b2298c5e3031a0162a464", (
        "the phantom changed: say so in the changelog"
    )
