"""Measured figures come from `benchmarks/results`, never from a keyboard.

On the documentation's pages the role `` {measured}`FILE; PATH; FORMAT; FACTOR` `` becomes the number at PATH of
`benchmarks/results/FILE.json` times FACTOR (1 unless given), in a format of Python's (`{:.3g}` unless given). The
README is read as it is: `python docs/_ext/measured.py` writes the cells of its tables, and a test checks them.
"""

import functools
import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"

# Rows of the README's tables by their first cell: the other cells, as specifications or as text.
README = {
    "on what was learned": [
        "joint_compare_plane; mean/none/nrmse; {:.3f}",
        "joint_compare_plane; mean/flips/nrmse; {:.3f}",
        "joint_compare_plane; mean/lines/nrmse; {:.3f}",
        "joint_compare_plane; mean/joint/nrmse; **{:.3f}**",
    ],
    "another pose, tissues and 25 % more noise": [
        "joint_compare_plane; mean/none/nrmse_held_out; {:.3f}",
        "joint_compare_plane; mean/flips/nrmse_held_out; {:.3f}",
        "joint_compare_plane; mean/lines/nrmse_held_out; {:.3f}",
        "joint_compare_plane; mean/joint/nrmse_held_out; **{:.3f}**",
    ],
    "23×28×23, 253 lines × 128 samples": [
        "traj_step; cases/reference/step/mrinufft/median_s; {:.0f} ms; 1000",
        "traj_step; cases/reference/step/acqdesign/median_s; {:.1f} ms; 1000",
        "traj_step; cases/reference/speedup; {:.0f}",
        "traj_recipes; cases/reference/ratio; {:.1f} times the reference",
    ],
    "90×108×90, 2000 lines × 256 samples": [
        "traj_step; cases/large/step/mrinufft/median_s; {:.2f} s",
        "traj_step; cases/large/step/acqdesign/median_s; {:.0f} ms; 1000",
        "traj_step; cases/large/speedup; {:.0f}",
        "traj_recipes; cases/large/ratio; {:.1f} times the reference (4 planes)",
    ],
    "cosine of the gradient to central differences of its own loss": [
        "traj_step; cases/reference/error/mrinufft/cosine_to_central_differences; {:.3f}",
        "traj_step; cases/reference/error/acqdesign/cosine_to_central_differences; {:.6f}",
        "",
        "",
    ],
    "NRMSE of SigPy's reconstruction from the learned lines, 10 seeds": [
        "traj_quality; nrmse/mrinufft noise-free learned_on/mean; {:.3f}",
        "traj_quality; nrmse/acqdesign_reference noise-free learned_on/mean; {:.3f}",
        "traj_quality; nrmse_ratio_default_to_mrinufft/noise-free learned_on; {:.2f} (default)",
        "traj_quality; nrmse/acqdesign_default noise-free learned_on/mean; {:.3f}",
    ],
    "signal": [
        "signal_fse; tasks/signal/torchsim, 100 states/median_s; {:.2f} s",
        "signal_fse; tasks/signal/acqdesign/median_s; {:.0f} ms; 1000",
        "signal_fse; tasks/signal/speedup_over_100_states; {:.0f}",
    ],
    "gradient by flips": [
        "signal_fse; tasks/flip gradient/torchsim, 100 states/median_s; {:.1f} s",
        "signal_fse; tasks/flip gradient/acqdesign/median_s; {:.0f} ms; 1000",
        "signal_fse; tasks/flip gradient/speedup_over_100_states; {:.0f}",
    ],
    "derivatives by T1 and T2": [
        "signal_fse; tasks/tissue derivatives/torchsim, 100 states/median_s; {:.1f} s",
        "signal_fse; tasks/tissue derivatives/acqdesign/median_s; {:.0f} ms; 1000",
        "signal_fse; tasks/tissue derivatives/speedup_over_100_states; {:.0f}",
    ],
    "Cramér–Rao bounds of T1 and T2 with their gradient by flips": [
        "signal_fse; tasks/bounds and flip gradient/torchsim, 100 states/median_s; {:.0f} s",
        "signal_fse; tasks/bounds and flip gradient/acqdesign/median_s; {:.2f} s",
        "signal_fse; tasks/bounds and flip gradient/speedup_over_100_states; {:.0f}",
    ],
    "fingerprinting, 500 pulses, 32 states: signal": [
        "signal_mrf; tasks/signal, 32 states/blochsim/median_s; {:.2f} s",
        "signal_mrf; tasks/signal, 32 states/acqdesign, a device a core/median_s; {:.0f} ms; 1000",
        "signal_mrf; tasks/signal, 32 states/acqdesign, a device a core/speedup; {:.1f}",
    ],
    "fingerprinting, 500 pulses, 32 states: derivatives by T1 and T2": [
        "signal_mrf; tasks/tissue derivatives, 32 states/blochsim/median_s; {:.2f} s",
        "signal_mrf; tasks/tissue derivatives, 32 states/acqdesign, a device a core/median_s; {:.0f} ms; 1000",
        "signal_mrf; tasks/tissue derivatives, 32 states/acqdesign, a device a core/speedup; {:.1f}",
    ],
    "fingerprinting, 500 pulses, 32 states: gradient by flips": [
        "signal_mrf; tasks/flip gradient, 32 states/blochsim/median_s; {:.2f} s",
        "signal_mrf; tasks/flip gradient, 32 states/acqdesign, a device a core/median_s; {:.0f} ms; 1000",
        "signal_mrf; tasks/flip gradient, 32 states/acqdesign, a device a core/speedup; {:.1f}",
    ],
}


@functools.cache
def _results(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def measured(spec: str) -> str:
    """The figure that a specification `FILE; PATH; FORMAT; FACTOR` stands for.

    Raises:
        ValueError: there is no such file, entry, or number in it.
    """
    name, path, form, factor = (part.strip() for part in [*spec.split(";"), "", ""][:4])
    try:
        value = _results(name)
        for key in path.split("/"):
            value = value[int(key) if isinstance(value, list) else key]
        return (form or "{:.3g}").format(float(value) * float(factor or 1))
    except (OSError, KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{spec!r}: no such figure ({type(error).__name__}: {error})") from None


def readme(text: str) -> str:
    """The README with the cells of its tables as they were measured."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        first = line.strip("| ").split(" | ")[0]
        if line.startswith("| ") and first in README:
            cells = [first, *(measured(s) if s else "" for s in README[first])]
            lines[number] = "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"
    return "\n".join(lines) + "\n"


def quoted(page: str) -> list[str]:
    """The specifications that a page's roles hold."""
    return re.findall(r"\{measured\}`([^`]*)`", page)


def setup(app: Any) -> dict[str, Any]:
    """Adds the role; a figure that is not there is a warning, which `-W` turns into an error."""
    from docutils import nodes

    def role(name: str, raw: str, text: str, line: int, inliner: Any, *_: Any, **__: Any) -> Any:
        try:
            return [nodes.Text(measured(text))], []
        except ValueError as error:
            message = inliner.reporter.warning(str(error), line=line)
            return [inliner.problematic(raw, raw, message)], [message]

    app.add_role("measured", role)
    return {"parallel_read_safe": True}


if __name__ == "__main__":
    page = ROOT / "README.md"
    page.write_text(readme(page.read_text()))
