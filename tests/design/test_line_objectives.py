"""Laws of the objectives of lines: each equals its plain formula, and its gradient is that of its own value."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from acqdesign.design.line_objectives import (
    DENSITIES,
    AdjointObjective,
    IterativeObjective,
    line_density,
    line_psf,
)
from acqdesign.encoding import StraightLineEncoding, initial_lines, pipe_density
from acqdesign.optim import fit
from acqdesign.recon import cg_sense, nrmse, ssim
from acqdesign.scene import birdcage_maps, fine_shape, load_brain, posed

SHAPE = (5, 8, 7)
KEY = jax.random.key(3)
REFERENCE = (23, 28, 23)


def brains(rng, *, shape=SHAPE, count=2, dtype=np.float64):
    """Brains of different contrast; complex dtypes get a phase that varies over the head."""
    images = jnp.stack([load_brain(shape=shape, contrast=c) for c in ("T1w", "T2w", "PDw")[:count]])
    if np.dtype(dtype).kind == "c":
        images = images * np.exp(1j * rng.uniform(-1, 1, shape))
    return images.astype(dtype)


def lines(rng, count=20):
    return jnp.asarray(rng.uniform(-0.5, 0.5, (count, 2)))


def template(*, shape=SHAPE, samples=9, coils=1, dtype=np.float64, backend="auto", inclusive=False):
    smaps = None if coils == 1 else birdcage_maps(coils, shape, dtype=np.result_type(dtype, np.complex64))
    readout = jnp.linspace(-0.5, 0.5, samples, dtype=dtype) if inclusive else None
    return StraightLineEncoding(
        jnp.zeros((1, 2), dtype), shape, samples, readout=readout, smaps=smaps, backend=backend
    )


@eqx.filter_jit
def evaluate(objective, points, key=KEY):
    """Loss, terms and gradient."""
    (loss, terms), slope = jax.value_and_grad(lambda p: objective({"points": p}, key), has_aux=True)(points)
    return loss, terms, slope


@eqx.filter_jit
def value(objective, points, key=KEY):
    return objective({"points": points}, key)[0]


@eqx.filter_jit
def differences(objective, points, moves):
    """Central differences of the loss."""

    def difference(move):
        high, low = (objective({"points": points + s * move}, KEY)[0] for s in (1, -1))
        return (high - low) / 2

    return jax.lax.map(difference, moves)


def check_gradient(objective, points, entries=None, step=1e-5):
    """Its entries, all or some, are along those of central differences and as long."""
    entries = np.arange(points.size) if entries is None else entries
    moves = step * np.eye(points.size)[entries].reshape(-1, *points.shape)
    want = np.asarray(differences(objective, points, jnp.asarray(moves))) / step
    found = np.asarray(evaluate(objective, points)[2]).ravel()[entries]
    assert found @ want / (np.linalg.norm(found) * np.linalg.norm(want)) > 0.99999
    np.testing.assert_allclose(np.linalg.norm(found), np.linalg.norm(want), rtol=1e-5)


@eqx.filter_jit
def plain_adjoint(encoding, points, images, density):
    """`Aᴴ (D ⊗ w) A f` through the operator's forward and adjoint."""
    moved = eqx.tree_at(lambda e: e.points, encoding, points)
    weights = line_density(density, points, moved.shape)
    along = pipe_density(moved.readout[:, None], moved.shape[:1], 10)
    return moved.adjoint(moved.forward(images), weights, along)


def plain_adjoint_loss(encoding, points, images, density):
    """The formula."""
    found = np.abs(plain_adjoint(encoding, points, images, density))
    truth = np.abs(np.asarray(images))
    ours, theirs = (a / a.mean((1, 2, 3), keepdims=True) for a in (found, truth))
    return np.mean((ours - theirs) ** 2)


@pytest.mark.parametrize(
    ("density", "coils", "dtype", "inclusive", "backend"),
    [
        ("pipe", 1, np.float64, True, "auto"),
        ("pipe", 3, np.complex128, False, "finufft"),
        ("least-squares", 1, np.complex128, True, "dft"),
    ],
)
def test_adjoint_loss_is_its_formula(rng, density, coils, dtype, inclusive, backend):
    """Whatever the density, coils, readout and backend; for real and complex images."""
    encoding = template(coils=coils, inclusive=inclusive, backend=backend)
    images, points = brains(rng, dtype=dtype), lines(rng)
    found = value(AdjointObjective(encoding, images, density=density), points)
    want = plain_adjoint_loss(encoding, points, images, density)
    np.testing.assert_allclose(found, want, rtol=1e-10 if backend != "finufft" else 1e-9)


