"""Sequences as functions of their design and of tissue parameters, as most laws are put."""

from acqdesign.scene.tissue import Tissue
from acqdesign.signal import BSSFP, FSE, MPRAGE, SPGR, SSFPFID
from acqdesign.signal._arguments import in_one_precision
from acqdesign.signal.engine import play_epg


def epg(
    flips, intervals, t1, t2, *, read=0, phases=None, z0=1.0, order_moment=None, n_states=None,
    m0=1.0, b1=1.0, b0=None, diffusivity=None,
):  # fmt: skip
    """The engine's train of pulses, each followed by the same intervals."""
    tissue = Tissue(t1, t2, m0=m0, b1=b1, b0=b0, diffusivity=diffusivity)
    durations = {f"duration{i}": each.duration for i, each in enumerate(intervals)}
    numbers = {"flips": flips, "phases": phases, "z0": z0, "order_moment": order_moment}
    values = in_one_precision(**numbers, **tissue.effects(), **durations)
    return play_epg(values, tuple(each.orders for each in intervals), read, n_states)


def fse(flips, esp, t1, t2, *, b1=1.0, m0=1.0, diffusivity=None, **design):
    tissue = Tissue(t1, t2, m0=m0, b1=b1, diffusivity=diffusivity)
    return FSE(flips, esp, **design).signal(tissue)


def ssfp_fid(flips, tr, t1, t2, *, te=0.0, m0=1.0, b1=1.0, b0=None, t2_prime=None, diffusivity=None, **design):
    tissue = Tissue(t1, t2, m0=m0, b1=b1, b0=b0, t2_prime=t2_prime, diffusivity=diffusivity)
    return SSFPFID(flips, tr, te, **design).signal(tissue)


def spgr(flips, tr, t1, t2, *, te=0.0, m0=1.0, b1=1.0, b0=None, t2_prime=None, diffusivity=None, **design):
    """An RF-spoiled train, or with `state` steady states."""
    tissue = Tissue(t1, t2, m0=m0, b1=b1, b0=b0, t2_prime=t2_prime, diffusivity=diffusivity)
    return SPGR(flips, tr, te, **design).signal(tissue)


def spgr_steady(flips, tr, t1, t2, **rest):
    return spgr(flips, tr, t1, t2, state="steady", **rest)


def spgr_ernst(flips, tr, t1, t2, **rest):
    return spgr(flips, tr, t1, t2, state="ideal", **rest)


def bssfp(flips, tr, t1, t2, *, te=None, m0=1.0, b1=1.0, b0=None, t2_prime=None, **design):
    """A balanced train, or with `steady` steady states."""
    tissue = Tissue(t1, t2, m0=m0, b1=b1, b0=b0, t2_prime=t2_prime)
    return BSSFP(flips, tr, te, **design).signal(tissue)


def bssfp_steady(flips, tr, t1, t2, **rest):
    return bssfp(flips, tr, t1, t2, steady=True, **rest)


def mprage(flips, esp, t1, t2, *, m0=1.0, b1=1.0, b0=None, t2_prime=None, **design):
    tissue = Tissue(t1, t2, m0=m0, b1=b1, b0=b0, t2_prime=t2_prime)
    return MPRAGE(flips, esp, **design).signal(tissue)
