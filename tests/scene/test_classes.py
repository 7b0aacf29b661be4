"""Tissue classes and their expansions over a transmit field and over T2."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.base.units import rad_from_deg
from acqdesign.scene import (
    TissueClasses,
    b1_map,
    load_brain,
    support,
    tissue_classes,
    tissues,
    with_b1_map,
    with_t2_spread,
)
from acqdesign.signal import fse

SHAPE = (1, 10, 8)


@pytest.fixture
def classes():
    return tissue_classes(load_brain(shape=SHAPE, contrast="maps"), tissues("gm,wm,csf", "3T"))


def test_maps_are_proton_densities(classes):
    fractions = load_brain(shape=SHAPE, contrast="maps")
    wanted = np.array([t.pd for t in tissues("gm,wm,csf", "3T")])[:, None, None, None] * fractions
    np.testing.assert_allclose(classes.maps, wanted, rtol=1e-6)


def test_spin_echo_sums_tissue_signals(classes):
    wanted = sum(
        np.exp(-0.08 / float(t2)) * np.asarray(rho) for t2, rho in zip(classes.t2, classes.maps, strict=True)
    )
    np.testing.assert_allclose(classes.spin_echo(0.08), wanted, rtol=1e-5)


def test_b1_expansion_interpolates_a_polynomial_exactly(classes):
    """With K nodes every polynomial of B1 of degree K - 1 is exact in every voxel."""
    field = np.asarray(b1_map(SHAPE), np.float64)
    double = TissueClasses(*(jnp.asarray(a, jnp.float64) for a in (classes.maps, classes.t1, classes.t2)))
    split = with_b1_map(double, field, nodes=5)
    assert split.maps.shape == (15, *SHAPE)
    polynomial = lambda b: 0.3 - b + 2 * b**3 - 0.7 * b**4  # noqa: E731
    found = jnp.einsum("c,cxyz->xyz", polynomial(split.b1), split.maps)
    np.testing.assert_allclose(found, polynomial(field) * double.maps.sum(0), atol=1e-12)


def test_b1_expansion_s_error_is_as_said(classes):
    """In the docstring: 96 echoes of 5 ms at 60°, fields of 0.8 to 1.2, every tissue."""
    field = np.linspace(0.8, 1.2, 41).reshape(1, 1, 41)
    ones = TissueClasses(jnp.ones((3, 1, 1, 41)), classes.t1, classes.t2)
    few, many = (with_b1_map(ones, field, nodes=nodes) for nodes in (5, 9))
    b1 = jnp.concatenate([field.ravel(), few.b1[:5], many.b1[:9]])
    echoes = fse(jnp.full(96, rad_from_deg(60.0)), 5e-3, ones.t1[:, None], ones.t2[:, None], b1=b1)
    wanted = echoes[:, :41]
    for split, at, error in ((few, echoes[:, 41:46], 4e-3), (many, echoes[:, 46:], 2e-3)):
        found = jnp.einsum("ckn,ckb->cbn", at, split.maps.reshape(3, -1, 41))
        assert error / 2 < float(jnp.abs(found - wanted).max()) < error


def test_uniform_field_only_scales(classes):
    split = with_b1_map(classes, np.full(SHAPE, 0.9))
    assert split.maps is classes.maps
    np.testing.assert_allclose(split.b1, 0.9, rtol=1e-6)


def test_t2_spread_keeps_density_and_moments(classes):
    """Gauss-Hermite: the density is kept, and the mean of ln T2 and its variance are exact."""
    split = with_t2_spread(classes, 0.1, nodes=3)
    np.testing.assert_allclose(split.maps.reshape(3, 3, *SHAPE).sum(1), classes.maps, rtol=1e-5)
    weights = np.asarray(split.maps.reshape(3, 3, -1).sum(-1) / classes.maps.reshape(3, -1).sum(-1)[:, None])
    logs = np.log(np.asarray(split.t2).reshape(3, 3) / np.asarray(classes.t2)[:, None])
    np.testing.assert_allclose((weights * logs).sum(1), 0, atol=1e-6)
    np.testing.assert_allclose((weights * logs**2).sum(1), 0.01, rtol=1e-4)


def test_support_is_what_has_density_and_its_neighbours_in_the_plane():
    """Faint voxels don't count, planes don't see each other, an image's border doesn't wrap, scale is arbitrary."""
    density = jnp.zeros((2, 6, 7)).at[0, 2, 3].set(5.0).at[0, 5, 0].set(0.3).at[0, 0, 6].set(0.2)
    found = np.asarray(support(density))
    wanted = np.zeros((2, 6, 7))
    wanted[0, 1:4, 2:5] = wanted[0, 4:, :2] = 1
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(support(1e-3 * density), found)
    assert not jax.grad(lambda d: jnp.sum(support(d)))(density).any()


def test_errors_name_the_argument(classes):
    with pytest.raises(ValueError, match="tissues: got 2, expected 3"):
        tissue_classes(classes.maps, tissues("gm,wm", "3T"))
    with pytest.raises(ValueError, match=r"b1: .*shape \(1, 10, 8\)"):
        with_b1_map(classes, np.ones((2, 2, 2)))
    with pytest.raises(ValueError, match=r"spread: .*below 2 T1"):
        with_t2_spread(classes, 2.0)
    with pytest.raises(ValueError, match=r"t2: .*one for each class"):
        TissueClasses(classes.maps, classes.t1, classes.t2[:1])
    with pytest.raises(ValueError, match=r"t2: got nan, expected values > 0"):
        TissueClasses(classes.maps, classes.t1, classes.t2.at[1].set(jnp.nan))
    with pytest.raises(ValueError, match=r"t2: got 0.0, expected values > 0"):
        TissueClasses(classes.maps, classes.t1, classes.t2.at[1].set(0))