def test_adjoint_reconstruction_is_the_operators(rng):
    """Also of images that are not among those learned on."""
    encoding, images, points = template(coils=2), brains(rng, dtype=np.complex128), lines(rng)
    objective = AdjointObjective(encoding, images[1:])
    found = eqx.filter_jit(lambda o, p, i: o.reconstruct(p, i, KEY))(objective, points, images[:1])
    want = plain_adjoint(encoding, points, images[:1], "pipe")
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [REFERENCE, (12, 14, 10)])
def test_reference_loss_has_its_own_gradient(shape):
    """The recipe's whole loss, density recomputed and differentiated, at its own shape and an even one."""
    count = 253 if shape == REFERENCE else 60
    start = initial_lines("reference", shape, key=jax.random.key(0), lines=count)
    images = load_brain(shape=shape)[None].astype(jnp.float64)
    objective = AdjointObjective(template(shape=shape, samples=128, inclusive=True), images, density="pipe")
    points = start.points.astype(jnp.float64)
    check_gradient(objective, points, np.random.default_rng(1).choice(points.size, 48, replace=False))


@pytest.mark.slow
def test_reference_loss_has_its_own_gradient_in_every_entry():
    start = initial_lines("reference", REFERENCE, key=jax.random.key(0), lines=253)
    images = load_brain(shape=REFERENCE)[None].astype(jnp.float64)
    encoding = template(shape=REFERENCE, samples=128, inclusive=True)
    objective = AdjointObjective(encoding, images, density="pipe")
    points = start.points.astype(jnp.float64)
    check_gradient(objective, points)


OBJECTIVES = {
    "adjoint": lambda encoding, images, **more: AdjointObjective(encoding, images, **more),
    "nrmse": lambda encoding, images, **more: IterativeObjective(encoding, images, iterations=3, **more),
    "ssim": lambda encoding, images, **more: IterativeObjective(
        encoding, images, metric="ssim", iterations=3, noise=0.01, **more
    ),
}


@pytest.mark.parametrize("name", ["adjoint", "nrmse", pytest.param("ssim", marks=pytest.mark.slow)])
def test_gradients_are_those_of_central_differences(rng, name):
    """With coils, complex images and noise, in every entry."""
    images = brains(rng, count=1, dtype=np.complex128)
    check_gradient(OBJECTIVES[name](template(coils=2), images), lines(rng))


def test_forward_mode_agrees_with_reverse(rng):
    """Through the density too."""
    objective, points = AdjointObjective(template(), brains(rng, count=1)), lines(rng)
    direction = jnp.asarray(rng.standard_normal(points.shape))
    loss = lambda p: objective({"points": p}, KEY)[0]  # noqa: E731
    forward = jax.jit(lambda d: jax.jvp(loss, (points,), (d,))[1])(direction)
    np.testing.assert_allclose(forward, jnp.vdot(evaluate(objective, points)[2], direction), rtol=1e-8)


def test_stopped_density_is_constant_under_differentiation(rng):
    """The gradient is that with the weights held, and far from that of the loss."""
    images, points, encoding = brains(rng, count=1), lines(rng), template()
    weights = line_density("pipe", points, SHAPE)
    along = pipe_density(encoding.readout[:, None], SHAPE[:1], 10)

    def held(points):
        moved = eqx.tree_at(lambda e: e.points, encoding, points)
        found = jnp.abs(moved.adjoint(moved.forward(images), weights, along))
        return jnp.mean((found / found.mean() - images / images.mean()) ** 2)

    want = jax.jit(jax.grad(held))(points)
    stopped, through = (
        evaluate(AdjointObjective(encoding, images, density=density), points)[2]
        for density in ("pipe-stopped", "pipe")
    )
    np.testing.assert_allclose(stopped, want, rtol=0, atol=1e-9 * float(jnp.abs(want).max()))
    assert float(jnp.linalg.norm(through - want) / jnp.linalg.norm(want)) > 0.05


