"""The simulated scan: images are reconstructions of explicit samples, noise is what it says from sample to bound."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.design import Problem, bound, noise, nrmse, scaled_error
from acqdesign.encoding import Coils, Lines, StraightLineEncoding, density_weights, pipe_density
from acqdesign.recon import CG, DensityAdjoint, Prior, Subspace, cg_sense, posterior_mean, spectral_prior
from acqdesign.recon import nrmse as relative_error
from acqdesign.scene import Scene, Tissue, brain, tissues
from acqdesign.scene.scene import head_mask
from acqdesign.signal import FSE, SSFPFID, relative_bounds

from ._problems import ECHOES, KEY, PLANE, gradient, joint, loss, of_lines, points

image = eqx.filter_jit(lambda problem, key=KEY: problem.scan(key=key).image)


def with_phase(scene):
    """Complex images of two anatomies, of a phase that varies over the head."""
    turn = np.exp(1j * np.random.default_rng(0).uniform(-1, 1, scene.shape))
    maps = jnp.concatenate([scene.maps, scene.maps[:, :, :, ::-1]], axis=1) * turn
    return Scene(scene.image(scene.contrast)[None] * turn if scene.tissue is None else maps, None, smaps=scene.smaps)


def explicit(problem):
    """The encoding put together by hand."""
    lines, scene = problem.trajectory, problem.scene
    encoding = StraightLineEncoding(lines.points, scene.shape, lines.samples or scene.shape[0], readout=lines.readout)
    return encoding if scene.smaps is None else encoding @ Coils(scene.smaps)


# Without a sequence


@pytest.mark.parametrize("coils", [1, 3])
def test_an_image_of_lines_is_cg_sense_of_explicit_samples(coils):
    """The ridge is relative to a fully sampled scan, whose eigenvalues are samples per voxel of the readout."""
    scene = with_phase(brain((5, 8, 7), coils=coils, dtype=np.float64))
    problem = of_lines(scene=scene, reconstruction=CG(ridge=0.02, iterations=4))

    @eqx.filter_jit
    def by_hand(problem):
        encoding, truth = explicit(problem), problem.scene.image()
        return cg_sense(encoding, encoding.forward(truth), ridge=0.02 * 9 / 5, iterations=4), truth

    found, truth = by_hand(problem)
    np.testing.assert_allclose(image(problem), found, atol=1e-10)
    assert float(loss(problem)) == pytest.approx(float(relative_error(found, truth).mean()), rel=1e-9)


@pytest.mark.parametrize(("density", "coils", "inclusive"), [("pipe", 3, False), ("least-squares", 1, True)])
def test_the_adjoint_recipe_is_its_formula(density, coils, inclusive):
    """`Aᴴ (D ⊗ w) A f` over its mean, against `f` over its own: mri-nufft's loss; prepared or not."""
    scene = with_phase(brain((5, 8, 7), coils=coils, dtype=np.float64))
    readout = {"readout": jnp.linspace(-0.5, 0.5, 9)} if inclusive else {"samples": 9}
    lines = Lines(points(20), **readout)
    recon = DensityAdjoint(density)
    problem = Problem(scene, lines, terms=scaled_error(), reconstruction=recon)

    @eqx.filter_jit
    def by_hand(problem):
        encoding, truth = explicit(problem), jnp.abs(problem.scene.image())
        along = problem.trajectory.operator(problem.scene).readout
        weights = density_weights(density, lines.points, (8, 7), 10)[:, None] * pipe_density(along[:, None], (5,), 10)
        found = jnp.abs(encoding.adjoint(encoding.forward(problem.scene.image()) * weights))
        ours, theirs = (a / a.mean((1, 2, 3), keepdims=True) for a in (found, truth))
        return jnp.mean((ours - theirs) ** 2)

    want = by_hand(problem)
    np.testing.assert_allclose(loss(problem), want, rtol=1e-9)
    np.testing.assert_allclose(loss(problem.prepared()), want, rtol=1e-9)
    assert problem.prepared().reconstruction.images is not None


def test_a_stopped_density_is_constant_under_differentiation():
    """The gradient is that with the weights held, and far from that of the loss."""
    make = lambda density: of_lines(terms=scaled_error(), reconstruction=DensityAdjoint(density))  # noqa: E731
    problem = make("pipe")
    weights = density_weights("pipe", problem.trajectory.points, (8, 7), 10)[:, None]
    weights = weights * pipe_density(explicit(problem).readout[:, None], (5,), 10)

    def held(encoding, kspace, noise):
        return encoding.adjoint(kspace.array * weights)

    plain = of_lines(terms=scaled_error(), reconstruction=held)
    want, stopped, through = (
        np.asarray(gradient(p)[2].trajectory.points) for p in (plain, make("pipe-stopped"), problem)
    )
    np.testing.assert_allclose(stopped, want, atol=1e-9 * np.abs(want).max())
    assert np.linalg.norm(through - want) > 0.05 * np.linalg.norm(want)


