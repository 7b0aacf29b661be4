"""A scene: maps of tissues, more classes for fields and spreads, coils, poses that are rigid, and mistakes by name."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.base.units import rad_from_deg
from acqdesign.scene import (
    FOV,
    Poses,
    Scene,
    Tissue,
    b1_map,
    birdcage_maps,
    brain,
    fine_shape,
    load_brain,
    load_scene,
    random_pose,
    tissues,
)
from acqdesign.scene.phantom import contrast_weights
from acqdesign.scene.scene import head_mask
from acqdesign.signal import FSE

SHAPE = (1, 10, 8)
KEY = jax.random.key(3)


@pytest.fixture
def scene():
    return brain(SHAPE)


def toy(dtype=np.float64, classes=2, anatomies=1, shape=(3, 4, 5), **options):
    """A scene of any form, its maps at random."""
    maps = np.random.default_rng(1).uniform(0.1, 1, (classes, anatomies, *shape)).astype(dtype) / classes
    tissue = Tissue(np.linspace(1, 2, classes), np.linspace(0.05, 0.1, classes), names=tuple("abcde"[:classes]))
    return Scene(jnp.asarray(maps), tissue, **options)


# Maps, density, images


def test_maps_are_volume_fractions_and_density_is_theirs_by_the_tissues_m0(scene):
    fractions = load_brain(shape=SHAPE, contrast="maps")
    np.testing.assert_array_equal(scene.maps[:, 0], fractions)
    np.testing.assert_allclose(scene.tissue.m0, tissues("gm,wm,csf").m0, rtol=1e-7)
    wanted = np.asarray(tissues("gm,wm,csf").m0)[:, None, None, None] * fractions
    np.testing.assert_allclose(scene.density()[0], wanted.sum(0), rtol=1e-6)
    assert scene.names == ("gm", "wm", "csf")
    assert scene.shape == SHAPE


def test_an_image_sums_what_each_tissue_shows(scene):
    """A spin echo at 80 ms, `Σ_c ρ_c exp(-te/T2_c)`; without being told, the scene's own contrast."""
    tissue = scene.tissue
    signals = jnp.exp(-0.08 / tissue.t2) * tissue.m0
    wanted = sum(float(s) * np.asarray(m) for s, m in zip(signals, scene.maps, strict=True))
    np.testing.assert_allclose(scene.image(signals), wanted, rtol=1e-5)
    np.testing.assert_allclose(scene.image()[0], load_brain(shape=SHAPE, contrast="T1w"), atol=1e-6)
    np.testing.assert_allclose(brain(SHAPE, contrast="T2w").contrast, contrast_weights("T2w"), rtol=1e-6)


def test_density_is_a_size_also_where_m0_carries_a_phase():
    maps = toy(classes=1).maps
    turned = Scene(maps, Tissue([1.0], [0.1], m0=[0.6 + 0.8j]))
    np.testing.assert_allclose(turned.density(), maps[0], rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.complex64, np.float64])
def test_images_are_a_scene_without_tissues(dtype):
    maps = jnp.asarray(toy().maps[:1], dtype) * (1 - 1j if dtype == np.complex64 else 1)
    images = Scene(maps)
    assert (images.tissue, images.ensemble, images.names) == (None, None, ())
    np.testing.assert_array_equal(images.image(), maps[0])
    np.testing.assert_allclose(images.density(), np.abs(maps[0]), rtol=1e-6)
    assert images.image().dtype == dtype
    assert images.support.dtype == np.abs(maps).dtype


def test_tissues_alone_are_a_scene_that_says_so_where_an_image_is_asked_for():
    alone = Scene(tissue=tissues("wm,gm"))
    assert alone.ensemble is alone.tissue
    for ask in (lambda: alone.shape, alone.image, alone.density, lambda: alone.every_plane(2)):
        with pytest.raises(UsageError, match=r"scene: got tissues alone, expected a scene with maps.*brain\(shape\)"):
            ask()


