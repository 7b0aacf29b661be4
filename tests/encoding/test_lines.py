"""Laws of straight-line encoding: the 3D transform it factors, its Gram, and the reference loss's gradient."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from acqdesign.base.checks import UsageError
from acqdesign.encoding import (
    Coils,
    LineWeights,
    Mask,
    NUFFTEncoding,
    StraightLineEncoding,
    density_weights,
    initial_lines,
    pipe_density,
    uniform_readout,
)
from acqdesign.encoding import encoding as module

from . import _exact
from ._exact import some_complex

SHAPES = [(4, 6, 5), (5, 7, 8), (1, 8, 7)]
KINDS = [(jnp.float32, jnp.complex64), (jnp.float64, jnp.complex128)]


def some_lines(rng, count=13, real=np.float64):
    points = rng.uniform(-0.8, 0.8, (count, 2))
    points[:3] = [[0.5, -0.5], [0.0, 0.0], [-1.25, 3.0]]
    return jnp.asarray(points, real)


def inclusive(samples, real=np.float64):
    """The reference recipe's readout, both ends included."""
    return jnp.linspace(-0.5, 0.5, samples, dtype=real)


def seen_by(encoding, smaps):
    """An encoding with coils, where there are maps of them."""
    return encoding if smaps is None else encoding @ Coils(smaps)


@pytest.mark.parametrize(
    ("shape", "coils", "readout", "kinds"),
    [
        (SHAPES[0], 0, "uniform", KINDS[1]),
        (SHAPES[1], 3, "inclusive", KINDS[1]),
        (SHAPES[1], 3, "uniform", KINDS[0]),
        (SHAPES[2], 0, "inclusive", KINDS[1]),
    ],
)
def test_factored_is_the_general_operator(rng, shape, coils, readout, kinds):
    """Forward and weighted adjoint against the general 3D NUFFT and the exact DFT at all samples."""
    real, dtype = kinds
    points, tolerance = some_lines(rng, real=real), 1e-5 if real == jnp.float32 else 1e-11
    smaps = some_complex(rng, (coils, *shape), dtype) if coils else None
    explicit = inclusive(9, real) if readout == "inclusive" else None
    bare = StraightLineEncoding(points, shape, 9, readout=explicit)
    samples = _exact.line_samples(points, bare.readout)
    lines = seen_by(bare, smaps)
    general = seen_by(NUFFTEncoding(jnp.asarray(samples, real), shape, backend="finufft"), smaps)
    lead, scale = (coils,) if coils else (), np.sqrt(np.prod(shape))

    images = some_complex(rng, (2, *shape), dtype)
    got = eqx.filter_jit(lines.forward)(images)
    assert (got.shape, got.dtype) == ((2, *lead, 13, 9), dtype)
    flat = got.reshape(2, *lead, -1)
    assert _exact.error(flat, eqx.filter_jit(general.forward)(images)) <= tolerance
    seen = np.asarray(images) if smaps is None else np.asarray(images)[:, None] * np.asarray(smaps)
    assert _exact.error(flat, _exact.forward(seen, samples) / scale) <= tolerance

    weights, along = jnp.asarray(rng.uniform(1, 2, 13), real), jnp.asarray(rng.uniform(1, 2, 9), real)
    both = (weights[:, None] * along).ravel()
    want = eqx.filter_jit(general.adjoint)(flat, both)
    assert _exact.error(eqx.filter_jit(lines.adjoint)(got, LineWeights(weights, along)), want) <= tolerance
    back = _exact.adjoint(np.asarray(flat) * np.asarray(both), samples, shape) / scale
    back = back if smaps is None else (back * np.conj(smaps)).sum(1)
    assert _exact.error(want, back) <= tolerance


@jax.jit
def gram_and_composed(lines, images, weights):
    """The Gram both ways."""
    return lines.normal(weights)(images), lines.adjoint(lines.forward(images), weights)


def test_real_images_have_the_same_gram(rng):
    points, image = some_lines(rng), jnp.asarray(rng.normal(size=(4, 6, 5)))
    gram = jax.jit(lambda f: StraightLineEncoding(points, (4, 6, 5), 9).normal()(f))
    assert _exact.error(gram(image), gram(image.astype(complex))) <= 1e-14