# With both halves


def test_an_image_of_both_halves_is_the_reconstruction_of_explicit_samples():
    """Samples of all classes, matched filter, regularised solution, one real scale."""
    problem = joint(noise=0.0, reconstruction=Prior(ridge=1e-2, iterations=6))
    echo = np.arange(24) % ECHOES

    @eqx.filter_jit
    def by_hand(problem):
        scene, encoding = problem.scene, explicit(problem)
        target = scene.image(problem.sequence.contrast(scene.tissue))[0]
        signal = problem.sequence.signal(scene.tissue)
        # How much of the target is in each echo's image, by least squares.
        echoes = jnp.einsum("ce,cxyz->exyz", signal, scene.maps[:, 0])
        weights = (jnp.einsum("exyz,xyz->e", echoes, target) / jnp.sum(target**2))[echo]
        samples = jnp.einsum("cs,csr->sr", signal[:, echo], encoding.forward(scene.maps[:, 0]))
        rhs, prior = encoding.adjoint(samples, weights), spectral_prior((10, 8), 1.5, dtype=jnp.float64)
        where = head_mask(scene.density()[0])
        found = posterior_mean(encoding.normal(weights**2), rhs, prior, ridge=1e-2, iterations=6, support=where)
        return found * jnp.sum((found * target).real) / jnp.sum(jnp.abs(found) ** 2), target

    found, target = by_hand(problem)
    np.testing.assert_allclose(image(problem)[0], found, atol=1e-9)
    assert float(loss(problem)) == pytest.approx(float(relative_error(found, target)), rel=1e-9)


def test_samples_are_those_of_every_class_at_its_amplitude():
    """Explicit samples and the kernels that reconstructions use agree, with coils, complex signals and noise."""

    class Turned(FSE):
        def signal(self, tissue):
            return super().signal(tissue) * jnp.exp(1j * jnp.arange(6) / 3)

    problem = joint(coils=2)
    turned = Turned(problem.sequence.flips, 5e-3, te=15e-3)
    problem = Problem(problem.scene, problem.trajectory, turned, noise=0.05, order=None)

    @eqx.filter_jit
    def both(problem):
        seen = []

        def watch(encoding, kspace, noise):
            seen.append((kspace.array, encoding.adjoint(kspace), encoding.adjoint(kspace.array)))
            return encoding.adjoint(kspace)

        scan = problem.judged_by(reconstruction=watch).scan(key=KEY)
        scan.image  # noqa: B018
        signal = scan.amplitudes
        samples = jnp.einsum("cs,cakse->akse", signal, scan.encoding.forward(problem.scene.maps)) + scan.noise
        return *seen[0], samples

    samples, by_kernel, by_samples, wanted = both(problem)
    np.testing.assert_allclose(samples, wanted, atol=1e-12)
    np.testing.assert_allclose(by_kernel, by_samples, atol=1e-12)


def test_a_full_subspace_fits_each_tissue_better():
    """With the whole subspace and ample lines, no contrast is left unexplained: the error falls to the ridge's."""
    scene = brain(PLANE, dtype=np.float64)
    given = {"lines": 600, "noise": 0.0, "scene": scene, "esp": 0.04}
    whole = joint(**given, reconstruction=Subspace(rank=3, ridge=1e-8, iterations=200, exponent=0.0))
    single = joint(**given, reconstruction=Prior(ridge=1e-8, iterations=200, exponent=0.0))
    assert float(loss(whole)) < 0.1 * float(loss(single))


