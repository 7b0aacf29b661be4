"""Checkpoints: whole or absent, checked when read, and readable without this package.

A checkpoint of step 40 is `step-00000040.npz`, every array under its path in the state, and
`step-00000040.json`, written after it: format, version, step, the npz's SHA-256, and what the caller adds. A
checkpoint whose JSON is missing or whose bytes do not match is not one.
"""

import hashlib
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import check_count, printable, usage_error
from acqdesign.base.files import plain, sync_folder, write_json, write_npz
from acqdesign.base.trees import leaf_names
from acqdesign.base.types import PyTree
from acqdesign.base.untrusted import check_regular, parsing, read_npz, read_text

FORMAT = "acqdesign-checkpoint"
VERSION = 2
_MAX_RECORD = 2**24


class Checkpoint(NamedTuple):
    """What a checkpoint holds."""

    step: int
    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]
    path: Path


def save_checkpoint(
    directory: Path | str, step: int, arrays: Mapping[str, Any], *, meta: Mapping[str, Any], keep: int = 3
) -> Path:
    """Writes one checkpoint atomically and removes all but the newest `keep`.

    Args:
        directory: folder of the run's checkpoints; made where it does not exist, but not the one it lies in.
        step: number of steps done.
        arrays: the state, by name (see `arrays_from_tree`).
        meta: anything that JSON can hold.
        keep: checkpoints that stay.

    Returns:
        The path of the JSON file.

    Raises:
        OSError: the disk is full, read-only or gone; earlier checkpoints are untouched.
    """
    check_count("keep", keep)
    directory = Path(directory)
    if not directory.is_dir():
        directory.mkdir()
        sync_folder(directory.parent)
    stem = directory / f"step-{check_count('step', step, minimum=0):08d}"
    npz, record = stem.with_suffix(".npz"), stem.with_suffix(".json")
    write_npz(npz, arrays)
    body = {"step": step, "sha256": hashlib.sha256(npz.read_bytes()).hexdigest(), "meta": plain(meta)}
    write_json(record, {"format": FORMAT, "version": VERSION, "body_sha256": _digest(body), **body})
    for old in checkpoint_steps(directory)[:-keep]:
        # The JSON first: an npz alone is not a checkpoint, so a kill in between leaves no false one.
        (directory / f"{old}.json").unlink(missing_ok=True)
        (directory / f"{old}.npz").unlink(missing_ok=True)
    return record


def load_checkpoint(directory: Path | str) -> Checkpoint:
    """The newest undamaged checkpoint in a run's folder of them; damaged newer ones are named in a warning.

    Raises:
        UsageError: there is none, or none is whole.
    """
    directory = Path(directory)
    damage: list[str] = []
    for stem in reversed(checkpoint_steps(directory)):
        try:
            found = _read(directory / stem)
        except (OSError, ValueError) as error:
            damage.append(f"{stem}: {error}")
            continue
        if damage:
            text = f"{directory}: going back to step {found.step}, damaged checkpoints: {'; '.join(damage)}"
            warnings.warn(printable(text), stacklevel=2)
        return found
    got = "only damaged checkpoints (" + "; ".join(damage) + ")" if damage else "no checkpoint"
    raise usage_error("checkpoint", f"{got} in {directory}", "a folder that a run wrote its checkpoints to")


def arrays_from_tree(prefix: str, tree: PyTree) -> dict[str, np.ndarray]:
    """The leaves of `tree` as NumPy arrays, named `prefix` and their path, joined by dots."""
    return {name: np.array(leaf) for name, leaf in leaf_names({prefix: tree}).items()}


def tree_from_arrays(prefix: str, like: PyTree, arrays: Mapping[str, np.ndarray]) -> PyTree:
    """The tree whose leaves `arrays_from_tree` named, among others; structure, shapes and dtypes are `like`'s."""
    leaves = []
    for name, leaf in leaf_names({prefix: like}).items():
        array = arrays.get(name)
        if array is None or array.shape != leaf.shape or array.dtype != leaf.dtype:
            got, expected = "nothing" if array is None else array, f"shape {tuple(leaf.shape)} and dtype {leaf.dtype}"
            remedy = "Resume with the options that the run was started with."
            raise usage_error(f"checkpoint entry {name}", got, expected, remedy)
        leaves.append(jnp.array(array, dtype=leaf.dtype))
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def checkpoint_steps(directory: Path) -> list[str]:
    """File stems of a folder's checkpoints, damaged ones too, oldest first."""
    found = (re.fullmatch(r"(step-\d{8,})\.json", entry.name) for entry in directory.glob("step-*.json"))
    return sorted((match.group(1) for match in found if match), key=lambda stem: int(stem[5:]))


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _read(stem: Path) -> Checkpoint:
    npz, path = stem.with_suffix(".npz"), stem.with_suffix(".json")
    with parsing("checkpoint", path, "a readable JSON file"):
        record = json.loads(read_text("checkpoint", path, _MAX_RECORD))
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError("not a checkpoint")
    if record.get("version") != VERSION:
        raise ValueError(f"format version {record.get('version')}, this program reads {VERSION}")
    body = {name: record[name] for name in ("step", "sha256", "meta") if name in record}
    if len(body) < 3 or "body_sha256" not in record:
        raise ValueError(f"only {', '.join(record)} in it")
    if _digest(body) != record["body_sha256"]:
        raise ValueError("the JSON does not match its checksum")
    if not isinstance(body["meta"], dict):
        raise ValueError("metadata that are no object")
    if type(body["step"]) is not int or f"step-{body['step']:08d}" != stem.name:
        raise ValueError(f"step {body['step']!r} under another name")
    check_regular("checkpoint", npz)
    with npz.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != body["sha256"]:
            raise ValueError("the npz does not match its checksum")
    return Checkpoint(body["step"], read_npz("checkpoint", npz), body["meta"], path)
