"""Laws of every encoding, bare and composed with coils, masks and planes: one list of them, and every law of each."""

import functools
import zlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.encoding import (
    CartesianEncoding,
    Coils,
    Encoding,
    Gram,
    ImageMap,
    LineWeights,
    Mask,
    NUFFTEncoding,
    Plane,
    StraightLineEncoding,
)
from acqdesign.encoding import encoding as module

from . import _exact
from ._exact import dot_gap, error, some_complex

KINDS = [(jnp.float32, jnp.complex64), (jnp.float64, jnp.complex128)]
SHAPE = (4, 5, 6)
PLANE = (1, 5, 6)
COUNT = 3  # of coils, and of sets of weights


def uniform(rng, shape, real):
    return jnp.asarray(rng.uniform(-0.9, 0.9, shape), real)


def coils(rng, dtype, shape=SHAPE):
    return Coils(some_complex(rng, (COUNT, *shape), dtype))


def head(rng, real, shape=SHAPE):
    """Weights from zero to one, some of which are zero."""
    return Mask(jnp.asarray(rng.uniform(0, 1, shape) * (rng.random(shape) < 0.8), real), len(shape))


def nufft(rng, real, samples, shape, backend):
    return NUFFTEncoding(uniform(rng, (*samples, len(shape)), real), shape, backend=backend)


def lines(rng, real, samples=8, shape=SHAPE, **more):
    return StraightLineEncoding(uniform(rng, (11, 2), real), shape, samples, **more)


def ends(real):
    """A readout with both ends."""
    return jnp.linspace(-0.5, 0.5, 9, dtype=real)


def half(rng):
    return CartesianEncoding(SHAPE, jnp.asarray(rng.random(SHAPE) < 0.5))


# Name to maker: a new encoding joins this list and is checked by every test that reads it.
ENCODINGS = {
    "nufft 1D": lambda r, real, c: nufft(r, real, (20,), (15,), "auto"),
    "nufft 2D": lambda r, real, c: nufft(r, real, (30,), (8, 9), "finufft"),
    "nufft 3D": lambda r, real, c: nufft(r, real, (40,), SHAPE, "finufft"),
    "nufft readouts": lambda r, real, c: nufft(r, real, (5, 8), SHAPE, "dft"),
    "nufft coils mask": lambda r, real, c: nufft(r, real, (5, 8), SHAPE, "dft") @ coils(r, c) @ head(r, real),
    "nufft 2D plane coils": lambda r, real, c: (
        nufft(r, real, (6, 5), PLANE[1:], "dft") @ Plane(PLANE) @ coils(r, c, PLANE)
    ),
    "nufft 2D coils plane": lambda r, real, c: (
        nufft(r, real, (30,), (4, 6), "dft") @ coils(r, c, (4, 6)) @ Plane((4, 1, 6))
    ),
    "lines": lambda r, real, c: lines(r, real),
    "lines finufft": lambda r, real, c: lines(r, real, None, readout=ends(real), backend="finufft"),
    "lines of a plane": lambda r, real, c: lines(r, real, 1, PLANE),
    "lines coarse": lambda r, real, c: lines(r, real, 3),
    "lines coils mask": lambda r, real, c: lines(r, real) @ coils(r, c) @ head(r, real),
    "lines coarse mask coils": lambda r, real, c: lines(r, real, 3) @ head(r, real) @ coils(r, c),
    "cartesian": lambda r, real, c: CartesianEncoding(SHAPE),
    "cartesian mask": lambda r, real, c: half(r),
    "cartesian mask coils mask": lambda r, real, c: half(r) @ coils(r, c) @ head(r, real),
}


def make(name, kinds):
    """An encoding of the list, the same each time."""
    return ENCODINGS[name](np.random.default_rng(zlib.crc32(name.encode())), *kinds)


def inmost(encoding):
    """The encoding that an encoding is composed of: its weights are the whole's."""
    return inmost(encoding.outer) if hasattr(encoding, "outer") else encoding


