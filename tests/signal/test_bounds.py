"""Cramér–Rao bounds against closed forms, a Monte-Carlo fit and central differences."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.special

from acqdesign.base.checks import UsageError
from acqdesign.design import Problem, bound, learn
from acqdesign.optim import Box, lbfgs
from acqdesign.scene.tissue import Tissue, tissues
from acqdesign.signal import (
    DESS,
    FSE,
    SPGR,
    SSFPFID,
    InversionRecovery,
    SelectivePulse,
    crlb,
    reduce_bounds,
    relative_bounds,
    simulate,
    sinc_pulse,
    tissue_bounds,
)
from acqdesign.signal.bounds import rician_information

from ._bloch import central_difference
from ._functions import fse

bounds_of = jax.jit(crlb)

TE = jnp.linspace(5.0, 160.0, 16)


def decay(t2, te=TE):
    return jnp.exp(-te / t2)


def test_bound_is_the_inverse_fisher_matrix(rng):
    """Of complex, weighted samples: `inv(Re(Jᴴ W J) / σ²)`."""
    jacobian = rng.normal(size=(4, 9, 3)) + 1j * rng.normal(size=(4, 9, 3))
    weights = rng.uniform(0.5, 2, (4, 9))
    fisher = np.real(np.swapaxes(jacobian.conj(), 1, 2) @ (weights[..., None] * jacobian)) / 2.0**2
    found = bounds_of(jnp.asarray(jacobian), noise=2.0, weights=jnp.asarray(weights))
    np.testing.assert_allclose(found, np.diagonal(np.linalg.inv(fisher), axis1=1, axis2=2), rtol=1e-11)


def test_complex_scale_is_a_nuisance_of_two(rng):
    """Equal to two explicit columns for the real and the imaginary part of M0."""
    jacobian = jnp.asarray(rng.normal(size=(9, 2)) + 1j * rng.normal(size=(9, 2)))
    signal = jnp.asarray(rng.normal(size=9) + 1j * rng.normal(size=9))
    columns = jnp.concatenate([jacobian, signal[:, None], 1j * signal[:, None]], axis=1)
    np.testing.assert_allclose(bounds_of(jacobian, signal=signal), bounds_of(columns)[:2], rtol=1e-10)
    # For a real signal the imaginary part tells nothing of real derivatives.
    real = bounds_of(jacobian.real, signal=signal.real)
    projected = jacobian.real - jnp.outer(signal.real, signal.real @ jacobian.real) / (signal.real @ signal.real)
    np.testing.assert_allclose(real, bounds_of(projected), rtol=1e-10)


def test_other_unknowns_are_nuisances(rng):
    """Columns of no interest raise the bounds as columns of interest do; a known parameter does not."""
    jacobian = jnp.asarray(rng.normal(size=(2, 9, 3)))
    signal, others = jnp.asarray(rng.normal(size=(2, 9))), jnp.asarray(rng.normal(size=(2, 9, 2)))
    found = bounds_of(jacobian, signal=signal, nuisance=others, noise=0.2)
    columns = jnp.concatenate([jacobian, signal[..., None], others], axis=-1)
    np.testing.assert_allclose(found, bounds_of(columns, noise=0.2)[..., :3], rtol=1e-10)
    assert (found > bounds_of(jacobian, noise=0.2)).all()


def test_bounds_of_a_sequence():
    """Those of its derivatives: M0 as a nuisance, known, or itself in question; relative; over a slice."""
    sequence = FSE(jnp.linspace(1.0, 2.5, 8), 0.01, phases=jnp.linspace(0, 1, 8))
    tissue = Tissue(t1=jnp.array([1.0, 2.0]), t2=jnp.array([0.1, 0.2]), m0=1.5)

    @jax.jit
    def by_hand(t1, t2):
        signal = lambda t, m0=1.5: fse(sequence.flips, 0.01, t[0], t[1], m0=m0, phases=sequence.phases)  # noqa: E731
        t = jnp.stack([t1, t2])
        slopes = jax.jacfwd(lambda t: (lambda x: jnp.concatenate([x.real, x.imag]))(signal(t)))(t)
        unit = signal(t, 1.0)
        scale = jnp.stack([jnp.concatenate([(p * unit).real, (p * unit).imag]) for p in (1, 1j)], axis=-1)
        both = jnp.concatenate([slopes, scale], axis=-1)
        return jnp.diagonal(jnp.linalg.inv(both.T @ both)), jnp.diagonal(jnp.linalg.inv(slopes.T @ slopes))

    @jax.jit
    def bounds(tissue):
        relative = tissue_bounds(sequence, tissue, ("t2", "t1", "m0"), relative=True)
        return tissue_bounds(sequence, tissue), tissue_bounds(sequence, tissue, nuisance=()), relative

    unknown, with_m0, relative = bounds(tissue)
    for i, (t1, t2) in enumerate([(1.0, 0.1), (2.0, 0.2)]):
        free, known = by_hand(t1, t2)
        np.testing.assert_allclose(unknown[i], free[:2], rtol=1e-9)
        np.testing.assert_allclose(with_m0[i], known, rtol=1e-9)
        wanted = free[jnp.array([1, 0, 2])] / jnp.array([t2, t1, 1.5]) ** 2
        np.testing.assert_allclose(relative[i], wanted, rtol=1e-9)
    with pytest.raises(ValueError, match="targets: got 't3'"):
        tissue_bounds(sequence, tissue, ("t3",))


def test_bounds_do_not_depend_on_the_phase_of_m0():
    """The receiver's phase turns the samples and tells nothing: bounds are those of a real M0, target or nuisance."""
    sequence = FSE(jnp.full(16, 2.0), 0.01)

    @jax.jit
    def bounds(m0):
        tissue = Tissue(1.0, 0.1, m0=m0)
        return tissue_bounds(sequence, tissue, ("t2", "m0"), nuisance=()), tissue_bounds(sequence, tissue)

    target, nuisance = bounds(jnp.asarray(1.0))
    np.testing.assert_allclose(target, [0.0280, 0.871], rtol=1e-3)
    for phase in (0.0, 0.3, math.pi / 2, 2.0, math.pi, -1.2):
        turned = bounds(jnp.exp(1j * phase))
        np.testing.assert_allclose(turned[0], target, rtol=1e-12)
        np.testing.assert_allclose(turned[1], nuisance, rtol=1e-11)


