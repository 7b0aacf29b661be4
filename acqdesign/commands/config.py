"""Options to JSON and back, trusting nothing in the file: every wrong key is named, with the nearest known one."""

import contextlib
import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from acqdesign.base.checks import usage_error
from acqdesign.base.files import plain
from acqdesign.base.untrusted import parsing, read_text

Options = TypeVar("Options")

_MAX_BYTES = 2**20
RENAMED = {
    "objective": "--term: nrmse, dissimilarity for ssim, or scaled_error with --reconstruction adjoint for adjoint",
    **{f"weight_{name}": f"--term {name}=WEIGHT" for name in ("nrmse", "noise", "width", "side_lobes")},
    **{f"weight_crlb_{name}": f"--term deviation_{name}=WEIGHT" for name in ("t1", "t2")},
    "contrast": "nothing: images have the contrast of the effective echo time",
}
"""What took the place of options that earlier versions had, where a command no longer knows them."""


def flat_options(options: Any) -> dict[str, Any]:
    """Every option by its flag's name with underscores, in JSON's types; infinities as text."""
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            flat |= flat_options(value)
        else:
            infinite = isinstance(value, float) and not math.isfinite(value)
            flat[field.name] = repr(value) if infinite else plain(value)
    return flat


def read_config(
    kind: type[Options], path: Path | str, *, ignored: Collection[str] = (), whole: bool = False, command: str = ""
) -> Options:
    """Options of `kind`, of option dataclasses, from the `config.json` of a run or from a flat JSON object of them.

    Keys in `ignored` are known but keep their default; `whole` asks for every option, as this version writes them; a
    file that says another `command` is refused.

    Raises:
        UsageError: the file is missing or not such JSON; a key is unknown (the nearest known one is named) or
            its value of the wrong type.
    """
    path = Path(path)
    with parsing("config", path, "a readable JSON file"):
        content = json.loads(read_text("config", path, _MAX_BYTES))
    flat = content.get("options", content) if isinstance(content, dict) else None
    if not isinstance(flat, dict):
        raise usage_error("config", f"{path} without an object of options", "the config.json of a run")
    if command and content.get("command", command) != command:
        raise usage_error(f"config {path}", f"that of a run of {content['command']}", f"one of {command}")
    known = flat_options(kind())
    lacking = [key for key in known if key not in flat]
    if whole and lacking:
        what = f"no {lacking[0]!r}, as another command or version wrote it"
        raise usage_error(f"config {path}", what, "every option of this one", "Start a new run.")
    for key in flat:
        if key not in known and key in RENAMED:
            raise usage_error(f"config {path}", f"{key!r}, an option of an earlier version", RENAMED[key])
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            remedy = f"Did you mean {near[0]!r}?" if near else "Known keys: " + ", ".join(known) + "."
            raise usage_error(f"config {path}", f"the unknown key {key!r}", "options of this command", remedy)
    return with_options(kind(), {k: v for k, v in flat.items() if k not in ignored}, str(path))


def with_options(options: Options, flat: Mapping[str, Any], where: str) -> Options:
    """Options with those of a flat mapping in JSON's types, known to be theirs; `where` it is from, for errors."""
    built: Options = _build(type(options), options, flat, where)
    return built


def _build(kind: type[Any], default: Any, flat: Mapping[str, Any], path: Path | str) -> Any:
    hints = typing.get_type_hints(kind)
    changes = {}
    for field in dataclasses.fields(kind):
        hint, held = hints[field.name], getattr(default, field.name)
        if dataclasses.is_dataclass(held):
            changes[field.name] = _build(type(held), held, flat, path)
        elif field.name in flat:
            try:
                changes[field.name] = _coerce(hint, flat[field.name])
            except (TypeError, OverflowError):
                expected = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
                raise usage_error(f"config {path}: {field.name}", repr(flat[field.name]), expected) from None
    return dataclasses.replace(default, **changes)


def _coerce(hint: Any, value: Any) -> Any:
    """`value`, as read from JSON, as the type that `hint` asks for; TypeError where it is not one."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for option in args:
            with contextlib.suppress(TypeError):
                return _coerce(option, value)
    elif origin is Literal:
        if value in args:
            return value
    elif origin is tuple and isinstance(value, list):
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else args
        if len(kinds) == len(value):
            return tuple(_coerce(k, v) for k, v in zip(kinds, value, strict=True))
    elif hint is type(None) and value is None:
        return None
    elif hint is float and (type(value) in (int, float) or value in ("inf", "-inf", "nan")):
        return float(value)
    elif hint is Path and isinstance(value, str):
        return Path(value)
    elif hint in (bool, int, str) and type(value) is hint:
        return value
    raise TypeError