def test_support_is_what_has_density_and_its_neighbours_in_the_plane():
    """Faint voxels don't count, planes don't see each other, an image's border doesn't wrap, scale is arbitrary."""
    density = jnp.zeros((2, 6, 7)).at[0, 2, 3].set(5.0).at[0, 5, 0].set(0.3).at[0, 0, 6].set(0.2)
    found = np.asarray(head_mask(density))
    wanted = np.zeros((2, 6, 7))
    wanted[0, 1:4, 2:5] = wanted[0, 4:, :2] = 1
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(head_mask(1e-3 * density), found)
    assert not jax.grad(lambda d: jnp.sum(head_mask(d)))(density).any()


def test_a_scene_s_support_is_that_of_its_density(scene):
    np.testing.assert_array_equal(scene.support, head_mask(scene.density()))


def test_precision_changes_as_a_whole():
    scene = toy(smaps=birdcage_maps(2, (3, 4, 5))).astype(jnp.float32)
    kinds = {leaf.dtype for leaf in jax.tree.leaves(scene)}
    assert kinds == {jnp.dtype("float32"), jnp.dtype("complex64")}
    assert scene.smaps.dtype == jnp.complex64


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_packaged_brain_comes_in_either_precision(dtype):
    scene = brain(SHAPE, coils=2, dtype=dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves((scene.maps, scene.tissue.t1, scene.contrast))} == {np.dtype(dtype)}
    assert scene.smaps.dtype == np.result_type(dtype, np.complex64)
    assert scene.smaps.shape == (2, *SHAPE)


def test_the_field_of_view_is_the_phantom_s_own_or_the_one_asked_for():
    assert brain((8, 8, 8)).fov == FOV
    np.testing.assert_allclose(brain((8, 8, 8)).voxel_size(), np.array(FOV) / 8)
    asked = brain((8, 8, 8), fov=(0.2, 0.3, 0.4))
    np.testing.assert_allclose(asked.voxel_size(), [0.025, 0.0375, 0.05])
    wanted = load_brain(shape=(8, 8, 8), voxel_size=(0.025, 0.0375, 0.05), contrast="maps")
    np.testing.assert_array_equal(asked.maps[:, 0], wanted)
    assert toy().voxel_size() == (1.0, 1.0, 1.0)


# Labels


def test_a_label_is_where_a_tissue_fills_half_a_voxel(scene):
    for n, name in enumerate(scene.names):
        np.testing.assert_array_equal(scene.label(name), scene.maps[n] >= 0.5)
    assert scene.label("csf").dtype == bool


def test_labels_sum_over_the_classes_of_a_tissue(scene):
    """Each class alone fills less than half."""
    several = scene.with_t2_spread(0.1).with_b1_map(b1_map(SHAPE))
    assert len(several.maps) == 45
    assert several.names == scene.names
    certain = np.abs(np.asarray(scene.maps[1]) - 0.5) > 1e-3
    np.testing.assert_array_equal(several.label("wm")[certain], scene.label("wm")[certain])


# More classes


def test_b1_expansion_interpolates_a_polynomial_exactly(scene):
    """With K nodes every polynomial of B1 of degree K - 1 is exact in every voxel."""
    field = np.asarray(b1_map(SHAPE), np.float64)
    double = scene.astype(jnp.float64)
    several = double.with_b1_map(field, nodes=5)
    assert several.maps.shape == (15, 1, *SHAPE)
    assert several.tissue.names == ("gm",) * 5 + ("wm",) * 5 + ("csf",) * 5
    polynomial = lambda b: 0.3 - b + 2 * b**3 - 0.7 * b**4  # noqa: E731
    found = several.image(polynomial(several.tissue.b1))
    np.testing.assert_allclose(found, polynomial(field) * double.maps.sum(0), atol=1e-12)