@pytest.mark.parametrize(
    ("metric", "coils", "dtype", "inclusive"),
    [("nrmse", 3, np.complex128, False), ("ssim", 1, np.float64, True)],
)
def test_iterative_loss_is_cg_sense_of_explicit_kspace(rng, coils, dtype, inclusive, metric):
    """The ridge is relative to a fully sampled scan, whose eigenvalues are samples per voxel of the readout."""
    encoding, images, points = (
        template(coils=coils, inclusive=inclusive),
        brains(rng, dtype=dtype),
        lines(rng),
    )
    objective = IterativeObjective(encoding, images, metric=metric, ridge=0.02, iterations=4)
    loss, terms, _ = evaluate(objective, points)

    @jax.jit
    def explicit(points, images):
        moved = eqx.tree_at(lambda e: e.points, encoding, points)
        found = cg_sense(moved, moved.forward(images), ridge=0.02 * 9 / SHAPE[0], iterations=4)
        return jnp.mean(nrmse(found, images)), 1 - jnp.mean(ssim(found, images))

    error, dissimilarity = explicit(points, images)
    np.testing.assert_allclose(terms["nrmse"], error, rtol=1e-9)
    np.testing.assert_allclose(loss, error if metric == "nrmse" else dissimilarity, rtol=1e-8)


@pytest.mark.parametrize("samples", [10, 20])
def test_noise_has_the_stated_deviation(rng, samples):
    """A full unitary scan hands noise on as it is, complex and white; twice the samples halve its variance."""
    shape = (10, 12, 11)
    points = initial_lines("full", shape, key=KEY).points.astype(jnp.float64)
    images = brains(rng, shape=shape, count=1)
    objective = IterativeObjective(template(shape=shape, samples=samples), images, ridge=0.0, noise=0.1)
    draw = jax.jit(lambda key: objective.reconstruct(points, images, key) - images)
    noise = np.asarray(draw(KEY)).ravel()
    want = 0.1 * np.sqrt(10 / samples)
    # 1320 voxels: six standard errors of a deviation are 12 %.
    for part in (noise.real, noise.imag):
        np.testing.assert_allclose(part.std(), want / np.sqrt(2), rtol=0.12)
        assert abs(part.mean()) < 6 * part.std() / np.sqrt(noise.size)
    assert abs(np.corrcoef(noise.real, noise.imag)[0, 1]) < 6 / np.sqrt(noise.size)
    np.testing.assert_array_equal(np.asarray(draw(KEY)).ravel(), noise)
    assert np.abs(np.asarray(draw(jax.random.key(4))).ravel() - noise).max() > 0.1 * want


@pytest.mark.parametrize("name", ["adjoint", "nrmse"])
def test_held_out_images_are_reported_and_never_learned_on(rng, name):
    """They change neither loss nor gradient by a bit, and their own error stands in the terms."""
    images, points, encoding = brains(rng, count=3), lines(rng), template()
    make = OBJECTIVES[name]
    loss, _, slope = evaluate(make(encoding, images[:1]), points)
    beside_loss, terms, beside_slope = evaluate(make(encoding, images[:1], held_out=images[1:]), points)
    assert loss == beside_loss
    np.testing.assert_array_equal(slope, beside_slope)
    if name == "adjoint":
        want = plain_adjoint_loss(encoding, points, images[1:], "pipe")
        np.testing.assert_allclose(terms["loss_held_out"], want, rtol=1e-9)
    else:
        want = value(make(encoding, images[1:]), points)
        np.testing.assert_allclose(terms["nrmse_held_out"], want, rtol=1e-9)


@pytest.mark.parametrize("name", ["nrmse", pytest.param("adjoint", marks=pytest.mark.slow)])
def test_augmentation_shows_another_pose_at_every_step(rng, name):
    """The loss at a key is that of the images in their poses; each image has its own."""
    size = (1.0, 1.0, 2.0)
    fine = brains(rng, shape=fine_shape(SHAPE), count=1).repeat(2, axis=0)
    points = lines(rng)
    objective = OBJECTIVES[name](template(), fine, augmented=True, voxel_size=size)
    assert value(objective, points) == value(objective, points)
    assert abs(value(objective, points) - value(objective, points, jax.random.key(4))) > 1e-4
    pose_key = KEY if name == "adjoint" else jax.random.split(KEY, 3)[0]
    poses = [
        posed(f, k, SHAPE, voxel_size=size) for f, k in zip(fine, jax.random.split(pose_key), strict=True)
    ]
    assert float(jnp.abs(poses[0] - poses[1]).max()) > 0.05
    plain = OBJECTIVES[name](template(), jnp.stack(poses))
    np.testing.assert_allclose(value(objective, points), value(plain, points), rtol=1e-9)