def test_the_point_spread_of_full_sampling_is_the_prior_s_wiener_filter():
    """Equal amplitudes on the whole grid: the response to a point is s²/(s² + ridge) in k-space."""
    grid = jnp.stack(jnp.meshgrid(jnp.arange(10) / 10 - 0.5, jnp.arange(8) / 8 - 0.5, indexing="ij"), -1)
    maps, tissue = brain(PLANE, dtype=np.float64).maps[:1], Tissue(jnp.array([1.0]), jnp.array([0.08]))
    train = FSE(jnp.array([jnp.pi]), 5e-3, te=5e-3)
    lines, prior = Lines(grid.reshape(-1, 2), samples=1), Prior(ridge=0.1, iterations=60)
    problem = Problem(Scene(maps, tissue), lines, train, reconstruction=prior)
    # With a pulse of 180° the only echo is the target itself.
    found = eqx.filter_jit(lambda p: p.scan().point_spread)(problem)
    power = spectral_prior((10, 8), 1.5, dtype=jnp.float64) ** 2
    wanted = jnp.fft.fftshift(jnp.fft.ifft2(power / (power + 0.1)))
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_tissues_that_a_scanner_does_not_know_are_reconstructed_with_those_assumed():
    """Judging changes data and target, never what the reconstruction assumes."""
    problem = joint(noise=0.0)
    scene = problem.scene
    tissue = eqx.tree_at(lambda t: (t.t1, t.t2), scene.tissue, (0.9 * scene.tissue.t1, 1.4 * scene.tissue.t2))
    other = eqx.tree_at(lambda s: (s.tissue, s.ensemble), scene, (tissue, tissue))
    knowing, blind = joint(noise=0.0, scene=other), problem.judged_on(other)
    np.testing.assert_array_equal(knowing.scan().target, blind.scan().target)
    assert float(loss(blind)) != float(loss(knowing))
    assert float(loss(problem.judged_on(scene))) == pytest.approx(float(loss(problem)), rel=1e-12)


def test_each_scan_looks_only_where_its_own_head_is():
    """Whatever is known of another head; in a new pose at every step, where that pose is."""
    problem = joint()
    there = jnp.roll(problem.scene.maps, 2, axis=3).at[:, :, :, :4].set(0)
    moved = problem.judged_on(Scene(there, problem.scene.tissue))
    head = moved.scene.support[0]
    assert 0 < head.mean() < 0.8
    np.testing.assert_array_equal(image(moved)[0] != 0, head == 1)
    half = brain(PLANE, augment=True, dtype=np.float64)
    half = eqx.tree_at(lambda s: s.poses.fine, half, half.poses.fine.at[:, :, :, :10].set(0))
    turning = joint(scene=half)
    there = eqx.filter_jit(lambda p: p.scan(key=KEY).scene.support)(turning)[0]
    assert 0 < there.mean() < 0.8
    np.testing.assert_array_equal(image(turning)[0] != 0, there == 1)


def test_every_step_has_a_pose_of_its_own():
    turning = of_lines(scene=brain((5, 8, 7), augment=True, dtype=np.float64))
    assert float(loss(turning)) == float(loss(turning))
    assert abs(float(loss(turning)) - float(loss(turning, key=jax.random.key(4)))) > 1e-4
    posed = eqx.filter_jit(lambda p: p.scan(key=KEY).scene)(turning).fixed()
    assert float(loss(of_lines(scene=posed))) == pytest.approx(float(loss(turning)), rel=1e-9)


# Noise: one meaning from samples to bounds


@pytest.mark.parametrize("samples", [10, 20])
def test_noise_of_a_full_unitary_scan_is_handed_on(samples):
    """Each part of each voxel has the stated deviation, white; twice the samples halve its variance."""
    shape, sigma = (10, 12, 11), 0.1
    scene = brain(shape, dtype=np.float64)
    problem = Problem(scene, Lines.full(scene, samples=samples), reconstruction=CG(ridge=0.0), noise=sigma)
    found = np.asarray(image(problem) - problem.scan().target).ravel()
    # 1320 voxels: six standard errors of a deviation are 12 %.
    for part in (found.real, found.imag):
        np.testing.assert_allclose(part.std(), sigma * np.sqrt(10 / samples), rtol=0.12)
        assert abs(part.mean()) < 6 * part.std() / np.sqrt(part.size)
    assert abs(np.corrcoef(found.real, found.imag)[0, 1]) < 6 / np.sqrt(found.size)
    other = np.asarray(image(problem, jax.random.key(4)) - problem.scan().target).ravel()
    assert np.abs(other - found).max() > sigma / 10


@pytest.mark.parametrize("halves", ["lines", "both"])
def test_each_part_of_each_sample_has_the_stated_deviation(halves):
    problem = of_lines(lines=200, noise=0.3, coils=2) if halves == "lines" else joint(lines=600, noise=0.3, coils=2)
    found = np.asarray(problem.scan(key=KEY).noise).ravel()
    for part in (found.real, found.imag):
        assert abs(part.std() / 0.3 - 1) < 6 / np.sqrt(2 * part.size)