def test_b1_expansion_s_error_is_as_said(scene):
    """In the docstring: 96 echoes of 5 ms at 60°, fields of 0.8 to 1.2, every tissue."""
    field = np.linspace(0.8, 1.2, 41).reshape(1, 1, 41)
    tissue = eqx.tree_at(lambda t: t.m0, scene.tissue.astype(jnp.float64), jnp.ones(3))
    ones = Scene(jnp.ones((3, 1, 1, 1, 41)), tissue)
    few, many = (ones.with_b1_map(field, nodes=nodes) for nodes in (5, 9))
    b1 = jnp.concatenate([field.ravel(), few.tissue.b1[:5], many.tissue.b1[:9]])
    train = FSE(jnp.full(96, rad_from_deg(60.0)), 5e-3)
    echoes = train.signal(Tissue(tissue.t1[:, None], tissue.t2[:, None], b1=b1))
    wanted = echoes[:, :41]
    for several, at, error in ((few, echoes[:, 41:46], 4e-3), (many, echoes[:, 46:], 2e-3)):
        found = jnp.einsum("ckn,ckb->cbn", at, several.maps.reshape(3, -1, 41))
        assert error / 2 < float(jnp.abs(found - wanted).max()) < error


def test_uniform_field_only_scales(scene):
    several = scene.with_b1_map(np.full(SHAPE, 0.9))
    np.testing.assert_array_equal(several.maps, scene.maps)
    np.testing.assert_allclose(several.tissue.b1, np.full(3, 0.9), rtol=1e-6)


def test_a_field_multiplies_that_of_the_tissues():
    scene = Scene(toy().maps, Tissue([1.0, 2.0], [0.1, 0.1], b1=[0.5, 2.0]))
    several = scene.with_b1_map(np.full((3, 4, 5), 1.1))
    np.testing.assert_allclose(several.tissue.b1, [0.55, 2.2], rtol=1e-12)


def test_t2_spread_keeps_density_and_moments(scene):
    """Gauss-Hermite: the density is kept, and the mean of ln T2 and its variance are exact."""
    several = scene.with_t2_spread(0.1, nodes=3)
    maps = several.maps.reshape(3, 3, *SHAPE)
    np.testing.assert_allclose(maps.sum(1), scene.maps[:, 0], rtol=1e-5)
    np.testing.assert_allclose(several.density(), scene.density(), rtol=1e-5)
    weights = np.asarray(maps.reshape(3, 3, -1).sum(-1) / scene.maps.reshape(3, -1).sum(-1)[:, None])
    logs = np.log(np.asarray(several.tissue.t2).reshape(3, 3) / np.asarray(scene.tissue.t2)[:, None])
    np.testing.assert_allclose((weights * logs).sum(1), 0, atol=1e-6)
    np.testing.assert_allclose((weights * logs**2).sum(1), 0.01, rtol=1e-4)


def test_what_a_scene_shows_and_its_coils_stay_with_more_classes():
    scene = toy(contrast=np.array([0.3, 0.8]), smaps=birdcage_maps(2, (3, 4, 5), dtype=complex), fov=(0.1, 0.1, 0.2))
    for several in (scene.with_b1_map(b1_map((3, 4, 5))), scene.with_t2_spread(0.1)):
        np.testing.assert_allclose(several.image(), scene.image(), rtol=1e-6)
        np.testing.assert_array_equal(several.support, scene.support)
        np.testing.assert_array_equal(several.smaps, scene.smaps)
        assert several.fov == scene.fov
        assert several.ensemble.shape == several.tissue.shape