def test_m0_is_bounded_along_its_own_phase():
    """Its size is what is bounded, with any phases of pulses; the phase stays a nuisance, named as one or not."""
    sequence = FSE(jnp.linspace(1.0, 2.5, 8), 0.01, phases=jnp.linspace(0, 1, 8))
    size = 1.5

    @jax.jit
    def found(m0):
        tissue = Tissue(1.0, 0.1, m0=m0)
        given = [
            tissue_bounds(sequence, tissue, targets, nuisance=nuisance)
            for targets in (("m0", "t2"), ("t2", "m0"))
            for nuisance in ((), ("m0",))
        ]
        return given, tissue_bounds(sequence, tissue, ("m0", "t2"), relative=True)

    @jax.jit
    def by_polar_coordinates():
        """The Fisher matrix of T2, the size and the phase, by derivatives of real and imaginary parts."""

        def parts(theta):
            signal = fse(
                sequence.flips, 0.01, 1.0, theta[0], m0=theta[1] * jnp.exp(1j * theta[2]), phases=sequence.phases
            )
            return jnp.concatenate([signal.real, signal.imag])

        slopes = jax.jacfwd(parts)(jnp.array([0.1, size, 0.7]))
        return jnp.diagonal(jnp.linalg.inv(slopes.T @ slopes))

    t2, m0, _ = by_polar_coordinates()
    for phase in (0.0, 0.7, -2.5):
        both, relative = found(size * jnp.exp(1j * phase))
        for bounds, wanted in zip(both, ([m0, t2], [m0, t2], [t2, m0], [t2, m0]), strict=True):
            np.testing.assert_allclose(bounds, wanted, rtol=1e-9)
        np.testing.assert_allclose(relative, [m0 / size**2, t2 / 0.1**2], rtol=1e-9)