@pytest.mark.parametrize("reconstruction", [Prior(), Subspace()], ids=["prior", "subspace"])
def test_the_noise_term_is_the_standard_deviation_of_reconstructions(reconstruction):
    """The estimate from single realisations against the spread of many noisy reconstructions."""
    problem = joint(terms=nrmse() + noise(), reconstruction=reconstruction, noise=0.02)

    @eqx.filter_jit
    def both(problem, keys):
        def once(key):
            scan = problem.scan(key=key)
            return scan.image, problem.terms(scan)[1]["noise"]

        return jax.lax.map(once, keys, batch_size=50)

    noisy, terms = both(problem, jax.random.split(jax.random.key(5), 300))
    rms = jnp.sqrt(jnp.mean(problem.scan().target ** 2))
    spread = jnp.sqrt(jnp.mean(jnp.abs(noisy - noisy.mean(0)) ** 2)) / rms
    # The scale that fits each noisy image to the target varies too: a few per cent.
    assert float(jnp.mean(terms)) == pytest.approx(float(spread), rel=0.1)


def test_bounds_are_for_the_noise_of_the_samples():
    """Fitting T2 to echoes of full unitary scans with the problem's own noise has the bound's standard deviation.

    One voxel, its M0 and T2 unknown, fitted by least squares to many noisy trains.
    """
    sigma, tissue = 0.01, Tissue(jnp.array([1.0]), jnp.array([0.08]))
    train = FSE(jnp.full(8, jnp.pi), 10e-3)
    maps = jnp.ones((1, 1, 1, 1, 1))
    problem = Problem(Scene(maps, tissue), Lines(jnp.zeros((8, 2)), samples=1), train, noise=sigma, order=None)

    @eqx.filter_jit
    def samples(problem, keys):
        def once(key):
            scan = problem.scan(key=key)
            return scan.amplitudes[0] * scan.encoding.forward(scan.scene.maps)[0, 0, :, 0] + scan.noise[0, :, 0]

        return jax.vmap(once)(keys)

    found = np.asarray(samples(problem, jax.random.split(KEY, 4000)))
    signal = lambda t2: np.asarray(train.signal(Tissue(1.0, t2)))  # noqa: E731
    middle, slope = signal(0.08), (signal(0.0801) - signal(0.0799)) / 2e-4
    columns = np.stack([slope, middle, 1j * middle], -1)
    real = lambda x: np.concatenate([x.real, x.imag])  # noqa: E731
    fitted = [np.linalg.lstsq(real(columns), real(y - middle), rcond=None)[0][0] for y in found]
    bounded = np.sqrt(problem.scan().bounds("t2")[0]) * 0.08
    # 4000 fits: six standard errors of a deviation are 7 %.
    assert np.std(fitted) == pytest.approx(float(bounded), rel=0.07)


def test_bounds_of_a_problem_are_those_of_its_sequence_over_the_ensemble():
    """In units of the noise's variance."""
    both = lambda p: (p.scan().bounds("t2"), relative_bounds(p.sequence, p.scene.tissue, ("t2",)))  # noqa: E731
    found, plain = eqx.filter_jit(both)(joint(noise=0.05))
    np.testing.assert_allclose(found, 0.05**2 * plain, rtol=1e-12)


def test_a_train_without_signal_bounds_nothing():
    """The Fisher matrix is singular: infinity, not NaN."""
    problem = Problem(tissues("wm", "gm"), sequence=SSFPFID(jnp.zeros(4), 0.01), terms=bound("t2"))
    assert float(loss(problem)) == np.inf


# Precision


@pytest.mark.parametrize("make", [of_lines, joint], ids=["lines", "both"])
def test_single_precision_stays_and_agrees(make):
    more = {"reconstruction": Prior(ridge=1e-2)} if make is joint else {}
    # Noise of one key differs between precisions.
    single, double = (loss(make(dtype=dtype, noise=0.0, **more)) for dtype in (np.float32, np.float64))
    assert (single.dtype, double.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(single, double, rtol=1e-4)


@pytest.mark.parametrize(
    ("reconstruction", "terms"), [(Prior(), nrmse() + bound("t2")), (Subspace(), nrmse() + noise())]
)
def test_every_product_of_a_step_is_in_full_precision(reconstruction, terms):
    """GPUs would take TF32, of ten bits, for products that do not ask for more."""
    problem = joint(coils=2, reconstruction=reconstruction, terms=terms)
    arrays, static = eqx.partition(problem, eqx.is_array)
    program = jax.jit(lambda arrays: gradient(eqx.combine(arrays, static))).lower(arrays).as_text()
    products = [line for line in program.splitlines() if "dot_general" in line]
    assert len(products) > 10
    assert all("HIGHEST" in line for line in products)