@pytest.mark.parametrize("shape", [(4, 6, 5), (1, 6, 7)])
def test_full_cartesian_sampling_is_unitary(rng, shape):
    """`Aᴴ A = A Aᴴ = 1` on the full grid, with as many samples as voxels along x."""
    grid = [_exact.coordinates(n) / n for n in shape[1:]]
    points = jnp.asarray(np.stack(np.meshgrid(*grid, indexing="ij"), -1).reshape(-1, 2))
    lines = StraightLineEncoding(points, shape, shape[0])
    image = some_complex(rng, shape)
    for back in gram_and_composed(lines, image, None):
        assert _exact.error(back, image) <= 1e-13
    kspace = some_complex(rng, (len(points), shape[0]))
    assert _exact.error(jax.jit(lambda y: lines.forward(lines.adjoint(y)))(kspace), kspace) <= 1e-13
    # Twice the samples along x, twice the Gram: the scale is that of the samples.
    twice = StraightLineEncoding(points, shape, 2 * shape[0])
    for back in gram_and_composed(twice, image, None):
        assert _exact.error(back, 2 * image) <= 1e-13


def test_uniform_readout_has_the_voxels_convention():
    np.testing.assert_array_equal(uniform_readout(4), np.array([-0.5, -0.25, 0.0, 0.25], np.float32))
    np.testing.assert_allclose(uniform_readout(5, jnp.float64), np.arange(-2, 3) / 5)


def test_a_gram_is_made_once_and_used_often(rng):
    """`normal` returns a pytree that passes through `jit` and maps any batch."""
    points, shape = some_lines(rng), (4, 6, 5)
    lines = StraightLineEncoding(points, shape, 9) @ Coils(some_complex(rng, (3, *shape)))
    weights = jnp.asarray(rng.uniform(1, 2, 13))
    make, images, traces = eqx.filter_jit(lines.normal), some_complex(rng, (2, 2, *shape)), []
    gram = make(weights)

    @jax.jit
    def apply(gram, images):
        traces.append(None)
        return gram(images)

    want = apply(gram, images)
    assert _exact.error(apply(make(2 * weights), images), 2 * want) <= 1e-14
    assert len(traces) == 1
    assert _exact.error(jax.jit(jax.vmap(gram))(images), want) <= 1e-14
    assert _exact.error(apply(gram, images[0, 1]), want[0, 1]) <= 1e-14


@pytest.mark.parametrize("backend", [pytest.param("dft", marks=pytest.mark.slow), "finufft"])
def test_derivatives_of_gram_are_those_of_adjoint_of_forward(rng, backend):
    """In points, image, maps, weights and readout positions; Hessian-vector products too; and the exact ones."""
    shape, readout = (3, 4, 5), inclusive(5)
    points, image, smaps = some_lines(rng, 7), some_complex(rng, shape), some_complex(rng, (2, *shape))
    at = (points, image, smaps, jnp.asarray(rng.uniform(1, 2, 7)), readout)
    along = (points[::-1], 1j * image, smaps[::-1], at[3][::-1], readout**2)

    def encoding(points, smaps, readout):
        return StraightLineEncoding(points, shape, readout=readout, backend=backend) @ Coils(smaps)

    def gram(points, image, smaps, weights, readout):
        return encoding(points, smaps, readout).normal(weights)(image)

    def composed(points, image, smaps, weights, readout):
        lines = encoding(points, smaps, readout)
        return lines.adjoint(lines.forward(image), weights)

    def exact(points, image, smaps, weights, readout):
        x = jnp.broadcast_to(readout[None, :, None], (7, 5, 1))
        samples = jnp.concatenate([x, jnp.broadcast_to(points[:, None], (7, 5, 2))], -1).reshape(-1, 3)
        through = _exact.forward(smaps * image, samples, jnp) * jnp.repeat(weights, 5)
        return (jnp.conj(smaps) * _exact.adjoint(through, samples, shape, jnp)).sum(0) / 60

    def derivatives(function):
        gradient = jax.grad(lambda *a: jnp.sum(jnp.abs(function(*a)) ** 3), tuple(range(5)))
        # The Hessian-vector product's jvp gives the gradient too.
        return jax.jit(lambda *at: jax.jvp(gradient, at, along))(*at)

    got, other, want = map(derivatives, (gram, composed, exact))
    for leaves in zip(*map(jax.tree.leaves, (got, other, want)), strict=True):
        assert _exact.error(leaves[0], leaves[2]) <= 1e-9
        assert _exact.error(leaves[1], leaves[2]) <= 1e-9