def test_other_fields_as_nuisances_and_a_slice():
    """B1 or B0 unknown are further columns of the Fisher matrix; a slice's are summed over its positions."""
    pulse = SelectivePulse(sinc_pulse(32, 2.0), 2.0, positions=6)
    plain, selective = (
        SPGR(jnp.linspace(0.1, 0.6, 9), 0.02, jnp.linspace(2e-3, 1.8e-2, 9), state="ideal", pulse=one)
        for one in (None, pulse)
    )
    tissue = Tissue(0.9, 0.1, b0=20.0)

    @jax.jit
    def run():
        """Bounds, and slopes by T1, T2, B1 and B0 of both sequences."""

        def parts(theta, sequence):
            t1, t2, b1, b0 = theta
            signal = simulate(sequence, Tissue(t1, t2, b1=b1, b0=b0))
            return jnp.concatenate([signal.real, signal.imag])

        given = [(plain, ("b1", "b0")), (plain, ("b1",)), (selective, ()), (selective, ("b1",))]
        return (
            [tissue_bounds(sequence, tissue, ("t1", "t2"), nuisance=names) for sequence, names in given],
            [jax.jacfwd(parts)(jnp.array([0.9, 0.1, 1.0, 20.0]), each) for each in (plain, selective)],
        )

    bounds, (by_all, sliced) = jax.device_get(run())
    for found, columns in zip(bounds, (by_all, by_all[:, :3], sliced[:, :2], sliced[:, :3]), strict=True):
        wanted = np.diagonal(np.linalg.inv(columns.T @ columns))[:2]
        np.testing.assert_allclose(found, wanted, rtol=1e-8)


def test_b0_can_be_bounded_where_a_tissue_has_none():
    """What is unknown about it is then its difference from zero."""
    sequence = SPGR(jnp.full(5, 0.3), 0.02, jnp.linspace(2e-3, 1.8e-2, 5), state="ideal")
    bounds = jax.jit(lambda tissue: tissue_bounds(sequence, tissue, ("b0", "t2"), nuisance=()))
    without, zero = (bounds(Tissue(0.9, 0.1, b0=b0)) for b0 in (None, 0.0))
    assert np.isfinite(zero).all()
    np.testing.assert_array_equal(without, zero)


def test_relative_bounds_of_designs_are_sums_for_unit_m0():
    """Over targets, with M0 a nuisance and noise in units of it: the proton density does not matter."""
    sequence = SPGR(jnp.linspace(0.1, 0.6, 9), 0.02, jnp.linspace(2e-3, 1.8e-2, 9), state="ideal")
    t1, t2, targets = np.array([1.0, 2.0]), np.array([0.1, 0.2]), ("t1", "t2")
    wanted = jax.jit(lambda t: tissue_bounds(sequence, t, targets, noise=0.01, relative=True))(Tissue(t1, t2))
    relative = jax.jit(lambda tissue: relative_bounds(sequence, tissue, targets, noise=0.01))
    for m0 in (1.0, 0.4, 0.7j):
        found = relative(Tissue(t1, t2, m0=m0))
        np.testing.assert_allclose(found, wanted.sum(axis=-1), rtol=1e-12)


def test_names_of_bounds_that_are_refused():
    """Unknown names, targets that are nuisances too, and fields that the tissue has not."""
    sequence, tissue = FSE(jnp.ones(4), 0.01), Tissue(1.0, 0.1)
    with pytest.raises(UsageError, match=r"nuisance: got 't3', expected one of t1, t2"):
        tissue_bounds(sequence, tissue, nuisance=("t3",))
    with pytest.raises(UsageError, match=r"nuisance: got t2, expected names that are not among the targets"):
        tissue_bounds(sequence, tissue, ("t1", "t2"), nuisance=("t2",))
    with pytest.raises(UsageError, match=r"targets: got diffusivity, of which the tissue has none"):
        tissue_bounds(sequence, tissue, ("diffusivity",))


def test_relative_bounds(rng):
    jacobian, theta = jnp.asarray(rng.normal(size=(12, 2))), jnp.array([1.0, 0.1])
    relative = bounds_of(jacobian, noise=0.01, values=theta)
    np.testing.assert_allclose(relative, bounds_of(jacobian, noise=0.01) / theta**2, rtol=1e-12)


def test_monte_carlo_fit_reaches_the_bound(rng):
    """The variance of maximum-likelihood fits of T2 and M0 is the bound, within the error of 400 fits."""
    noise, truth, te = 0.005, np.array([80.0, 1.0]), np.asarray(TE)
    jacobian = jax.jacfwd(lambda p: p[1] * decay(p[0]))(jnp.asarray(truth))
    bound = np.asarray(bounds_of(jacobian, noise=noise))
    fits = []
    for _ in range(400):
        data = np.exp(-te / 80.0) + noise * rng.normal(size=te.size)
        fits.append(scipy.optimize.least_squares(lambda p, d=data: p[1] * np.exp(-te / p[0]) - d, truth).x)
    np.testing.assert_allclose(np.var(fits, axis=0), bound, rtol=4 * np.sqrt(2 / 400))