@pytest.mark.parametrize("name", ["adjoint", "nrmse"])
def test_single_precision_stays_and_agrees(rng, name):
    images, points, make = brains(rng), lines(rng), OBJECTIVES[name]
    loss, _, slope = evaluate(
        make(template(dtype=np.float32), images.astype(np.float32)), points.astype(np.float32)
    )
    assert (loss.dtype, slope.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(loss, value(make(template(), images), points), rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "backend"), [pytest.param("adjoint", "finufft", marks=pytest.mark.slow), ("nrmse", "dft")]
)
def test_starts_side_by_side_are_the_starts_one_by_one(rng, name, backend):
    objective = OBJECTIVES[name](template(backend=backend), brains(rng, count=1))
    starts = jnp.stack([lines(rng), lines(rng)])
    losses, _, slopes = jax.jit(jax.vmap(lambda p: evaluate(objective, p)))(starts)
    for points, loss, slope in zip(starts, losses, slopes, strict=True):
        alone, _, alone_slope = evaluate(objective, points)
        np.testing.assert_allclose(loss, alone, rtol=1e-9)
        np.testing.assert_allclose(slope, alone_slope, rtol=0, atol=1e-7 * float(jnp.abs(slope).max()))


@pytest.mark.parametrize("name", ["adjoint", "nrmse"])
def test_a_run_compiles_once(rng, name):
    """With augmentation, noise and held-out images, steps trace nothing anew."""
    fine = brains(rng, shape=fine_shape(SHAPE), count=1, dtype=np.float32)
    noise = {} if name == "adjoint" else {"noise": 0.01}
    objective = OBJECTIVES[name](
        template(dtype=np.float32),
        fine,
        held_out=brains(rng, count=1, dtype=np.float32),
        augmented=True,
        **noise,
    )
    traces = []

    class Counted(eqx.Module):
        objective: eqx.Module

        def __call__(self, params, key):
            traces.append(name)
            return self.objective(params, key)

    params = {"points": lines(rng).astype(jnp.float32)}
    result = fit(Counted(objective), params, optimizer=optax.adam(1e-2), steps=5, key=KEY, progress=False)
    assert len(traces) <= 2
    assert len(np.unique(result.history["loss"])) == 6


@pytest.mark.parametrize("name", DENSITIES)
def test_every_density_is_one_on_the_full_grid(name):
    """The ridge of the least-squares weights takes its own share."""
    points = initial_lines("full", SHAPE, key=KEY).points.astype(jnp.float64)
    want = 1 / 1.1 if name == "least-squares" else 1
    np.testing.assert_allclose(line_density(name, points, SHAPE), want, atol=1e-6)


def test_point_spread_is_one_at_the_centre_and_a_point_on_the_grid(rng):
    shape = (3, 8, 7)
    psf = line_psf(lines(rng), jnp.asarray(rng.uniform(0.5, 1.5, 20)), shape)
    assert psf.shape == (8, 7)
    np.testing.assert_allclose(psf[4, 3], 1, atol=1e-9)
    assert float(jnp.abs(psf).max()) < 1 + 1e-9
    full = initial_lines("full", shape, key=KEY).points.astype(jnp.float64)
    delta = np.zeros((8, 7))
    delta[4, 3] = 1
    np.testing.assert_allclose(line_psf(full, jnp.ones(56), shape), delta, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: AdjointObjective(template(), jnp.ones((1, 5, 8, 6))),
            r"images: got.*shape \(images, 5, 8, 7\)",
        ),
        (
            lambda: AdjointObjective(template(), jnp.ones((1, *SHAPE)), augmented=True),
            r"images: got.*shape \(images, 10, 16, 14\)",
        ),
        (
            lambda: IterativeObjective(template(), jnp.ones((1, *SHAPE)), held_out=jnp.ones((1, 5, 8, 6))),
            "held_out: got",
        ),
        (
            lambda: AdjointObjective(template(), jnp.ones((1, *SHAPE)), density="pip"),
            "density: got 'pip'.*Did you mean 'pipe'",
        ),
        (lambda: IterativeObjective(template(), jnp.ones((1, *SHAPE)), metric="mse"), "metric: got 'mse'"),
        (lambda: IterativeObjective(template(), jnp.ones((1, *SHAPE)), ridge=-1.0), "ridge: got -1.0"),
        (lambda: IterativeObjective(template(), jnp.ones((1, *SHAPE)), noise=-1.0), "noise: got -1.0"),
        (lambda: IterativeObjective(template(), jnp.ones((1, *SHAPE)), iterations=0), "iterations: got 0"),
        (lambda: line_density("voronoi", jnp.ones((3, 2)), SHAPE), "density: got 'voronoi'.*pipe-stopped"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