def some_weights(encoding, rng, real):
    """Weights of each kind that an encoding takes."""
    draw = lambda *shape: jnp.asarray(rng.uniform(0.5, 2, shape), real)  # noqa: E731
    samples = inmost(encoding).samples
    if isinstance(inmost(encoding), CartesianEncoding):
        return {"of the grid": draw(*samples)}
    is_lines = isinstance(inmost(encoding), StraightLineEncoding)
    each = LineWeights(draw(samples[0]), draw(samples[1])) if is_lines else draw(*samples)
    some = {"none": None, "of samples": each}
    # What is composed hands weights on: one kind more is enough of the bare ones.
    return some if hasattr(encoding, "outer") else some | {"of readouts": draw(samples[0])}


@eqx.filter_jit
def everything(encoding, images, kspace, weights, factors):
    """What an encoding gives of images, and by law that beside what follows from its forward and adjoint."""
    samples = inmost(encoding).samples
    spread = factors.reshape(COUNT, samples[0], *[1] * (len(samples) - 1))
    each = jnp.stack([images, 2j * images, images[::-1]])
    through = encoding.forward(each)
    lead = [1] * (through.ndim - spread.ndim)
    mixed = jnp.sum(spread.reshape(COUNT, *lead, *spread.shape[1:]) * through, axis=0)
    pairs = {}
    for kind, one in weights.items():
        direct, summed = encoding.adjoint(jnp.stack([through[0], mixed]), one)
        gram = encoding.normal(one)
        pairs[f"normal, weights {kind}"] = gram(images), direct
        sets = spread * one if kind == "of the grid" else encoding.scaled(one, factors)
        pairs[f"sum, weights {kind}"] = encoding.sum_of_normals(sets, each), summed
    pairs["ridge"] = (gram + 0.3)(images), direct + 0.3 * images
    return through[0], encoding.adjoint(kspace), pairs


@functools.cache
def checked(name, kinds):
    """An encoding, how far its adjoint is from one, and how far the two sides of each law are apart."""
    rng, encoding = np.random.default_rng(1), make(name, kinds)
    shape = jax.eval_shape(encoding.forward, jnp.ones(encoding.shape)).shape
    given = some_weights(encoding, rng, kinds[0])
    factors = jnp.asarray(rng.normal(size=(COUNT, inmost(encoding).samples[0])), kinds[0])
    dots = []
    for _ in range(3):
        images, kspace = (some_complex(rng, (2, *s), kinds[1]) for s in (encoding.shape, shape))
        through, back, pairs = everything(encoding, images, kspace, given, factors)
        dots.append(dot_gap(images, through, kspace, back))
    assert {leaf.dtype for leaf in jax.tree.leaves((through, back, pairs))} == {jnp.dtype(kinds[1])}
    assert (shape, back.shape) == (encoding.samples, images.shape)
    return max(dots), {law: error(*pair) for law, pair in pairs.items()}


# Every law in double precision, and each kind of encoding in single.
COMPOSED = ("nufft coils mask", "nufft 2D plane coils", "lines coils mask", "cartesian mask coils mask")
SINGLE = ("nufft 2D", "lines coils mask", "cartesian mask coils mask")
cases = pytest.mark.parametrize(
    ("name", "kinds"),
    [(name, KINDS[1]) for name in ENCODINGS] + [(name, KINDS[0]) for name in SINGLE],
    ids=lambda value: value if isinstance(value, str) else value[0].__name__,
)


@cases
def test_adjoint_is_the_adjoint(name, kinds):
    """The dot test, on batches of images: to 1e-6 in single and 1e-13 in double precision."""
    assert checked(name, kinds)[0] <= (1e-6 if kinds == KINDS[0] else 1e-13)


@cases
@pytest.mark.parametrize("law", ["normal", "ridge", "sum"])
def test_normals_are_what_forward_and_adjoint_say(name, kinds, law):
    """`normal(w) = Aᴴ W A`, a ridge adds to it, and `sum_of_normals` is the sum; with every kind of weights."""
    gaps = {which: gap for which, gap in checked(name, kinds)[1].items() if which.startswith(law)}
    assert max(gaps.values()) <= (1e-5 if kinds == KINDS[0] else 1e-11), gaps


