"""The licences of everything that the package needs, as a page: `python tools/licences.py docs/licences.md`.

With --check the page is compared with what is installed: a dependency that is missing from it, or is there under
another licence, is an error. Versions are left out, as the page would change with each.
"""

import argparse
import re
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT, EXTRAS = "acqdesign", ("nifti", "pulseq", "mrd")
LONG = 60
HEAD = """# Licences of dependencies

acqdesign is Apache-2.0; its brain phantom carries the licence of the MNI templates. What it needs, and what its extras
`nifti`, `pulseq` and `mrd` need, each under its own licence as its metadata say. Made by `tools/licences.py`.

| package | needed by | licence |
|---|---|---|
"""


def canonical(name: str) -> str:
    """The name as package indexes write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needed() -> dict[str, set[str]]:
    """Every package that this one needs here, and which of the others need it."""
    found: dict[str, set[str]] = {}
    waiting = [(ROOT, True)]
    while waiting:
        name, first = waiting.pop()
        for requirement in map(Requirement, metadata.requires(name) or []):
            extras = ("", *EXTRAS) if first else ("",)
            by = [e for e in extras if requirement.marker is None or requirement.marker.evaluate({"extra": e})]
            other = canonical(requirement.name)
            if by:
                waiting += [] if other in found else [(other, False)]
                found.setdefault(other, set()).add(f"{ROOT} ({by[0]})" if by[0] else name)
    return found


def licence(name: str) -> str:
    """What a package's metadata say of its licence, in a few words."""
    held = metadata.metadata(name)
    if held.get("License-Expression"):
        return held["License-Expression"]
    classes = [c.rsplit(" :: ", 1)[-1] for c in held.get_all("Classifier") or [] if c.startswith("License")]
    classes = [c for c in classes if c != "OSI Approved"]
    text = (held.get("License") or "").strip().split("\n")[0]
    return ", ".join(classes) or (text if 0 < len(text) <= LONG else "see its files")


def main() -> int:
    """Writes or checks the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    rows = {name: f"| {name} | {', '.join(sorted(by))} | {licence(name)} |" for name, by in sorted(needed().items())}
    if not options.check:
        options.page.write_text(HEAD + "\n".join(rows.values()) + "\n")
        return 0
    text = options.page.read_text()
    cells = [line.split("|") for line in text.splitlines() if line.count("|") == 4]
    known = {row[1].strip(): row[3].strip() for row in cells}
    wrong = [f"{n}: {licence(n)}, on the page: {known.get(n)}" for n in rows if known.get(n) != licence(n)]
    print("\n".join(wrong) or f"{len(rows)} packages, licences as on the page")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
