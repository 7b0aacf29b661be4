"""One learning step of straight lines by either recipe of `learn_traj`, in turn: how long, and compiling.

The sizes are those of `traj_step.py`, which times the reference recipe beside mri-nufft's. The default recipe takes
planes as the command does: all of 23, and 4 of 90.

    python benchmarks/traj_recipes.py [--rounds 5]
"""

import argparse
import os
from collections.abc import Callable
from typing import Any

import jax
from _harness import alternate, machine, summary, versions, write_results
from traj_step import CASES

from acqdesign import learn_traj
from acqdesign.commands.run import parse_options
from acqdesign.design import learn

RECIPES = ("reference", "default")


def problem(case: dict[str, Any], recipe: str) -> dict[str, Any]:
    """What the command would learn, and how."""
    flags = {"shape": case["shape"], "lines": [case["lines"]], "samples": [case["samples"]], "recipe": [recipe]}
    argv = [str(word) for name, values in flags.items() for word in (f"--{name}", *values)]
    return learn_traj.build(parse_options(learn_traj.TrajOptions, argv, prog="learn_traj"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns per recipe (default: 5)")
    options = parser.parse_args()
    cases: dict[str, Any] = {}
    for name, case in CASES.items():
        asked, steps = {recipe: problem(case, recipe) for recipe in RECIPES}, case["steps"]["acqdesign"]

        def turn(recipe: str, steps: int = steps, asked: dict[str, Any] = asked) -> list[float]:
            return [learn(asked[recipe]["problem"], steps, optimizer=asked[recipe]["optimizer"])[0].seconds_per_step]

        turns: dict[str, Callable[[], list[float]]] = {recipe: (lambda r=recipe: turn(r)) for recipe in RECIPES}
        times = alternate(turns, rounds=options.rounds)
        cases[name] = {recipe: summary(seconds) for recipe, seconds in times.items()}
        planes = asked["default"]["problem"].of_a_step
        cases[name]["default"]["planes_per_step"] = case["shape"][0] if planes is None else planes[1]
        cases[name]["ratio"] = cases[name]["default"]["median_s"] / cases[name]["reference"]["median_s"]
        print(name, cases[name], flush=True)
        jax.clear_caches()
    at = machine(len(os.sched_getaffinity(0)))
    write_results("traj_recipes", {"machine": at, "versions": versions(("jax", "jax-finufft")), "cases": cases})


if __name__ == "__main__":
    main()