def test_dot_test_sees_a_wrong_adjoint(rng):
    grid, image, kspace = CartesianEncoding(SHAPE), *(some_complex(rng, SHAPE) for _ in range(2))
    assert dot_gap(image, grid.forward(image), kspace, grid.adjoint(kspace)) < 1e-13
    assert dot_gap(image, grid.forward(image), kspace, grid.forward(kspace)) > 1e-3


@pytest.mark.parametrize("name", ["nufft 2D plane coils", "lines coils mask", "cartesian mask"])
def test_a_gram_is_hermitian_and_not_negative(rng, name):
    encoding = make(name, KINDS[1])
    one, other = some_complex(rng, (2, *encoding.shape))
    gram = eqx.filter_jit(encoding.normal())
    assert abs(jnp.vdot(other, gram(one)) - jnp.vdot(gram(other), one)) <= 1e-11 * abs(jnp.vdot(other, gram(one)))
    inner = jnp.vdot(one, gram(one))
    assert abs(inner.imag) <= 1e-11 * inner.real


@pytest.mark.parametrize(
    ("shape", "backend", "kinds"),
    [((8,), "dft", KINDS[1]), ((9,), "finufft", KINDS[1]), ((6, 5), "dft", KINDS[0]), ((4, 3, 6), "finufft", KINDS[1])],
)
def test_points_on_the_grid_give_the_fft(rng, shape, backend, kinds):
    """All frequencies `(n - N//2) / N`: the unitary FFT, odd and even, and its inverse."""
    real, dtype = kinds
    axes = [_exact.coordinates(n) / n for n in shape]
    points = jnp.asarray(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(shape)), real)
    grid, general = CartesianEncoding(shape), NUFFTEncoding(points, shape, backend=backend)
    image = some_complex(rng, (2, *shape), dtype)
    tolerance = 1e-5 if real == jnp.float32 else 1e-11
    kspace = grid.forward(image)
    assert error(eqx.filter_jit(general.forward)(image).reshape(kspace.shape), kspace) <= tolerance
    assert error(eqx.filter_jit(general.adjoint)(kspace.reshape(2, -1)), image) <= tolerance
    # The oracle itself, from the definition.
    want = _exact.forward(image, np.asarray(points, np.float64)) / np.sqrt(np.prod(shape))
    assert error(kspace.reshape(2, -1), want) <= (1e-6 if real == jnp.float32 else 1e-13)


def test_general_encoding_is_the_exact_dft(rng):
    """Scale, maps, mask, weights and leading axes, from the definition."""
    points, image = rng.uniform(-0.9, 0.9, (30, 3)), some_complex(rng, (2, *SHAPE))
    weights = jnp.asarray(rng.uniform(0.5, 2, 30))
    maps, mask = np.asarray(some_complex(rng, (3, *SHAPE))), rng.uniform(0, 1, SHAPE)
    encoding = NUFFTEncoding(jnp.asarray(points), SHAPE) @ Coils(jnp.asarray(maps)) @ Mask(jnp.asarray(mask))
    want = _exact.forward(maps * (mask * np.asarray(image))[:, None], points) / np.sqrt(120)

    @jax.jit
    def everything(image, weights):
        kspace = encoding.forward(image)
        return kspace, encoding.adjoint(kspace, weights), encoding.normal(weights)(image)

    got, *both = everything(image, weights)
    assert error(got, want) <= 1e-11
    back = mask * (maps.conj() * _exact.adjoint(want * np.asarray(weights), points, SHAPE)).sum(1) / np.sqrt(120)
    for found in both:
        assert error(found, back) <= 1e-11


