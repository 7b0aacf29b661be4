"""Relaxation times and proton densities of the brain's tissues."""

from collections.abc import Sequence
from dataclasses import dataclass

from acqdesign.base.checks import check_choice, usage_error

TISSUES = ("gm", "wm", "csf")
"""Order of tissue maps everywhere: grey matter, white matter, cerebrospinal fluid."""


@dataclass(frozen=True)
class Tissue:
    """One tissue at one field strength.

    Attributes:
        name: `gm`, `wm` or `csf`.
        t1_s: longitudinal relaxation time [s].
        t2_s: transverse relaxation time [s].
        pd: proton density relative to water.
        source: where the values come from.
    """

    name: str
    t1_s: float
    t2_s: float
    pd: float
    source: str


_BRAINWEB = (
    "BrainWeb tissue parameters for 1.5 T: C. A. Cocosco et al., NeuroImage 5(4):S425, 1997; "
    "R. K.-S. Kwan et al., IEEE Trans. Med. Imaging 18(11):1085, 1999"
)
_AT_3T = (
    "T1 and T2 from the studies collected in Normal relaxation times at 3T (mri-q.com), T2 of CSF from "
    "PMC5973950, rounded densities: the values MRzeroCore 1.2.0 gives BrainWeb anatomy at 3 T"
)

_TABLE: dict[str, dict[str, Tissue]] = {
    "1.5T": {
        "gm": Tissue("gm", 0.833, 0.083, 0.86, _BRAINWEB),
        "wm": Tissue("wm", 0.500, 0.070, 0.77, _BRAINWEB),
        "csf": Tissue("csf", 2.569, 0.329, 1.00, _BRAINWEB),
    },
    "3T": {
        "gm": Tissue("gm", 1.558, 0.083, 0.80, _AT_3T),
        "wm": Tissue("wm", 0.830, 0.075, 0.70, _AT_3T),
        "csf": Tissue("csf", 4.163, 1.650, 1.00, _AT_3T),
    },
}


def tissue(name: str, field: str = "3T") -> Tissue:
    """A tissue's T1, T2 and proton density.

    Args:
        name: `gm`, `wm` or `csf`.
        field: `1.5T` or `3T`.

    Returns:
        The table's entry, with its source.

    Raises:
        ValueError: an unknown tissue or field strength; the message lists the known ones.
    """
    at_field = _TABLE[check_choice("field", field, _TABLE)]
    return at_field[check_choice("tissue", name, at_field)]


def tissues(names: str | Sequence[str] = TISSUES, field: str = "3T") -> tuple[Tissue, ...]:
    """Several tissues, in the order asked for.

    Args:
        names: a sequence of names, or one string with commas such as `wm,gm,csf`.
        field: `1.5T` or `3T`.

    Returns:
        One `Tissue` a name.

    Raises:
        ValueError: no name at all, a name twice, or an unknown one.
    """
    listed = [n.strip() for n in names.split(",")] if isinstance(names, str) else list(names)
    if not listed or len(set(listed)) != len(listed):
        raise usage_error("tissue", repr(names), "one or more different names of " + ", ".join(TISSUES))
    return tuple(tissue(n, field) for n in listed)