def test_an_ensemble_of_one_s_own_stays():
    """Bounds go on running over what they were told to run over."""
    own = Tissue(jnp.linspace(1, 2, 7), 0.08)
    scene = toy(ensemble=own)
    lesion = Tissue(1.3, 0.2)
    others = (
        scene, scene.with_b1_map(b1_map((3, 4, 5))), scene.with_t2_spread(0.1), scene.every_plane(2),
        scene.with_class("lesion", np.zeros((3, 4, 5)), lesion), scene.sample(KEY),
    )  # fmt: skip
    assert [other.ensemble.shape for other in others] == 6 * [(7,)]
    assert toy().with_class("lesion", np.zeros((3, 4, 5)), lesion).ensemble.shape == (3,)


def test_one_more_tissue_takes_the_place_of_the_others(scene):
    mask = np.zeros(SHAPE)
    mask[0, 4:6, 3:5] = 0.75
    more = scene.with_class("lesion", mask, Tissue(1.4, 0.12, 0.9), contrast=0.2)
    assert more.tissue.names == ("gm", "wm", "csf", "lesion")
    assert more.tissue.shape == (4,)
    np.testing.assert_allclose(more.maps[3, 0], mask, rtol=1e-6)
    np.testing.assert_allclose(more.maps[:3], scene.maps * (1 - mask), rtol=1e-5)
    np.testing.assert_allclose([more.tissue.t1[3], more.tissue.t2[3], more.tissue.m0[3]], [1.4, 0.12, 0.9], rtol=1e-6)
    np.testing.assert_array_equal(more.label("lesion")[0], mask > 0)
    np.testing.assert_allclose(more.image(), scene.image() * (1 - mask) + 0.2 * mask, atol=1e-6)
    assert more.fov == scene.fov
    assert {leaf.dtype for leaf in jax.tree.leaves(more)} == {jnp.dtype("float32")}
    turned = scene.with_class("lesion", mask, Tissue(1.4, 0.12, 0.9j))
    assert turned.tissue.m0.dtype == jnp.complex64


def test_one_more_tissue_may_lie_elsewhere_in_each_anatomy():
    scene = toy(anatomies=2)
    masks = np.stack([np.eye(4, 5)[None].repeat(3, 0), np.zeros((3, 4, 5))])
    more = scene.with_class("x", masks, Tissue(1.0, 0.1))
    np.testing.assert_array_equal(more.label("x"), masks > 0)
    np.testing.assert_array_equal(more.maps[:2, 1], scene.maps[:, 1])


def test_one_more_tissue_among_some_without_names():
    scene = Scene(toy().maps, Tissue([1.0, 2.0], [0.1, 0.1]))
    mask = np.zeros((3, 4, 5))
    mask[0] = 1
    np.testing.assert_array_equal(scene.with_class("x", mask, Tissue(1.0, 0.1)).label("x")[0], mask > 0)


# Poses


def ball(shape, fov, axes=(1.0, 1.0, 1.0)):
    """A soft ellipsoid about the middle, its half axes in units of a sixth of the field of view."""
    grid = np.meshgrid(*((np.arange(n) - (n - 1) / 2) * f / n for n, f in zip(shape, fov, strict=True)), indexing="ij")
    radius = np.sqrt(sum((x / (a * min(fov) / 6)) ** 2 for x, a in zip(grid, axes, strict=True)))
    return np.clip((1.3 - radius) / 0.6, 0, 1)


def moments(image, voxel):
    """The matrix of second moments of an image about its centre [m²]."""
    places = np.stack(
        np.meshgrid(*(np.arange(n) * v for n, v in zip(image.shape, voxel, strict=True)), indexing="ij")
    ).reshape(3, -1)
    weights = np.asarray(image, float).ravel() / float(image.sum())
    centred = places - (places @ weights)[:, None]
    return (centred * weights) @ centred.T


SIZES = [((16, 32, 48), (0.2, 0.2, 0.2)), ((32, 32, 32), (0.4, 0.2, 0.3))]


