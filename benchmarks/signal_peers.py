"""Signals of blochsim's simulators and of events on sycomore's phase graphs; in the peers' environment."""

import sys
from typing import Any

import numpy as np
from _harness import serve


def blochsim(simulator: str, settings: dict[str, Any], tissue: dict[str, Any]) -> dict[str, Any]:
    """The signal of one of its simulators, in double precision; times in ms, angles in degrees."""
    import torch
    from blochsim import simulators

    torch.set_default_dtype(torch.float64)
    given = {key: torch.as_tensor(value) if isinstance(value, list) else value for key, value in settings.items()}
    simulated = getattr(simulators, simulator)(**given).simulate(**tissue)
    return {"signal": np.asarray(torch.as_tensor(simulated).resolve_conj().numpy()).ravel().astype(complex)}


def sycomore(events: list[list[Any]], t1: float, t2: float, diffusivity: float, moment: float) -> dict[str, Any]:
    """The samples of a list of events: pulses [rad], waits [s] with orders of a gradient, readouts."""
    from sycomore import Species, epg, units

    size = 2 + sum(abs(event[2]) for event in events if event[0] == "wait")
    species = Species(t1 * units.s, t2 * units.s, diffusivity * units.um**2 / units.ms)
    area = moment / 267522187.44
    model = epg.Regular(species, initial_size=size, unit_gradient_area=area * units.T / units.m * units.s)
    samples = []
    for kind, *numbers in events:
        if kind == "pulse":
            # There, pulses of phase 0 are about x; here they take equilibrium along it.
            model.apply_pulse(numbers[0] * units.rad, (numbers[1] + 0.5 * np.pi) * units.rad)
        elif kind == "wait":
            duration, orders = numbers
            gradient = orders * area / duration if orders else 0.0
            if duration > 0:
                model.apply_time_interval(duration * units.s, gradient * units.T / units.m)
        else:
            samples.append(complex(model.echo) * np.exp(-1j * numbers[0]))
    return {"signal": np.array(samples)}


if __name__ == "__main__" and "--serve" in sys.argv:
    serve({"blochsim": blochsim, "sycomore": sycomore})