def test_what_cannot_be_told_is_infinite_and_gradients_stay_finite():
    """Equal columns and zero columns give `inf`, not NaN; the gradient elsewhere is finite."""
    column = jnp.arange(1.0, 6.0)
    assert np.isinf(bounds_of(jnp.stack([column, 2 * column], axis=1))).all()
    found = bounds_of(jnp.stack([column, jnp.zeros(5)], axis=1))
    assert np.isfinite(found[0])
    assert np.isinf(found[1])

    @jax.jit
    @jax.value_and_grad
    def bound(scale):
        return crlb(jnp.stack([column * scale, jnp.zeros(5)], axis=1))[0]

    value, slope = bound(2.0)
    assert float(slope) == pytest.approx(-2 * float(value) / 2.0)


def test_gradient_of_a_bound(rng):
    flips = jnp.asarray(rng.uniform(0.5, 2.5, 10))

    @jax.jit
    def bound(flips):
        def along(flips):
            signal = lambda t: fse(flips, 0.01, t[0], t[1])  # noqa: E731
            theta = jnp.array([1.0, 0.1])
            return jnp.sum(bounds_of(jax.jacfwd(signal)(theta), signal=signal(theta), values=theta))

        return jax.value_and_grad(along)(flips)

    direction = jnp.asarray(rng.normal(size=10))
    wanted = central_difference(lambda x: bound(x)[0], flips, direction, 1e-3)
    np.testing.assert_allclose(bound(flips)[1] @ direction, wanted, rtol=1e-8)


def test_monotone_in_noise_and_samples():
    jacobian = jax.jacfwd(lambda p: p[1] * decay(p[0]))(jnp.array([80.0, 1.0]))
    assert (bounds_of(jacobian, noise=2.0) > bounds_of(jacobian, noise=1.0)).all()
    assert (bounds_of(jacobian[:8]) > bounds_of(jacobian)).all()


def test_many_bounds_reduce_to_their_mean_or_a_smooth_maximum():
    bounds = jnp.array([1.0, 2.0, 4.0])
    assert float(reduce_bounds(bounds)) == pytest.approx(7 / 3)
    assert float(reduce_bounds(bounds, weights=jnp.array([2.0, 1.0, 1.0]))) == pytest.approx(2.0)
    worst = float(reduce_bounds(bounds, "max"))
    assert 4.0 <= worst <= 3**0.125 * 4.0
    assert np.isinf(reduce_bounds(jnp.array([1.0, jnp.inf]), "max"))


def test_errors():
    with pytest.raises(ValueError, match=r"noise: got 0.0"):
        crlb(jnp.ones((3, 1)), noise=0.0)
    with pytest.raises(ValueError, match=r"weights: .*one for each sample"):
        crlb(jnp.ones((3, 1)), weights=jnp.ones(2))
    with pytest.raises(ValueError, match="one of mean, max"):
        reduce_bounds(jnp.ones(2), "median")


def test_nuisance_by_name_is_what_the_full_information_says():
    """B1, B0, T2' and an inversion's efficiency beside M0: the inverse of the whole matrix, by differences."""
    sequence = SSFPFID(jnp.linspace(0.2, 1.1, 12), 0.012, 0.004, inversion_time=0.03)
    at = {"t1": 0.9, "t2": 0.08, "b1": 0.95, "b0": 6.0, "t2_prime": 0.05, "inversion_efficiency": 0.96}

    def signal(**moved):
        given = at | moved
        efficiency = given.pop("inversion_efficiency")
        made = SSFPFID(sequence.flips, 0.012, 0.004, inversion_time=0.03, inversion_efficiency=efficiency)
        return np.asarray(made.signal(Tissue(**given)))

    columns = [signal(), 1j * signal()]
    columns += [(signal(**{n: v * (1 + 1e-5)}) - signal(**{n: v * (1 - 1e-5)})) / (2e-5 * v) for n, v in at.items()]
    stacked = np.stack([np.concatenate([c.real, c.imag]) for c in columns], axis=1)
    wanted = np.diag(np.linalg.inv(stacked.T @ stacked))[2:4]
    tissue = Tissue(**{name: value for name, value in at.items() if name != "inversion_efficiency"})
    with_own = eqx.tree_at(lambda s: s.inversion_efficiency, sequence, 0.96)
    names = ("m0", "b1", "b0", "t2_prime", "inversion_efficiency")
    found = tissue_bounds(with_own, tissue, ("t1", "t2"), nuisance=names)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    relative = tissue_bounds(with_own, tissue, ("t1", "t2"), nuisance=names, relative=True)
    np.testing.assert_allclose(relative, wanted / np.array([0.9, 0.08]) ** 2, rtol=1e-4)
    # An off-resonance of zero is as unknown as any other.
    at_zero = [
        tissue_bounds(with_own, Tissue(0.9, 0.08, b0=b0), ("t2",), nuisance=("m0", "b0"), relative=True)
        for b0 in (0.0, 1e-9)
    ]
    np.testing.assert_allclose(*at_zero, rtol=1e-6)


