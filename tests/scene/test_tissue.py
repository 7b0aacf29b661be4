"""One `Tissue`: what it takes, what it refuses by name, and the table of the brain's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.scene import TISSUES, Tissue, tissues
from acqdesign.scene.tissue import tissue_properties

OPTIONAL = ("b0", "t2_prime", "diffusivity")
FIELDS = ("t1", "t2", "m0", "b1", *OPTIONAL)


def test_numbers_lists_and_integers_become_arrays():
    """Weakly typed where they are numbers, so that they take on the precision of what they meet."""
    tissue = Tissue(1, [0.1, 0.2], m0=[1, 2], b1=0.9)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(tissue))
    assert tissue.shape == (2,)
    np.testing.assert_array_equal(tissue.t2, [0.1, 0.2])
    assert (tissue.t1.dtype, tissue.m0.dtype) == (float, float)
    assert (tissue.b1 * jnp.ones(1, jnp.float32)).dtype == jnp.float32


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_arrays_keep_their_precision(dtype):
    given = {name: jnp.full(3, 0.05, dtype) for name in FIELDS}
    tissue = Tissue(**given)
    assert {getattr(tissue, name).dtype for name in FIELDS} == {jnp.dtype(dtype)}


def test_the_shape_is_that_of_all_fields_broadcast():
    tissue = Tissue(jnp.ones((4, 1)), jnp.full(3, 0.1), b1=jnp.ones((2, 1, 1)))
    assert tissue.shape == (2, 4, 3)
    assert Tissue(1.0, 0.1).shape == ()
    assert Tissue(jnp.ones(0), jnp.ones(0)).shape == (0,)


def test_what_is_none_does_not_act_and_has_no_leaf():
    tissue = Tissue(1.0, 0.1)
    assert [getattr(tissue, name) for name in OPTIONAL] == [None, None, None]
    assert len(jax.tree.leaves(tissue)) == 4
    assert set(tissue.effects()) == {"t1", "t2", "m0", "b1"}
    assert set(Tissue(1.0, 0.1, b0=3.0).effects()) == {"t1", "t2", "m0", "b1", "b0"}


@pytest.mark.parametrize("name", ["t1", "t2", "m0", "b1"])
def test_what_every_tissue_has_may_not_be_none(name):
    with pytest.raises(UsageError, match=f"{name}: got None, expected a real number"):
        Tissue(**{"t1": 1.0, "t2": 0.1, name: None})


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("name", FIELDS)
def test_half_precision_is_refused(name, dtype):
    with pytest.raises(UsageError, match=f"{name}: .*{jnp.dtype(dtype)}.*Half precision is too coarse"):
        Tissue(**{"t1": 1.0, "t2": 0.1, name: jnp.ones(2, dtype)})


@pytest.mark.parametrize("name", [name for name in FIELDS if name != "t2"])
def test_shapes_that_do_not_broadcast_are_refused(name):
    with pytest.raises(UsageError, match=r"got (shape|an array of shape) \(\d,\).*a shape that broadcasts"):
        Tissue(**{"t1": jnp.ones(2), "t2": jnp.full(2, 0.1), name: jnp.ones(3)})


def test_shapes_of_traced_values_are_checked_too():
    with pytest.raises(UsageError, match=r"b1: got an array of shape \(3,\).*broadcasts"):
        jax.jit(lambda t1, b1: Tissue(t1, 0.1, b1=b1).t1)(jnp.ones(2), jnp.ones(3))


@pytest.mark.parametrize("name", ["t1", "t2", "b1", *OPTIONAL])
@pytest.mark.parametrize(
    "value", [1.0 + 1.0j, True, "wm", [[1.0, 2.0], [3.0]]], ids=["complex", "bool", "text", "ragged"]
)
def test_what_is_no_real_number_is_refused(name, value):
    with pytest.raises(UsageError, match=f"{name}: got .*expected (a real number|real numbers)"):
        Tissue(**{"t1": 1.0, "t2": 0.1, name: value})


def test_m0_may_be_complex_the_receiver_s_phase():
    assert Tissue(1.0, 0.1, m0=1j).m0 == 1j
    np.testing.assert_array_equal(Tissue(1.0, 0.1, m0=[1j, 2]).m0, [1j, 2])
    assert Tissue(1.0, 0.1, m0=jnp.ones(1, jnp.complex64)).m0.dtype == jnp.complex64


@pytest.mark.parametrize("name", ["t1", "t2", "t2_prime"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_times_that_are_not_positive_are_refused(name, value):
    with pytest.raises(UsageError, match=f"{name}: got {value}, expected values > 0"):
        Tissue(**{"t1": [3.0, 3.0], "t2": [0.1, 0.1], name: [0.1, value]})


def test_times_without_end_are_allowed():
    tissue = Tissue(jnp.inf, jnp.inf, t2_prime=jnp.inf)
    assert np.isinf([tissue.t1, tissue.t2, tissue.t2_prime]).all()


def test_t2_is_at_most_twice_t1():
    Tissue(0.5, 1.0)
    with pytest.raises(UsageError, match=r"t2: got T2 = 1\.2 s with T1 = 0\.5 s, expected T2 <= 2 T1"):
        Tissue([2.0, 0.5], 1.2)


def test_traced_values_pass():
    """Nothing can be said of them: gradients of times work."""
    slope = jax.grad(lambda t1: Tissue(t1, 0.1).t1 * 2)(1.0)
    assert slope == 2


def test_names_are_one_for_each_tissue():
    assert Tissue([1.0, 2.0], 0.1, names=("a", "b")).names == ("a", "b")
    assert Tissue(1.0, 0.1, names=("a",)).names == ("a",)
    assert Tissue(jnp.ones((4, 1)), jnp.full((1, 2), 0.1), names=("a", "b")).names == ("a", "b")
    for names in (("a",), ("a", "b", "c")):
        with pytest.raises(UsageError, match=r"names: .*one for each tissue along the last axis of \(2,\)"):
            Tissue([1.0, 2.0], 0.1, names=names)


def test_precision_changes_as_a_whole():
    tissue = Tissue([1.0, 2.0], [0.1, 0.2], m0=[1j, 2j], b0=3.0).astype(jnp.float32)
    assert (tissue.t1.dtype, tissue.t2.dtype, tissue.b0.dtype) == (jnp.float32,) * 3
    assert tissue.m0.dtype == jnp.complex64
    assert tissue.diffusivity is None


# The brain's


def test_the_table_holds_what_spins_can_do_and_its_sources():
    for field in ("1.5T", "3T", "7T"):
        for found in tissue_properties(field=field).values():
            assert 0 < found.t2 <= 2 * found.t1
            assert 0 < found.pd <= 1
            assert found.source
    assert tissue_properties("wm", "1.5T")["wm"].t1 == 0.5
    assert list(tissue_properties("wm, gm")) == ["wm", "gm"]


@pytest.mark.parametrize("field", ["1.5T", "3T", "7T"])
def test_tissues_are_those_of_the_table_in_the_order_asked_for(field):
    found, table = tissues("wm", "gm", field=field), tissue_properties("wm,gm", field)
    assert found.names == ("wm", "gm")
    assert found.shape == (2,)
    for name, column in (("t1", "t1"), ("t2", "t2"), ("m0", "pd")):
        np.testing.assert_array_equal(getattr(found, name), [getattr(t, column) for t in table.values()])


def test_tissues_may_be_named_one_by_one_in_one_text_or_not_at_all():
    assert tissues("wm,gm").names == tissues("wm", "gm").names == ("wm", "gm")
    assert tissues().names == TISSUES
    assert tissues("csf").shape == (1,)


@pytest.mark.parametrize("names", ["", "wm,wm", ()])
def test_no_tissue_or_one_twice_is_refused(names):
    with pytest.raises(UsageError, match=r"tissue: got .* of gm, wm, csf"):
        tissue_properties(names)


@pytest.mark.usefixtures("unchecked_types")
def test_an_unknown_tissue_or_field_names_the_nearest():
    with pytest.raises(UsageError, match=r"Did you mean 'csf'"):
        tissues("cfs")
    with pytest.raises(UsageError, match=r"field: got '9T', expected one of 1\.5T, 3T, 7T"):
        tissues("wm", field="9T")


def test_at_higher_field_t1_is_longer_and_t2_shorter():
    """Of tissue; the 3 T values of fluid are of another study."""
    for name in ("gm", "wm"):
        t1, t2 = np.array([tissue_properties(name, field)[name][:2] for field in ("1.5T", "3T", "7T")]).T
        assert (np.diff(t1) > 0).all()
        assert t2[2] < min(t2[:2])