def test_readouts_by_samples_are_the_samples_in_a_row(rng):
    """Points `(readouts, samples, D)` give samples of that shape, and weights may go by readout."""
    points, image = uniform(rng, (5, 8, 3), jnp.float64), some_complex(rng, SHAPE)
    rows, flat = NUFFTEncoding(points, SHAPE), NUFFTEncoding(points.reshape(40, 3), SHAPE)
    weights = jnp.asarray(rng.uniform(0.5, 2, 5))
    kspace, wanted = jax.jit(lambda f: (rows.forward(f), flat.forward(f)))(image)
    assert kspace.shape == rows.samples == (5, 8)
    assert error(kspace.ravel(), wanted) <= 1e-14
    back = jax.jit(lambda y, w: (rows.adjoint(y, w), flat.adjoint(y.ravel(), jnp.repeat(w, 8))))
    assert error(*back(kspace, weights)) <= 1e-14
    density = jax.jit(lambda: (rows.density("pipe", 2).ravel(), flat.density("pipe", 2)))
    assert error(*density()) <= 1e-14


def test_mask_of_the_grid_selects_samples(rng):
    mask = jnp.asarray(rng.random((6, 5)) < 0.4)
    image = some_complex(rng, (6, 5))
    masked, full = CartesianEncoding((6, 5), mask), CartesianEncoding((6, 5))
    np.testing.assert_array_equal(masked.forward(image), jnp.where(mask, full.forward(image), 0))
    # A sample that is not a number where nothing is sampled stays out of the image.
    kspace = jnp.where(mask, full.forward(image), jnp.nan)
    assert np.isfinite(masked.adjoint(kspace)).all()


def test_a_plane_is_an_image_without_its_axis_of_one(rng):
    """Wherever the axis is, and for a line where there are two."""
    points = uniform(rng, (12, 2), jnp.float64)
    image = some_complex(rng, (2, 5, 6))
    plain, both = NUFFTEncoding(points, (5, 6)), jax.jit(lambda e, f: (e.forward(f), e.adjoint(e.forward(f))))
    kspace, back = map(np.asarray, both(plain, image))
    for axis, shape in enumerate([(1, 5, 6), (5, 1, 6), (5, 6, 1)], start=1):
        flat = plain @ Plane(shape)
        assert (flat.shape, flat.samples) == (shape, (12,))
        found = both(flat, np.expand_dims(image, axis))
        assert error(found[0], kspace) <= 1e-14
        assert error(found[1], np.expand_dims(back, axis)) <= 1e-14
    line = NUFFTEncoding(points[:, :1], (7,))
    np.testing.assert_array_equal((line @ Plane((1, 7, 1))).forward(jnp.ones((1, 7, 1))), line.forward(jnp.ones(7)))


def test_a_mask_may_differ_from_image_to_image(rng):
    """As heads do: a mask with a leading axis meets images with one, and coils see what it leaves."""
    masks, images = jnp.asarray(rng.random((2, *SHAPE)) < 0.5, jnp.float64), some_complex(rng, (2, *SHAPE))
    seen = half(rng) @ coils(rng, np.complex128)
    kspace = some_complex(rng, (2, *seen.samples))

    @jax.jit
    def everything(mask, image, kspace):
        encoding = seen @ Mask(mask)
        return encoding.forward(image), encoding.adjoint(kspace), encoding.normal()(image)

    together = everything(masks, images, kspace)
    for n in range(2):
        for got, want in zip(together, everything(masks[n], images[n], kspace[n]), strict=True):
            assert error(got[n], want) <= 1e-14


@pytest.mark.parametrize("name", ["nufft 2D plane coils", "lines coils mask"])
def test_coils_in_groups_are_all_at_once(rng, monkeypatch, name):
    """Adjoint, Gram and sums, with three coils one after the other."""
    encoding = make(name, KINDS[1])
    images = some_complex(rng, (2, *encoding.shape))
    factors = jnp.asarray(rng.uniform(0.5, 2, (2, inmost(encoding).samples[0])))

    def run():
        """Traced afresh each time."""
        kspace = encoding.forward(images)
        return encoding.adjoint(kspace), encoding.normal()(images), encoding.sum_of_normals(factors, images)

    whole = jax.jit(lambda: run())()
    monkeypatch.setattr(module, "_COILS_BYTES", 1)
    text = str(jax.make_jaxpr(run)())
    assert text.count("length=3") >= 3
    for got, want in zip(jax.jit(lambda: run())(), whole, strict=True):
        assert error(got, want) <= 1e-13