def sampled(points, shape, kind):
    """Encodings that know their density."""
    if kind == "general":
        along = jnp.broadcast_to(inclusive(5)[None, :, None], (len(points), 5, 1))
        planes = jnp.broadcast_to(points[:, None], (len(points), 5, 2))
        return NUFFTEncoding(jnp.concatenate([along, planes], axis=-1), shape)
    more = {"readout": inclusive(5)} if kind == "explicit" else {"samples_per_line": 6}
    return StraightLineEncoding(points, shape, **more)


@pytest.mark.parametrize("kind", ["uniform", "explicit", "general"])
def test_adjoint_of_a_prepared_image_is_the_density_compensated_adjoint(rng, kind):
    """`Aᴴ W A f` with the density, and its gradient in the points; with coils and a mask.

    What is prepared does not depend on where the readouts are: it is made once, at other points.
    """
    shape, points, image = (3, 4, 5), some_lines(rng, 7), some_complex(rng, (2, 3, 4, 5))
    smaps, mask = some_complex(rng, (2, *shape)), jnp.asarray(rng.random(shape))

    def encoding(points):
        return sampled(points, shape, kind) @ Coils(smaps) @ Mask(mask)

    prepared = jax.jit(lambda k: encoding(k).prepare(image))(some_lines(rng, 7))

    def both(points):
        here = encoding(points)
        weights = here.density("pipe", 2)
        found = here.adjoint_of(prepared, weights), here.adjoint(here.forward(image), weights)
        return [jnp.sum(jnp.abs(one) ** 3) for one in found], found

    slopes, found = jax.jit(jax.jacrev(both, has_aux=True))(points)
    assert _exact.error(*found) <= 1e-10
    assert _exact.error(*slopes) <= 1e-10


@pytest.mark.parametrize("kind", ["uniform", "explicit"])
def test_density_of_lines_is_the_planes_times_the_readouts(rng, kind):
    """Weights of the lines in their plane and of the samples along them; by each name, without coils' say."""
    points, shape = some_lines(rng, 7), (3, 4, 5)
    lines = sampled(points, shape, kind)
    seen, names = lines @ Coils(jnp.ones((2, *shape), complex)), ("pipe", "least-squares", "none")

    @jax.jit
    def both():
        found = [seen.density(name, 3) for name in names]
        along = pipe_density(lines.readout[:, None], (3,), 10)
        return found, [LineWeights(density_weights(name, points, shape[1:], 3), along) for name in names]

    found, want = map(jax.tree.leaves, both())
    for got, expected in zip(found, want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12)
    if kind == "uniform":
        np.testing.assert_allclose(found[-1], 0.5, rtol=1e-6)


def test_coils_in_groups_are_all_at_once(rng, monkeypatch):
    """Gram and adjoint, with their gradients in points, maps, image and samples; on a mesh too."""
    shape = (3, 4, 5)
    at = (some_lines(rng, 7), some_complex(rng, (4, *shape)), some_complex(rng, (2, *shape)))
    kspace = some_complex(rng, (2, 4, 7, 5))

    def loss(points, smaps, image, kspace):
        lines = StraightLineEncoding(points, shape, 5) @ Coils(smaps)
        return jnp.sum(jnp.abs(lines.normal()(image) + lines.adjoint(kspace)) ** 3)

    def everything(mesh):
        one = jax.make_mesh((1,), ("coils",), axis_types=(AxisType.Auto,))
        split = (P(), P("coils"), P(), P(None, "coils"))
        run = jax.shard_map(loss, mesh=one, in_specs=split, out_specs=P()) if mesh else loss
        return jax.jit(jax.value_and_grad(run, tuple(range(4))))(*at, kspace)

    whole = everything(False)
    monkeypatch.setattr(module, "_COILS_BYTES", 2 * 3 * 2 * 60 * 16)
    for got, want in zip(jax.tree.leaves(everything(True)), jax.tree.leaves(whole), strict=True):
        assert _exact.error(got, want) <= 1e-13


