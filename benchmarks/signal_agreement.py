"""Do other programs give the same signals? Every sequence beside blochsim, sycomore or a textbook's formula.

Differences are the largest of any sample, in units of M0, once a phase common to all samples is taken off. Models that
differ are said to, with the reason.
"""

import argparse
import math
from collections.abc import Callable
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import numpy as np  # noqa: E402
from _harness import Worker, machine, peers_python, write_results  # noqa: E402

from acqdesign.scene import Tissue  # noqa: E402
from acqdesign.signal import (  # noqa: E402
    BSSFP,
    DESS,
    FSE,
    MP2RAGE,
    PSIF,
    SPGR,
    SSFPFID,
    DiffusionPrepared,
    Hyperecho,
    InversionRecovery,
    LookLocker,
    MultiSpinEcho,
    Pulse,
    SpinEcho,
    StimulatedEcho,
    T2Prepared,
    Wait,
)

T1, T2, ADC, MOMENT = 0.83, 0.075, 0.8e-9, 2e5
MS = {"T1": 1e3 * T1, "T2": 1e3 * T2}
RNG = np.random.default_rng(5)
FLIPS = RNG.uniform(0.5, 2.6, 12)
TIMES = np.array([0.02, 0.05, 0.09])
DEG = np.degrees


def plain(events: Any) -> list[list[Any]]:
    """A list of events for another program; ideal spoiling as a gradient that nothing undoes."""
    found: list[list[Any]] = []
    for event in events:
        if isinstance(event, Pulse):
            found.append(["pulse", float(event.angle), float(event.phase or 0.0)])
        elif isinstance(event, Wait):
            found.append(["wait", float(event.duration), event.orders])
        elif hasattr(event, "te"):
            found += [["wait", float(event.te), 0], ["readout", float(event.phase or 0.0)]]
        else:
            found.append(["wait", 1e-12, 37])
    return found


def of_events(sequence: Any) -> Callable[[Worker], np.ndarray]:
    return listed(plain(sequence.events()), moment=float(getattr(sequence, "order_moment", 0.0)))


def listed(events: list[list[Any]], last: int = 0, moment: float = 0.0) -> Callable[[Worker], np.ndarray]:
    def ask(peer: Worker) -> np.ndarray:
        given = {"diffusivity": 1e9 * ADC if moment else 0.0, "moment": moment or MOMENT}
        return peer.call("sycomore", events=events, t1=T1, t2=T2, **given)["signal"][-last:]

    return ask


def simulator(name: str, tissue: dict[str, float] | None = None, **settings: Any) -> Callable[[Worker], np.ndarray]:
    given = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in settings.items()}

    def ask(peer: Worker) -> np.ndarray:
        return peer.call("blochsim", simulator=name, settings=given, tissue=tissue or MS)["signal"]

    return ask


def spoiled(flips: np.ndarray, tr: float, te: float, phases: np.ndarray) -> list[list[Any]]:
    found: list[list[Any]] = []
    for flip, phase in zip(flips, phases, strict=True):
        found += [["pulse", flip, phase], ["wait", te, 0], ["readout", phase], ["wait", tr - te, 1]]
    return found