def test_encodings_are_pytrees_with_gradients(rng):
    """Passed through `jit` and differentiated as arguments: points, maps and masks are leaves, options are not."""
    name = "nufft coils mask"
    encoding, image = make(name, KINDS[1]), some_complex(rng, SHAPE)
    traces = []

    @jax.jit
    def energy(encoding, image):
        traces.append(None)
        return jnp.sum(jnp.abs(encoding.forward(image)) ** 2)

    gradient = jax.grad(energy)(encoding, image)
    assert {leaf.shape for leaf in jax.tree.leaves(gradient)} == {(5, 8, 3), (3, *SHAPE), SHAPE}
    for _ in range(3):
        energy(make(name, KINDS[1]), image)
    assert len(traces) == 1


@pytest.mark.parametrize("name", ["nufft coils mask", "lines coils mask", "cartesian mask coils mask"])
def test_callers_may_forbid_implicit_promotion(rng, name):
    """Compositions, ridges and batches with rank promotion raising and dtypes strict."""
    encoding = make(name, KINDS[0])
    images = some_complex(rng, (2, *encoding.shape), np.complex64)

    def energy(encoding, images):
        through = encoding.adjoint(encoding.forward(images))
        normal = encoding.normal()
        return jnp.sum(jnp.abs(through - (normal + jnp.float32(0.1))(images) - (normal + 0.1)(images)) ** 2)

    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        jax.jit(jax.grad(energy, allow_int=True)).lower(encoding, images)


class Blur(ImageMap):
    """A user's own map: every voxel and the one before it along the last axis."""

    shape: tuple[int, ...] = eqx.field(static=True)

    def forward(self, image):
        return image + jnp.roll(image, 1, axis=-1)

    def adjoint(self, image):
        return image + jnp.roll(image, -1, axis=-1)


class Sum(Encoding):
    """A user's own encoding: sums along the last axis."""

    shape: tuple[int, ...] = eqx.field(static=True)

    @property
    def samples(self):
        return self.shape[:-1]

    def forward(self, image):
        return jnp.sum(image, axis=-1) + 0j

    def adjoint(self, kspace, weights=None):
        if weights is not None:
            kspace = weights.reshape(-1, *[1] * (len(self.samples) - 1)) * kspace
        return jnp.broadcast_to(kspace[..., None], (*kspace.shape, self.shape[-1]))


@pytest.mark.parametrize("inside", [False, True])
def test_own_maps_and_encodings_need_only_forward_and_adjoint(rng, inside):
    """Grams, ridges and sums of a user's classes follow from the two, composed with what there is."""
    seen = coils(rng, np.complex128)
    encoding = Sum(SHAPE) @ seen @ Blur(SHAPE) if inside else Sum(SHAPE) @ Blur(SHAPE) @ seen
    assert encoding.samples == (3, 4, 5)
    images, kspace = some_complex(rng, (2, *SHAPE)), some_complex(rng, (2, 3, 4, 5))
    weights = jnp.asarray(rng.uniform(0.5, 2, (2, 4)))
    assert isinstance(encoding.normal(), Gram)

    @jax.jit
    def everything():
        through = encoding.forward(images)
        shifted = (encoding.normal(weights[0]) + 2.0)(images), encoding.adjoint(through, weights[0]) + 2 * images
        summed = sum(encoding.adjoint(through[n], weights[n]) for n in range(2))
        return through, encoding.adjoint(kspace), shifted, (encoding.sum_of_normals(weights, images), summed)

    through, back, *pairs = everything()
    assert dot_gap(images, through, kspace, back) <= 1e-14
    for pair in pairs:
        assert error(*pair) <= 1e-14
    with pytest.raises(UsageError, match=r"^density: got Sum, expected an encoding whose density is known"):
        encoding.density()


