"""How the spins answer: sequences, extended phase graphs and Cramér–Rao bounds."""

from acqdesign.signal.bounds import crlb as crlb
from acqdesign.signal.bounds import reduce_bounds as reduce_bounds
from acqdesign.signal.bounds import relative_bounds as relative_bounds
from acqdesign.signal.bounds import tissue_bounds as tissue_bounds
from acqdesign.signal.bssfp import BSSFP as BSSFP
from acqdesign.signal.events import Invert as Invert
from acqdesign.signal.events import Lock as Lock
from acqdesign.signal.events import Pulse as Pulse
from acqdesign.signal.events import Readout as Readout
from acqdesign.signal.events import Spoil as Spoil
from acqdesign.signal.events import Wait as Wait
from acqdesign.signal.events import play as play
from acqdesign.signal.events import timing as timing
from acqdesign.signal.fse import FSE as FSE
from acqdesign.signal.gradient_echoes import DESS as DESS
from acqdesign.signal.gradient_echoes import PSIF as PSIF
from acqdesign.signal.gradient_echoes import MultiGradientEcho as MultiGradientEcho
from acqdesign.signal.mprage import MPRAGE as MPRAGE
from acqdesign.signal.prepared import FLAIR as FLAIR
from acqdesign.signal.prepared import MOLLI as MOLLI
from acqdesign.signal.prepared import MP2RAGE as MP2RAGE
from acqdesign.signal.prepared import DiffusionPrepared as DiffusionPrepared
from acqdesign.signal.prepared import InversionRecovery as InversionRecovery
from acqdesign.signal.prepared import LookLocker as LookLocker
from acqdesign.signal.prepared import SaturationRecovery as SaturationRecovery
from acqdesign.signal.prepared import SpinLock as SpinLock
from acqdesign.signal.prepared import T2Prepared as T2Prepared
from acqdesign.signal.profile import SelectivePulse as SelectivePulse
from acqdesign.signal.profile import sinc_pulse as sinc_pulse
from acqdesign.signal.repeated import Repeated as Repeated
from acqdesign.signal.sequence import Sequence as Sequence
from acqdesign.signal.sequence import simulate as simulate
from acqdesign.signal.spgr import SPGR as SPGR
from acqdesign.signal.spin_echoes import Hyperecho as Hyperecho
from acqdesign.signal.spin_echoes import MultiSpinEcho as MultiSpinEcho
from acqdesign.signal.spin_echoes import SpinEcho as SpinEcho
from acqdesign.signal.spin_echoes import StimulatedEcho as StimulatedEcho
from acqdesign.signal.ssfp import SSFPFID as SSFPFID
from acqdesign.signal.starts import start_flips as start_flips
from acqdesign.signal.target import exponential_decay as exponential_decay
from acqdesign.signal.target import flips_for_echoes as flips_for_echoes
from acqdesign.signal.target import pseudo_steady_state as pseudo_steady_state

SEQUENCES: dict[str, type[Sequence]] = {
    "fse": FSE, "mrf": SSFPFID, "spgr": SPGR, "bssfp": BSSFP, "mprage": MPRAGE, "se": SpinEcho, "mese": MultiSpinEcho,
    "steam": StimulatedEcho, "hyperecho": Hyperecho, "mgre": MultiGradientEcho, "dess": DESS, "psif": PSIF,
    "ir": InversionRecovery, "sr": SaturationRecovery, "flair": FLAIR, "looklocker": LookLocker, "molli": MOLLI,
    "mp2rage": MP2RAGE, "t2prep": T2Prepared, "t1rho": SpinLock, "diffusion": DiffusionPrepared,
}  # fmt: skip
"""Sequences by the names that the command lines know them by."""