def test_a_gradient_through_a_gram_keeps_no_coil_images(rng):
    """One iteration of conjugate gradients with its backward pass needs the maps and one image, whatever the coils."""
    shape, coils = (3, 4, 5), 8
    lines = StraightLineEncoding(some_lines(rng), shape, 9) @ Coils(some_complex(rng, (coils, *shape)))
    gram, image = eqx.filter_jit(lines.normal)(), some_complex(rng, shape)

    def pull(spectrum):
        return jax.vjp(lambda s: eqx.tree_at(lambda g: g.gram.spectrum, gram, s)(image), spectrum)[1]

    kept = sorted(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(pull, gram.gram.spectrum)))
    assert kept[-1] == coils * image.size  # the maps
    assert sum(kept[:-1]) < 4 * image.size + gram.gram.spectrum.size


def test_vmap_over_sets_of_lines(rng):
    """Starts learned side by side: operators made and applied under `vmap`."""
    points, image = jnp.stack([some_lines(rng) for _ in range(3)]), some_complex(rng, (4, 6, 5))

    def gram(k):
        return StraightLineEncoding(k, (4, 6, 5), 9).normal(pipe_density(k, (6, 5), 2))(image)

    one = jax.jit(gram)
    for got, k in zip(jax.jit(jax.vmap(gram))(points), points, strict=True):
        assert _exact.error(got, one(k)) <= 1e-13


def blob(shape):
    """A smooth positive image with an edge and a hole in it."""
    x, y, z = np.meshgrid(*(_exact.coordinates(n) / n for n in shape), indexing="ij")
    radius = (x / 0.9) ** 2 + y**2 + (z / 0.8) ** 2
    return (1.5 + x + 2 * y * z) * (radius < 0.16) - (np.hypot(y - 0.1, z) < 0.08) * (radius < 0.16)


@pytest.mark.parametrize(("shape", "count"), [pytest.param((23, 28, 23), 253, marks=pytest.mark.slow), ((8, 9, 6), 40)])
def test_reference_loss_has_its_own_gradient(shape, count):
    """The whole reference loss, density recomputed and differentiated: the exact DFT's gradient, odd and even.

    One compilation serves all calls.
    """
    image, readout = blob(shape), np.linspace(-0.5, 0.5, 5 * shape[0])
    lines = initial_lines("reference", shape, lines=count, key=jax.random.key(0)).points
    points = np.asarray(lines, np.float64)
    exact = jax.jit(jax.value_and_grad(lambda k: _exact.reference_loss(k, image, readout, xp=jnp)))
    value, gradient = exact(points)
    # The oracle's gradient is that of NumPy's values.
    rng = np.random.default_rng(7)
    direction = rng.normal(size=points.shape)
    difference = _exact.directional(lambda k: _exact.reference_loss(k, image, readout), points, direction, 1e-6)
    assert abs(np.sum(gradient * direction) - difference) <= 1e-6 * abs(difference)

    for real, tolerance in ((jnp.float64, 1e-6), (jnp.float32, 1e-4)):
        truth = jnp.asarray(image, real)
        traces = []

        def loss(k, truth=truth, traces=traces):
            traces.append(None)
            encoding = StraightLineEncoding(k, shape, readout=jnp.asarray(readout, k.dtype))
            size = jnp.abs(encoding.normal(pipe_density(k, shape[1:]))(truth))
            return jnp.mean((size / jnp.mean(size) - truth / jnp.mean(truth)) ** 2)

        step = jax.jit(jax.value_and_grad(loss))
        for moved in (0.01, 0.0):
            mine, slope = step(jnp.asarray(points + moved, real))
        assert len(traces) == step._cache_size() == 1
        assert slope.dtype == real
        assert abs(mine - value) <= 10 * tolerance * value
        slope = np.asarray(slope, np.float64)
        cosine = np.sum(slope * gradient) / np.linalg.norm(slope) / np.linalg.norm(gradient)
        assert cosine >= 0.99999
        assert _exact.error(slope, gradient) <= tolerance


K = jnp.zeros((5, 2))
SHAPE = (3, 4, 5)
LINES = StraightLineEncoding(K, SHAPE, 6)
COILS = LINES @ Coils(jnp.ones((2, *SHAPE), complex))


