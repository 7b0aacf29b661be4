"""What of a module learning may move, and arrays that are made of other numbers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.optim import Limits, Parametrised, Part, Scaled, Spline, held, learned_mask, resolve
from acqdesign.optim.parts import as_arrays


class Inner(eqx.Module):
    free: jax.Array
    fixed: jax.Array = held()


class Mixed(Part):
    flips: jax.Array
    esp: float
    count: jax.Array
    phases: jax.Array
    on_host: np.ndarray
    te: jax.Array = held()
    inner: Inner = None
    held_inner: Inner = held(default=None)
    several: tuple = ()
    held_several: dict = held(default_factory=dict)
    name: str = eqx.field(static=True, default="mixed")


def mixed():
    def inner():
        return Inner(jnp.ones(2), jnp.zeros(2))

    return Mixed(
        flips=jnp.ones(3), esp=5e-3, count=jnp.arange(3), phases=jnp.ones(3) * 1j, on_host=np.ones(2),
        te=jnp.ones(3), inner=inner(), held_inner=inner(), several=(jnp.ones(1), inner()),
        held_several={"a": jnp.ones(1)},
    )  # fmt: skip


def test_float_arrays_are_learned_and_nothing_else():
    """Not numbers of Python, integers, complex arrays, nor what a field or one around it holds."""
    found = mixed().learned()
    assert isinstance(found, Mixed)
    assert found.flips is True
    assert (found.esp, found.count, found.phases) == (False, False, False)
    assert found.te is False
    assert (found.inner.free, found.inner.fixed) == (True, False)
    assert (found.held_inner.free, found.held_inner.fixed) == (False, False)
    assert found.several[0] is True
    assert (found.several[1].free, found.several[1].fixed) == (True, False)
    assert found.held_several == {"a": False}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_mask_is_of_the_tree_s_own_structure_and_partitions_it(dtype):
    is_double = lambda x: getattr(x, "dtype", None) == np.float64  # noqa: E731
    part = jax.tree.map(lambda x: jnp.asarray(x, dtype) if is_double(x) else x, mixed())
    moves, rest = eqx.partition(part, learned_mask(part))
    assert [leaf.shape for leaf in jax.tree.leaves(moves)] == [(3,), (2,), (2,), (1,), (2,)]
    assert eqx.tree_equal(eqx.combine(moves, rest), part)


def test_numpy_arrays_count_once_they_are_jax_s():
    found = as_arrays(mixed())
    assert isinstance(found.on_host, jax.Array)
    assert found.learned().on_host is True
    assert found.esp == 5e-3


def test_held_takes_what_a_field_takes():
    class Converted(eqx.Module):
        x: jax.Array = held(converter=jnp.asarray, default=(1.0, 2.0))

    found = Converted()
    assert found.x.shape == (2,)
    assert learned_mask(found).x is False


def test_a_part_may_hold_single_entries_and_has_no_limits_by_itself():
    class Half(Part):
        flips: jax.Array

        def learned(self):
            return eqx.tree_at(lambda m: m.flips, learned_mask(self), jnp.array([True, False]))

    part = Half(jnp.ones(2))
    np.testing.assert_array_equal(part.learned().flips, [True, False])
    assert part.limits() == ()


class Squares(Parametrised):
    """One's own: an array that cannot be negative."""

    roots: jax.Array

    def value(self):
        return self.roots**2

    def projected(self, constraint):
        return Squares(jnp.sqrt(constraint.project(self.value())))


def test_parametrised_arrays_resolve_to_their_values_and_others_stay():
    part = Inner(Squares(jnp.array([1.0, -2.0])), jnp.ones(1))
    found = resolve(part)
    np.testing.assert_array_equal(found.free, [1.0, 4.0])
    assert found.fixed is part.fixed
    assert resolve(found) is not None
    np.testing.assert_array_equal(resolve([Scaled(jnp.ones(2), 3.0)])[0], [3.0, 3.0])


def test_of_a_parametrised_array_its_numbers_are_learned():
    found = learned_mask(Inner(Squares(jnp.ones(2)), jnp.ones(1)))
    assert (found.free.roots, found.fixed) == (True, False)
    scaled = learned_mask(Scaled(jnp.ones(2), 0.1))
    assert (scaled.relative, scaled.unit) == (True, False)
    spline = learned_mask(Spline(jnp.ones(4), 9))
    assert (spline.control, spline.basis) == (True, False)


def test_a_held_field_holds_the_numbers_of_a_parametrised_array_too():
    found = learned_mask(Inner(jnp.ones(1), Scaled(jnp.ones(2), 0.1)))
    assert found.fixed.relative is False


def test_a_derivative_reaches_the_numbers_that_an_array_is_made_of():
    gradient = jax.grad(lambda p: jnp.sum(resolve(p).free ** 2))(Inner(Squares(jnp.array([1.0, -2.0])), jnp.ones(1)))
    np.testing.assert_allclose(gradient.free.roots, [4.0, -32.0], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_scaled_array_is_its_unit_times_its_numbers_and_projects_as_the_array(dtype, rng):
    flips, limits = jnp.asarray(1 + rng.normal(size=6), dtype), Limits(0.1, 2.0, rms=1.0, step=0.5)
    scaled = Scaled(flips / 0.25, 0.25)
    np.testing.assert_allclose(scaled.value(), flips, rtol=1e-6)
    found = scaled.projected(limits)
    assert (found.unit, found.relative.dtype) == (0.25, dtype)
    np.testing.assert_allclose(found.value(), limits.project(flips), atol=1e-6)
    gradient = jax.grad(lambda s: jnp.sum(s.value()))(scaled)
    np.testing.assert_allclose(gradient.relative, 0.25)


def test_a_parametrised_array_must_say_its_value_and_its_projection():
    with pytest.raises(NotImplementedError):
        Parametrised().value()
    with pytest.raises(NotImplementedError):
        Parametrised().projected(Limits())