K = jnp.zeros((5, 3))
GENERAL, GRID = NUFFTEncoding(K, SHAPE), CartesianEncoding(SHAPE)
SEEN = GENERAL @ Coils(jnp.ones((3, *SHAPE), complex))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: NUFFTEncoding(K, (4, 5)), r"^points: got .*\(5, 3\).*, expected .*D = 2"),
        (
            lambda: NUFFTEncoding(K[None, None], SHAPE),
            r"^points: got .*\(1, 1, 5, 3\).*, expected shape \(M, 3\) or \(readouts, samples, 3\).*vmap",
        ),
        (lambda: Coils(jnp.ones(3)), r"^smaps: got .*\(3,\).*, expected shape \(coils, nx"),
        (lambda: Coils([[1.0]]), r"^smaps: got \[\[1.0\]\], expected"),
        (lambda: Coils(jnp.ones((0, *SHAPE))), r"^smaps: got .*a coil or more"),
        (lambda: GENERAL @ Coils(jnp.ones(SHAPE)), r"^Coils: got images of shape \(4, 5, 6\), expected .*4, 5, 6"),
        (lambda: GRID @ Mask(jnp.ones((4, 5, 7))), r"^Mask: got .*\(4, 5, 7\), expected .*4, 5, 6"),
        (lambda: GRID @ Plane((1, 5, 6)), r"^Plane: got images of shape \(5, 6\), expected .*4, 5, 6"),
        (lambda: NUFFTEncoding(K, SHAPE, backend="fft"), r"^backend: got 'fft', expected one of auto"),
        (lambda: NUFFTEncoding(K, SHAPE, eps=2.0), r"^eps: got 2.0"),
        (lambda: GENERAL.forward(jnp.ones((4, 5, 7))), r"^image: got .*\(4, 5, 7\).*\(\.\.\., 4, 5, 6\)"),
        (lambda: SEEN.forward(jnp.ones((4, 5, 7))), r"^image: got .*\(4, 5, 7\).*\(\.\.\., 4, 5, 6\)"),
        (lambda: SEEN.normal()(jnp.ones((5, 6))), r"^image: got .*\(5, 6\).*, expected"),
        (lambda: GENERAL.adjoint(jnp.ones(6)), r"^kspace: got .*\(6,\).*, expected shape \(\.\.\., 5\)"),
        (lambda: SEEN.adjoint(jnp.ones(5)), r"^kspace: got .*\(5,\).*, expected shape \(\.\.\., 3, 5\)"),
        (lambda: GENERAL.adjoint(jnp.ones(5), jnp.ones(1)), r"^weights: got .*\(1,\).*, expected .*\(5,\)"),
        (lambda: SEEN.adjoint(jnp.ones((3, 5)), jnp.ones(3)), r"^weights: got .*\(3,\).*, expected .*\(5,\)"),
        (lambda: GENERAL.adjoint(jnp.ones(5), jnp.ones(5, complex)), r"^weights: got .*complex128, expected a real"),
        (lambda: CartesianEncoding(SHAPE, jnp.ones((4, 5), bool)), r"^mask: got .*\(4, 5\).*boolean .*\(4, 5, 6\)"),
        (lambda: CartesianEncoding(SHAPE, jnp.ones(SHAPE)), r"^mask: got .*float64, expected a boolean"),
        (lambda: GRID.forward(jnp.ones((4, 6, 5))), r"^image: got .*\(4, 6, 5\)"),
        (lambda: GRID.adjoint(jnp.ones((4, 6, 5))), r"^kspace: got .*\(4, 6, 5\)"),
        (lambda: GENERAL.sum_of_normals(jnp.ones((2, 5)), jnp.ones((3, *SHAPE))), r"^images: got .*, expected 2 along"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_bad_input_is_refused_by_name(call, says):
    with pytest.raises(UsageError, match=says):
        call()


def test_encodings_are_composed_with_maps_alone():
    with pytest.raises(TypeError):
        GRID @ jnp.ones(SHAPE)