def kspace(*shape):
    return jnp.ones(shape, complex)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: StraightLineEncoding(jnp.zeros((5, 3)), SHAPE, 6), r"^points: got .*\(5, 3\).*D = 2"),
        (lambda: StraightLineEncoding(K[None], SHAPE, 6), r"^points: got .*\(1, 5, 2\).*\(lines, 2\).*vmap"),
        (lambda: StraightLineEncoding(K.at[1, 1].set(jnp.nan), SHAPE, 6), r"^points: got 1 non-finite values"),
        (lambda: StraightLineEncoding(K, (4, 5), 6), r"^shape: got \(4, 5\), expected 3 positive integers"),
        (lambda: StraightLineEncoding(K, SHAPE, 0), r"^samples_per_line: got 0, expected an integer >= 1"),
        (lambda: StraightLineEncoding(K, SHAPE), r"^samples_per_line: got None, expected the number of samples"),
        (lambda: StraightLineEncoding(K, SHAPE, 6, readout=jnp.zeros(7)), r"^samples_per_line: got 6, expected 7"),
        (lambda: StraightLineEncoding(K, SHAPE, readout=jnp.zeros((7, 1))), r"^readout: got .*\(7, 1\)"),
        (lambda: StraightLineEncoding(K, SHAPE, readout=jnp.array([jnp.inf])), r"^readout: got 1 non-finite"),
        (lambda: StraightLineEncoding(K, SHAPE, readout=jnp.zeros(0)), r"^samples_per_line: got 0"),
        (lambda: LINES @ Coils(kspace(*SHAPE)), r"^Coils: got .*\(3, 4, 5\), expected shape \(\.\.\., 3, 3, 4, 5\)"),
        (lambda: StraightLineEncoding(K, SHAPE, 6, backend="gpu"), r"^backend: got 'gpu', expected one of auto"),
        (lambda: StraightLineEncoding(K, SHAPE, 6, eps=-1.0), r"^eps: got -1.0, expected .*between 0 and 1"),
        (lambda: LINES.forward(kspace(3, 5, 4)), r"^image: got .*\(3, 5, 4\).*, expected shape \(\.\.\., 3, 4, 5\)"),
        (lambda: COILS.normal()(kspace(4, 5)), r"^image: got .*\(4, 5\)"),
        (lambda: LINES.normal()(kspace(3, 5, 4)), r"^image: got .*\(3, 5, 4\)"),
        (lambda: LINES.adjoint(kspace(6, 5)), r"^kspace: got .*\(6, 5\).*, expected shape \(\.\.\., 5, 6\)"),
        (lambda: COILS.adjoint(kspace(5, 6)), r"^kspace: got .*\(5, 6\).*, expected shape \(\.\.\., 2, 5, 6\)"),
        (lambda: LINES.adjoint(kspace(5, 6), jnp.ones(1)), r"^weights: got .*\(1,\).*, expected .*\(5,\)"),
        (
            lambda: LINES.adjoint(kspace(5, 6), LineWeights(jnp.ones(5), jnp.ones(5))),
            r"^weights of samples: got .*\(5,\).*\(6,\)",
        ),
        (lambda: LINES.normal(kspace(5)), r"^weights: got .*complex128, expected a real"),
        (lambda: LINES.normal(LineWeights(jnp.ones(5), jnp.ones(1))), r"^weights of samples: got .*\(1,\)"),
        (lambda: LINES.normals(jnp.ones((2, 6))), r"^weights: got .*\(2, 6\).*, expected .*\(2, 5\)"),
        (
            lambda: LINES.sum_of_normals(jnp.ones((2, 5)), kspace(3, *SHAPE)),
            r"^images: got .*\(3, 3, 4, 5\).*, expected 2 along the first axis",
        ),
        (
            lambda: COILS.sum_of_normals(jnp.ones((2, 5)), kspace(2, 4, 5)),
            r"^image: got .*\(4, 5\).*, expected shape \(\.\.\., 3, 4, 5\)",
        ),
        (lambda: uniform_readout(0), r"^samples: got 0, expected an integer >= 1"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_bad_input_is_refused_by_name(call, says):
    with pytest.raises(UsageError, match=says):
        call()