@pytest.mark.parametrize(
    ("shape", "fov", "axes"), [(*SIZES[0], (1.0, 1.0, 1.0)), *((*size, (1.5, 1.0, 0.7)) for size in SIZES)]
)
def test_poses_are_rigid_in_metres_whatever_the_voxel(shape, fov, axes, tmp_path):
    """A ball stays a ball, an ellipsoid keeps its proportions: second moments in metres, up to one common scale."""
    fine = ball([2 * n for n in shape], fov, axes).astype(np.float32)
    np.savez(tmp_path / "ball.npz", gm=fine, wm=0 * fine, csf=0 * fine)
    scene = load_scene(str(tmp_path / "ball.npz"), shape=shape, fov=fov, augment=True)
    np.testing.assert_allclose(scene.voxel_size(), np.array(fov) / shape)
    wanted = np.linalg.eigvalsh(moments(scene.maps[0, 0], scene.voxel_size()))
    sample = jax.jit(lambda key: scene.sample(key).maps[0, 0])
    moved = []
    for key in jax.random.split(KEY, 3):
        turned = sample(key)
        after = np.linalg.eigvalsh(moments(turned, scene.voxel_size()))
        scale = after.sum() / wanted.sum()
        assert 0.94**2 < scale < 1.06**2
        # Linear interpolation adds up to a quarter of a squared voxel of the fine grid to each moment.
        np.testing.assert_allclose(after / scale, wanted, atol=0.25 * (max(scene.voxel_size()) / 2) ** 2)
        moved.append(np.abs(np.asarray(turned - scene.maps[0, 0])).max())
    # A ball that turns is seen by its scale alone.
    assert max(moved) > (0.02 if len(set(axes)) == 1 else 0.1)


def test_a_sample_is_of_the_same_structure_in_another_pose():
    scene = brain((6, 8, 6), augment=True, coils=2)
    sample = eqx.filter_jit(scene.sample)
    one, other = (sample(jax.random.key(n)) for n in (1, 2))
    assert jax.tree.structure(one) == jax.tree.structure(scene)
    assert [x.shape for x in jax.tree.leaves(one)] == [x.shape for x in jax.tree.leaves(scene)]
    assert np.abs(one.maps - other.maps).max() > 0.05
    np.testing.assert_array_equal(one.support, head_mask(one.density()))
    np.testing.assert_array_equal(one.smaps, scene.smaps)
    assert float(one.maps.min()) >= 0
    assert float(one.maps.sum(0).max()) <= 1 + 1e-5
    np.testing.assert_array_equal(sample(jax.random.key(1)).maps, one.maps)


def test_a_scene_without_poses_samples_itself(scene):
    assert scene.sample(KEY) is scene
    moving = brain((6, 8, 6), augment=True)
    still = moving.fixed()
    assert still.sample(KEY) is still
    np.testing.assert_array_equal(still.maps, moving.maps)
    np.testing.assert_array_equal(moving.maps, brain((6, 8, 6)).maps)


def test_every_anatomy_turns_by_itself_and_its_tissues_together():
    shape = (4, 6, 5)
    fine = np.random.default_rng(0).uniform(0, 1, (2, 3, *fine_shape(shape)))
    found = eqx.filter_jit(Poses(jnp.asarray(fine), jnp.ones((2, *shape)), (1.0, 2.0, 1.0)))(KEY)
    alone = jax.jit(lambda fine, key: random_pose(fine, key, shape, voxel_size=(1.0, 2.0, 1.0)))
    keys = jax.random.split(KEY, 3)
    for n in range(3):
        wanted = alone(jnp.asarray(fine[:, n]), keys[n])
        np.testing.assert_allclose(found[:, n], wanted, atol=1e-12)