def test_more_unknowns_than_samples_give_infinity_and_a_word(caplog):
    """Two real numbers cannot say three."""
    sequence = DESS([0.5], 0.02, 4e-3)
    with caplog.at_level("WARNING", "acqdesign"):
        found = tissue_bounds(sequence, Tissue(0.9, 0.08), ("t1", "t2"))
    assert np.isinf(found).all()
    assert "2 numbers of DESS for 3 unknowns (t1, t2, m0): some bounds are infinite" in caplog.text
    with pytest.raises(UsageError, match="nuisance: got 'efficiency', expected one of t1, t2"):
        tissue_bounds(sequence, Tissue(0.9, 0.08), ("t1",), nuisance=("efficiency",))


class Phased(SSFPFID):
    """The same with phases that are learned."""

    phases: Any = None


def test_phases_are_learned_where_a_class_says_so():
    """By one line: they move, within their own limits, and lower the bound with B1 unknown."""
    start = Phased(jnp.full(16, 0.6), 0.01, 0.002, phases=0.1 * jnp.cos(jnp.arange(16.0)), inversion_time=0.02)
    terms = bound("t1", "t2", nuisance=("m0", "b1"))
    limits = [Box("sequence.phases", -0.5, 0.5)]
    problem = Problem(tissues("wm"), sequence=start, terms=terms, limits=limits)
    assert set(problem.learned()) == {"sequence.flips", "sequence.phases"}
    result, design, _ = learn(problem, 6, optimizer=lbfgs())
    assert result.final_loss < result.initial_loss
    assert np.abs(design.sequence.phases - start.phases).max() > 1e-3
    assert np.abs(design.sequence.phases).max() <= 0.5


def test_magnitudes_say_what_their_density_says():
    """The Fisher information of the Rician density by adaptive quadrature; nothing at zero, everything far above."""

    def wanted(snr):
        def inner(x):
            flat, tilt = scipy.special.ive(0, x * snr), scipy.special.ive(1, x * snr)
            return x * np.exp(-((x - snr) ** 2) / 2) * flat * (x * tilt / flat - snr) ** 2

        return scipy.integrate.quad(inner, max(snr - 10, 0), snr + 10, epsabs=1e-13, limit=200)[0]

    for dtype, tolerance in ((np.float64, 1e-9), (np.float32, 1e-5)):
        snr = np.array([0.0, 0.01, 0.5, 1.0, 3.0, 10.0, 100.0], dtype)
        np.testing.assert_allclose(rician_information(snr), [wanted(float(s)) for s in snr], atol=tolerance)
    np.testing.assert_allclose(rician_information(jnp.array([0.01, 300.0])), [1e-4, 1.0], rtol=1e-3)


def test_bounds_of_magnitudes():
    """Those of complex samples where the noise is small, above them where it is not; finite gradients at no signal."""
    train, tissue = FSE(jnp.full(16, 2.5), 0.01), Tissue(1.0, 0.08, m0=np.exp(0.4j))

    def bounds(noise, **how):
        return tissue_bounds(train, tissue, ("t2",), noise=noise, relative=True, **how)[0] / noise**2

    np.testing.assert_allclose(bounds(1e-4, magnitude=True), bounds(1e-4), rtol=1e-4)
    assert bounds(0.3, magnitude=True) > 1.5 * bounds(0.3)
    gradient = jax.grad(lambda flips: tissue_bounds(FSE(flips, 0.01), tissue, ("t2",), magnitude=True).sum())
    assert np.isfinite(gradient(jnp.full(16, 2.5).at[3].set(0.0))).all()
    signs = InversionRecovery(1.5, [0.05, 0.4, 0.9, 2.0], tr=4.0)
    found = [tissue_bounds(signs, Tissue(1.0, 0.1), ("t1",), noise=1e-4, magnitude=m) for m in (False, True)]
    np.testing.assert_allclose(*found, rtol=1e-3)