def cases() -> dict[str, tuple[Any, dict[str, Callable[[Worker], np.ndarray]]]]:
    """Each sequence, and what other programs say of it."""
    spgr = SPGR(0.3 * np.ones(200), 0.01, 0.002)
    phases = np.asarray(spgr.design()["phases_rad"])
    repeated = [e for _ in range(800) for e in
                (["pulse", 0.5, 0.0], ["wait", 4e-3, 0], ["readout", 0.0], ["wait", 12e-3, 1], ["readout", 0.0],
                 ["wait", 4e-3, 0])]  # fmt: skip
    joined, paused = (DiffusionPrepared(0.8, MOMENT, separation=apart) for apart in (15e-3, 25e-3))
    echoes = Hyperecho(FLIPS[:5], 0.01, phases=0.4)
    mrf = SSFPFID(FLIPS, 0.012, 0.0, inversion_time=0.02)
    rage = MP2RAGE(np.array([0.07, 0.09]), np.array([0.7, 2.5]), 7e-3, tr=5.0, pulses=160, inversion_efficiency=0.96)
    water = {"T1": MS["T1"], "inv_efficiency": 0.96}
    return {
        "SpinEcho": (
            SpinEcho(math.pi / 2, TIMES, tr=1.5),
            {"blochsim": simulator("SpinEchoSimulator", TE=1e3 * TIMES, TR=1500.0)},
        ),
        "SpinEcho, one": (
            SpinEcho(1.2, 0.04, refocusing=2.2),
            {"sycomore": of_events(SpinEcho(1.2, 0.04, refocusing=2.2))},
        ),
        "MultiSpinEcho": (
            MultiSpinEcho(FLIPS, np.linspace(0.006, 0.02, 12)),
            {"sycomore": of_events(MultiSpinEcho(FLIPS, np.linspace(0.006, 0.02, 12)))},
        ),
        "FSE": (
            FSE(FLIPS, 0.01),
            {
                "blochsim": simulator("FSESimulator", flip=DEG(FLIPS), ESP=10.0, TR=1e9, states=40),
                "sycomore": of_events(MultiSpinEcho(FLIPS, np.full(12, 0.01))),
            },
        ),
        "StimulatedEcho": (
            StimulatedEcho(FLIPS[:3], 0.02, 0.1),
            {
                "blochsim, its second sample": lambda peer: simulator(
                    "StimulatedEchoSimulator", flip=DEG(FLIPS[:3]), TE=20.0, TM=100.0
                )(peer)[1:],
                "sycomore": of_events(StimulatedEcho(FLIPS[:3], 0.02, 0.1)),
            },
        ),
        "Hyperecho": (
            echoes,
            {
                "blochsim": simulator(
                    "HyperechoSimulator",
                    flip=DEG(FLIPS[:5]),
                    ESP=10.0,
                    phases=DEG(np.full(5, 0.4)),
                    TR=1e9,
                    exc_phase=90.0,
                ),
                "sycomore": of_events(echoes),
            },
        ),
        "SSFPFID (MRF)": (mrf, {"blochsim": simulator("MRFSimulator", flip=DEG(FLIPS), TR=12.0, TI=20.0, states=30)}),
        "SSFPFID (FISP)": (
            SSFPFID(FLIPS, 0.012, 0.003),
            {"sycomore": listed(spoiled(FLIPS, 0.012, 0.003, np.zeros(12)))},
        ),
        "SPGR, real spoiling": (
            spgr,
            {
                "blochsim": simulator(
                    "FLASHSimulator", flip=DEG(0.3), TR=10.0, TE=2.0, nshots=200, pulse_duration=0.0, rf_spoiling=117.0
                ),
                "sycomore": listed(spoiled(np.full(200, 0.3), 0.01, 0.002, phases)),
            },
        ),
        "SPGR, ideal": (
            SPGR(FLIPS, 0.01, 0.002, state="ideal"),
            {
                "blochsim": simulator(
                    "SPGRSimulator", {"T1": MS["T1"], "T2star": MS["T2"]}, flip=DEG(FLIPS), TR=10.0, TE=2.0
                )
            },
        ),
        "DESS": (DESS([0.5], 0.02, 4e-3), {"sycomore, 800 repetitions": listed(repeated, 2)}),
        "PSIF": (PSIF([0.5], 0.02, 4e-3), {"sycomore, 800 repetitions": listed(repeated, 1)}),
        "BSSFP": (
            BSSFP(FLIPS, 0.005),
            {
                "blochsim": simulator(
                    "TrueFISPSimulator", flip=DEG(FLIPS), TR=5.0, nshots=12, pulse_duration=0.0, half_alpha=False
                ),
                "sycomore": listed(
                    [
                        e
                        for n, flip in enumerate(FLIPS)
                        for e in (
                            ["pulse", flip, math.pi * (n % 2)],
                            ["wait", 2.5e-3, 0],
                            ["readout", math.pi * (n % 2)],
                            ["wait", 2.5e-3, 0],
                        )
                    ]
                ),
            },
        ),
        "InversionRecovery": (
            InversionRecovery(math.pi / 2, TIMES, tr=1.5, te=0.0, inversion_efficiency=0.96),
            {"blochsim": simulator("InversionRecoverySimulator", water, TI=1e3 * TIMES, TR=1500.0)},
        ),
        "T2Prepared": (T2Prepared(0.8, 0.05), {"sycomore": of_events(T2Prepared(0.8, 0.05))}),
        "DiffusionPrepared": (joined, {"sycomore": of_events(joined)}),
        "DiffusionPrepared, a pause": (paused, {"sycomore": of_events(paused)}),
        "LookLocker": (
            LookLocker(np.full(12, 0.2), 0.03, 0.0, te=0.0),
            {
                "blochsim": simulator(
                    "LookLockerSimulator", {"T1": MS["T1"]}, flip=DEG(0.2), TR=30.0, TI=30.0 * np.arange(12.0)
                )
            },
        ),
        "LookLocker, 20 ms late": (
            LookLocker(np.full(12, 0.2), 0.03, 0.02, te=0.0),
            {
                "blochsim": simulator(
                    "LookLockerSimulator", {"T1": MS["T1"]}, flip=DEG(0.2), TR=30.0, TI=20.0 + 30.0 * np.arange(12.0)
                )
            },
        ),
        "MP2RAGE": (
            rage,
            {
                "blochsim": simulator(
                    "MP2RAGESimulator",
                    water,
                    flip=DEG(np.array([0.07, 0.09])),
                    TI=np.array([700.0, 2500.0]),
                    TRspgr=7.0,
                    TRmp2rage=5000.0,
                    nshots=160,
                )
            },
        ),
    }


WHY = {"LookLocker, 20 ms late/blochsim": "it lets the recovery to the first pulse be that under pulses, T1*, not T1"}


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    python, found = peers_python(), dict[str, dict[str, Any]]()
    with Worker("signal_peers.py", python=python) as peer:
        for name, (sequence, sources) in cases().items():
            ours = np.ravel(
                np.asarray(sequence.signal(Tissue(T1, T2, diffusivity=ADC if name.startswith("Diff") else None)))
            )
            for source, ask in sources.items():
                theirs = ask(peer)
                inner = np.vdot(theirs, ours)
                error = float(np.abs(ours - inner / abs(inner) * theirs).max())
                why = WHY.get(f"{name}/{source}")
                said = {"samples": ours.size, "difference": error} | ({"why": why} if why else {})
                found.setdefault(name, {})[source] = said
                print(f"{name:24} {source:30} {ours.size:4} samples  {error:.1e}")
        versions = peer.call("versions", names=["blochsim", "sycomore", "torch", "numpy"])
    write_results("signal_agreement", {"machine": machine(2), "versions": versions, "differences": found})


if __name__ == "__main__":
    main()