def test_a_field_stays_where_it_is_while_heads_turn(scene):
    """Each class has its share of the turned tissue: shares of one tissue sum to one."""
    shape = (6, 8, 6)
    moving = brain(shape, augment=True, dtype=np.float64)
    several = moving.with_b1_map(b1_map(shape), nodes=3)
    one, alone = (eqx.filter_jit(s.sample)(KEY) for s in (several, moving))
    np.testing.assert_allclose(one.maps.reshape(3, 3, 1, *shape).sum(1), alone.maps, atol=1e-9)
    field = np.asarray(b1_map(shape), float)
    np.testing.assert_allclose(one.image(one.tissue.b1), field * np.asarray(alone.maps.sum(0)), atol=1e-9)


def test_a_scene_in_other_poses_is_of_the_same_form_for_judging():
    scene = brain((6, 8, 6), coils=2, contrast="T2w")
    one, other = (scene.reposed(jax.random.key(n)) for n in (1, 2))
    assert one.maps.shape == scene.maps.shape
    assert np.abs(one.maps - scene.maps).max() > 0.05
    assert np.abs(one.maps - other.maps).max() > 0.05
    np.testing.assert_array_equal(one.contrast, scene.contrast)
    np.testing.assert_array_equal(one.smaps, scene.smaps)
    assert (one.fov, one.names, one.poses, one.reposed) == (scene.fov, scene.names, None, None)
    np.testing.assert_array_equal(one.support, head_mask(one.density()))


def test_a_scene_in_other_poses_has_the_same_expansions():
    scene = brain((6, 8, 6), dtype=np.float64)
    field = b1_map((6, 8, 6))
    several = scene.with_b1_map(field, nodes=3).with_t2_spread(0.1)
    judged = several.reposed(KEY)
    wanted = scene.reposed(KEY).with_b1_map(field, nodes=3).with_t2_spread(0.1)
    np.testing.assert_allclose(judged.maps, wanted.maps, atol=1e-12)
    np.testing.assert_allclose(judged.tissue.t2, several.tissue.t2, rtol=1e-12)
    np.testing.assert_allclose(judged.tissue.b1, several.tissue.b1, rtol=1e-12)


def test_several_poses_of_several_phantoms(tmp_path):
    """Each phantom is an anatomy, and so is each of its poses."""
    shape = (4, 6, 5)
    maps = np.asarray(load_brain(shape=(8, 12, 10), contrast="maps"))
    np.savez(tmp_path / "a.npz", gm=maps[0], wm=maps[1], csf=maps[2])
    both = ("brain", str(tmp_path / "a.npz"))
    assert load_scene(*both, shape=shape).maps.shape == (3, 2, *shape)
    posed = load_scene(*both, shape=shape, key=KEY, each=3)
    assert posed.maps.shape == (3, 6, *shape)
    np.testing.assert_array_equal(load_scene(*both, shape=shape, each=3).reposed(KEY).maps, posed.maps)
    with pytest.raises(UsageError, match="tissues: got 2, expected 3, one for each map"):
        load_scene(*both, shape=shape, tissue_names=("gm", "wm"))
    images = load_scene(*both, shape=shape, tissue_names=None, contrast="T2w")
    assert images.maps.shape == (1, 2, *shape)
    assert images.tissue is None


# Fewer planes


def test_every_so_many_planes_are_a_scene_of_their_own():
    scene = toy(shape=(6, 4, 5), smaps=birdcage_maps(2, (6, 4, 5), dtype=complex), contrast=np.array([0.2, 0.9]))
    thin = scene.every_plane(3)
    assert thin.shape == (2, 4, 5)
    np.testing.assert_array_equal(thin.image(), scene.image()[:, ::3])
    np.testing.assert_array_equal(thin.smaps, scene.smaps[:, ::3])
    np.testing.assert_array_equal(thin.support, scene.support[:, ::3])
    assert thin.every_plane(1).shape == thin.shape


def test_every_so_many_planes_of_a_scene_with_poses_stay_as_they_are():
    """Poses are of all planes."""
    thin = brain((6, 8, 6), augment=True, coils=2).every_plane(2)
    assert thin.sample(KEY).maps.shape == (3, 1, 3, 8, 6)
    assert (thin.poses, thin.reposed) == (None, None)


