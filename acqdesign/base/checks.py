"""Argument checks: every error names the argument, what came, what was expected and what to do."""

import difflib
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class UsageError(ValueError):
    """Wrong use or wrong input: the one line that it holds is for the user. Any other exception is a bug."""


def usage_error(name: str, got: object, expected: str, remedy: str = "") -> UsageError:
    """A `UsageError` in the package's one wording, to be raised by the caller.

    Args:
        name: the argument, as the user wrote it.
        got: what came; arrays are shown by shape and dtype.
        expected: what would have been right.
        remedy: what to do about it, where that is not obvious.
    """
    if hasattr(got, "shape") and hasattr(got, "dtype"):
        got = f"an array of shape {tuple(got.shape)} and dtype {got.dtype}"
    shown = got if isinstance(got, str) else repr(got)
    return UsageError(printable(f"{name}: got {shown}, expected {expected}. {remedy}"))


def printable(text: str) -> str:
    """`text` on one line without control characters: what files hold may be meant for the terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def check_choice(name: str, got: str, choices: Iterable[str]) -> str:
    """`got` if it is one of `choices`; otherwise an error that lists them and names the nearest."""
    known = list(choices)
    if isinstance(got, str) and got in known:
        return got
    near = difflib.get_close_matches(str(got), known, n=1)
    raise usage_error(name, repr(got), "one of " + ", ".join(known), f"Did you mean {near[0]!r}?" if near else "")


def check_kind(name: str, value: Any, kind: type, expected: str) -> None:
    """Raises unless `value` is an object of the class; `expected` says in words which."""
    if not isinstance(value, kind):
        raise usage_error(name, value, expected)


def check_key(name: str, value: Any) -> None:
    """Raises unless `value` is one typed random key."""
    if getattr(value, "shape", None) != () or not jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        raise usage_error(name, value, "a random key", "jax.random.key(0) makes one.")


def as_array(name: str, value: Any) -> jax.Array:
    """`value` as a floating-point array, real or complex; see `as_real`."""
    return jnp.asarray(value) if np.iscomplexobj(value) else as_real(name, value)


def as_real(name: str, value: Any) -> jax.Array:
    """`value` as a real floating-point array; a Python number stays weakly typed."""
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError):
        raise usage_error(name, repr(value), "a real number or an array of them") from None
    if jnp.issubdtype(array.dtype, jnp.integer):
        return array.astype(jnp.result_type(float))
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise usage_error(name, array, "real numbers")
    if jnp.finfo(array.dtype).bits < 32:
        raise usage_error(name, array, "float32 or float64", "Half precision is too coarse here: astype(float32).")
    return array


def is_concrete(value: Any) -> bool:
    """Whether `value` holds numbers that can be looked at (it is not being traced)."""
    return not isinstance(value, jax.core.Tracer)


def check_finite(name: str, value: Any) -> None:
    """Raises where a concrete array holds NaN or infinity; says nothing of traced ones."""
    if is_concrete(value):
        wrong = ~np.isfinite(np.asarray(value))
        if wrong.any():
            raise usage_error(name, f"{int(wrong.sum())} non-finite values", "finite values only")


def check_positive(name: str, value: Any, *, allow_inf: bool = False) -> None:
    """Raises where a concrete number or array is not greater than zero (NaN included)."""
    if is_concrete(value):
        try:
            array = np.asarray("None" if value is None else value, float)
        except (TypeError, ValueError):
            raise usage_error(name, value, "a number, or an array of them") from None
        wrong = ~(array > 0) | (np.isinf(array) & (not allow_inf))
        if wrong.any():
            what = "values > 0" + (" (infinity allowed)" if allow_inf else " and finite")
            raise usage_error(name, repr(array[wrong].flat[0].item()), what)


def check_angles(name: str, value: Any) -> None:
    """Raises where concrete angles are not finite, or so large that they must be in degrees."""
    check_finite(name, value)
    if is_concrete(value):
        most = float(np.abs(np.asarray(value)).max(initial=0.0))
        if most > 4 * math.pi:
            remedy = f"Degrees? jnp.deg2rad({most:g}) is {math.radians(most):.4g}."
            raise usage_error(name, f"{most:g}", "radians, at most 4π", remedy)


def check_number(name: str, value: Any, *, positive: bool = False) -> None:
    """Raises unless `value` is one number, and where asked for, one that is positive."""
    try:
        one = np.ndim(value) == 0 and (not is_concrete(value) or float(value) is not None)
    except (TypeError, ValueError):
        one = False
    if not one:
        raise usage_error(name, value, "one number")
    if positive:
        check_positive(name, value)


def check_at_least_zero(name: str, value: Any) -> None:
    """Raises where a concrete number is negative, infinite or not a number."""
    check_number(name, value)
    if is_concrete(value) and not 0 <= float(value) < math.inf:
        raise usage_error(name, value, "a finite number >= 0")


def check_count(name: str, value: Any, *, minimum: int = 1, maximum: int = 2**31 - 1) -> int:
    """`value` if it is an integer of at least `minimum`, and of at most `maximum`: what an int32 holds."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < minimum:
        raise usage_error(name, value, f"an integer >= {minimum}")
    if value > maximum:
        raise usage_error(name, value, f"an integer <= {maximum}")
    return int(value)


def check_shape(name: str, shape: Sequence[int], *, dims: Sequence[int] = (1, 2, 3)) -> tuple[int, ...]:
    """`shape` as a tuple of positive integers with an allowed number of axes."""
    given = tuple(shape) if isinstance(shape, Iterable) else shape
    if not isinstance(given, tuple) or len(given) not in dims or not all(_is_count(n) for n in given):
        raise usage_error(name, repr(given), " or ".join(map(str, dims)) + " positive integers")
    return tuple(int(n) for n in given)


def _is_count(n: Any) -> bool:
    return isinstance(n, int | np.integer | float) and math.isfinite(n) and bool(int(n) == n and n >= 1)
