"""Parts by name, or out of a user's own file: `mine.py:Name`. A file is run only where a flag names it."""

import contextlib
import functools
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from acqdesign.base.checks import UsageError, check_choice, usage_error

_MARK = ".py:"


def is_own(name: str) -> bool:
    """Whether a name is of a part in a file."""
    return _MARK in name


def load_part(flag: str, name: str, known: Mapping[str, Any], kind: type | None = None) -> Any:
    """One of the `known` parts by its name, or from `FILE.py:NAME`; anything else is refused, named by its flag.

    A part from a file is a class derived from `kind`, or any callable unless there is one.
    """
    if not is_own(name):
        return known[check_choice(flag, name, (*known, f"FILE{_MARK}NAME"))]
    stem, _, attribute = name.rpartition(":")
    path = Path(stem)
    if not path.is_file():
        raise usage_error(flag, f"{name}, whose file {path} is not there", "FILE.py:NAME of a file that is")
    try:
        module = _run(path.resolve(), path.stat().st_mtime_ns)
    except Exception as error:
        text = f"{name}, whose file fails ({type(error).__name__}: {error})"
        raise usage_error(flag, text, "a file that Python can run") from error
    found = getattr(module, attribute, None)
    if found is None:
        mine = {n: getattr(v, "__module__", "") for n, v in vars(module).items() if callable(v)}
        names = [n for n, owner in mine.items() if owner == module.__name__]
        raise usage_error(flag, f"{name}, which is not in the file", "one of " + (", ".join(names) or "none there"))
    wanted = "a function or a class" if kind is None else f"a class derived from {kind.__name__}"
    if not (callable(found) if kind is None else inspect.isclass(found) and issubclass(found, kind)):
        raise usage_error(flag, f"{name}, a {type(found).__name__}", wanted)
    return found


@functools.lru_cache
def _run(path: Path, changed: int) -> Any:
    """The module of a file, run once: a class of it is then the same wherever it is named."""
    name = f"acqdesign_own_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def takes(function: Any, name: str) -> bool:
    """Whether a function has an argument of that name."""
    return name in inspect.signature(function).parameters


@contextlib.contextmanager
def by_flags(flags: Mapping[str, str]) -> Iterator[None]:
    """Errors of wrong use that name an argument name its flag instead."""
    try:
        yield
    except UsageError as error:
        name, _, rest = str(error).partition(":")
        if name not in flags:
            raise
        raise UsageError(f"{flags[name]}:{rest}") from error


def no_use(flag: str, value: Any, owner: Any) -> UsageError:
    """What is said of an option that a part has no use for."""
    return usage_error(flag, f"{value}, for which {owner} has no use", "nothing")


def accepted(
    function: Any,
    given: Mapping[str, Any],
    flags: Mapping[str, str],
    default: Mapping[str, Any],
    said: Mapping[str, Any] | None = None,
) -> dict:
    """The settings that a function takes, of those `given` by argument name; None is not given.

    One that it does not take, and that is not the `default`, is refused: by its flag, and as `said` in that one's unit.
    """
    parameters = inspect.signature(function).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    found = {}
    for name, value in given.items():
        if name in parameters or (takes_all and value is not None):
            if value is not None:
                found[name] = value
        elif value is not None and value != default.get(name):
            owner = getattr(function, "__self__", function)
            raise no_use(flags[name], repr((said or {}).get(name, value)), getattr(owner, "__name__", owner))
    return found
