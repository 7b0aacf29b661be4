"""What tests of the commands share: their small command lines, tiny phantoms, and what they ask of `design.run`."""

import dataclasses
import functools
import os
import types
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from acqdesign import learn_flips, learn_joint, learn_traj
from acqdesign.base.checks import UsageError
from acqdesign.commands import run as commands_run
from acqdesign.design import Term
from acqdesign.plot import style

COMMANDS = {
    "learn_traj": (learn_traj, learn_traj.TrajOptions),
    "learn_flips": (learn_flips, learn_flips.FlipOptions),
    "learn_joint": (learn_joint, learn_joint.JointOptions),
}
LINES = "--shape 6 8 7 --lines 20 --samples 8".split()  # noqa: SIM905
TRAINS = "--shape 1 12 12 --lines 24 --echoes 6 --te-eff-ms 15 --calibration 3".split()  # noqa: SIM905
# Adam in place of L-BFGS, whose line search is half of what there is to compile.
FLIPS = "--optimizer adam --lr 0.05 --echoes 4 --starts 1".split()  # noqa: SIM905
SMALL = {"learn_traj": LINES, "learn_flips": FLIPS, "learn_joint": TRAINS}


class Asked(Exception):  # noqa: N818
    """Raised in place of running, with what a command asks for."""


def main(name, *argv):
    """The exit code of a command."""
    try:
        return COMMANDS[name][0].main([str(a) for a in argv])
    except SystemExit as stop:
        return stop.code


def asked(monkeypatch, name, *argv, options=None):
    """All that a command hands to `design.run` and sets for it: by its arguments, or by options in place of them."""
    settings = {}

    def run(problem, steps, **more):
        around = {"style": style._chosen.get(), "XLA": os.environ.get("XLA_FLAGS", "")}
        raise Asked({"problem": problem, "steps": steps, **around, **more, **settings})

    def update(setting, value):
        settings[setting] = value
        if setting == "jax_enable_x64":
            real(setting, value)

    real = jax.config.update
    with monkeypatch.context() as patch:
        patch.setattr(commands_run, "run_problem", run)
        patch.setattr(jax.config, "update", update)
        patch.setattr("acqdesign.commands.devices._meet", lambda *_: None)
        patch.setattr(jax.distributed, "initialize", lambda *given, **_: settings.update(processes=given))
        patch.setenv("XLA_FLAGS", "")
        if options is not None:
            patch.setattr(commands_run, "parse_options", lambda *_, **__: options)
        try:
            code = main(name, *argv)
        except Asked as found:
            return found.args[0]
    raise UsageError(f"{name} ended with {code}")


def phantom(path, seed, *, shape=(6, 7, 5), phase=False):
    """Fractions of three tissues in an .npz file, or a complex volume in an .npy file; neither knows a voxel size."""
    rng = np.random.default_rng(seed)
    if phase:
        np.save(path, rng.random(shape) * np.exp(1j * rng.random(shape)))
    else:
        maps = np.moveaxis(rng.dirichlet(np.ones(3), shape), -1, 0)
        np.savez(path, **dict(zip(("gm", "wm", "csf"), maps, strict=True)))
    return str(path)


def changed(options, **flat):
    """Options of a command with some of them, by their flags' names, replaced."""
    found = {}
    for field in dataclasses.fields(options):
        held = getattr(options, field.name)
        if dataclasses.is_dataclass(held):
            found[field.name] = changed(held, **flat)
        elif field.name in flat:
            found[field.name] = flat[field.name]
    return dataclasses.replace(options, **found)


def content(thing: Any) -> Any:
    """All that a tree of modules, functions and arrays holds, down to what functions enclose, for comparison."""
    if isinstance(thing, jax.Array) and jax.dtypes.issubdtype(thing.dtype, jax.dtypes.prng_key):
        thing = jax.random.key_data(thing)
    if isinstance(thing, jax.Array | np.ndarray | np.generic):
        return thing.shape, str(thing.dtype), np.asarray(thing).tobytes()
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        # How to make other poses of a scene says nothing of this one.
        names = [f.name for f in dataclasses.fields(thing) if f.name != "reposed"]
        return type(thing).__qualname__, tuple((name, content(getattr(thing, name))) for name in names)
    if isinstance(thing, dict):
        return tuple((name, content(value)) for name, value in thing.items())
    if isinstance(thing, tuple | list):
        return tuple(map(content, thing))
    if isinstance(thing, Term):
        return content(thing.parts)
    if isinstance(thing, functools.partial):
        return content((thing.func, thing.args, thing.keywords))
    if isinstance(thing, types.FunctionType):
        cells = [cell.cell_contents for cell in thing.__closure__ or ()]
        return thing.__qualname__, content([c for c in cells if c is not thing]), content(thing.__defaults__)
    if isinstance(thing, Mesh):
        return str(thing)
    if isinstance(thing, str | int | float | None | type):
        return thing
    return str(thing) if hasattr(thing, "parts") else type(thing).__qualname__  # a path, or something of JAX's