# Mistakes


MAPS = jnp.ones((2, 1, 3, 4, 5)) / 2


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Scene(), "maps: got neither maps nor a tissue"),
        (lambda: Scene(MAPS[0]), r"maps: got an array of shape \(1, 3, 4, 5\).*\(classes, anatomies, nx, ny, nz\)"),
        (lambda: Scene(jnp.ones((2, 1, 3, 4, 5), int)), "maps: got .*int64.*a floating array"),
        (lambda: Scene([1.0, 2.0]), "maps: got"),
        (lambda: Scene(MAPS.at[0].set(jnp.nan)), "maps: got 60 non-finite values"),
        (lambda: Scene(MAPS, tissues("wm")), r"tissue: got of shape \(1,\), expected \(2,\), one for each map"),
        (lambda: Scene(MAPS, Tissue(1.0, 0.1)), r"tissue: got of shape \(\), expected \(2,\)"),
        (lambda: Scene(MAPS, contrast=[1.0]), r"contrast: got .*shape \(2,\), one number for each map"),
        (lambda: Scene(MAPS, fov=(0.1, 0.1)), "fov: got .*three lengths"),
        (lambda: Scene(MAPS, fov=(0.1, 0.1, 0.0)), "fov: got 0.0, expected values > 0"),
    ],
)
def test_what_does_not_go_together_is_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.with_b1_map(np.ones((2, 2, 2))), r"b1: .*shape \(3, 4, 5\)"),
        (lambda s: s.with_b1_map(np.ones((3, 4, 5), complex)), "b1: got .*complex128.*real numbers"),
        (lambda s: s.with_b1_map(np.zeros((3, 4, 5))), "b1: got 0.0, expected values > 0"),
        (lambda s: s.with_b1_map(np.full((3, 4, 5), np.inf)), "b1: got inf"),
        (lambda s: s.with_b1_map(np.ones((3, 4, 5)), nodes=1), "nodes: got 1"),
        (lambda s: s.with_t2_spread(3.0), r"spread: .*below 2 T1"),
        (lambda s: s.with_t2_spread(0.0), "spread: got 0.0"),
        (lambda s: s.with_t2_spread(0.1, nodes=0), "nodes: got 0"),
        (lambda s: s.every_plane(0), "step: got 0"),
        (lambda s: s.label("fat"), "label: got 'fat', expected one of a, b"),
        (lambda s: s.with_class("x", np.ones((4, 5)), Tissue(1.0, 0.1)), r"mask: got .*\(4, 5\).*\(3, 4, 5\)"),
        (lambda s: s.with_class("x", np.ones((3, 4, 5)), tissues("wm")), r"tissue: got of shape \(1,\).*shape \(\)"),
        (lambda s: s.with_class("x", np.ones((3, 4, 5)), Tissue(1.0, 0.1, b0=2.0)), "tissue: b0: got given for some"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(UsageError, match=message):
        call(toy())


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.with_b1_map(np.full((3, 4, 5), 0.9)),
        lambda s: s.with_t2_spread(0.1),
        lambda s: s.with_class("x", np.zeros((3, 4, 5)), Tissue(1.0, 0.1)),
    ],
)
def test_images_have_no_tissues_to_spread(call):
    with pytest.raises(UsageError, match="scene: got images alone, expected a scene of tissues"):
        call(Scene(MAPS))
    with pytest.raises(UsageError, match="label: got 'gm', expected one of none: images have no tissues"):
        Scene(MAPS).label("gm")


def test_a_scene_is_made_of_traced_maps_too():
    """Nothing can be said of their values: a derivative by the maps goes through the making of a scene."""
    gradient = jax.grad(lambda maps: jnp.sum(Scene(maps, toy().tissue).density()))(MAPS)
    np.testing.assert_array_equal(gradient, np.ones(MAPS.shape))
