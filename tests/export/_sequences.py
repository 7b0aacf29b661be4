"""Sequences as people of the field write them with pypulseq: readouts along any axis, rising or falling."""

import itertools

import numpy as np
import pypulseq as pp

SYSTEM = pp.Opts(
    max_grad=40, grad_unit="mT/m", max_slew=150, slew_unit="T/m/s", rf_dead_time=100e-6, rf_ringdown_time=20e-6,
    adc_dead_time=10e-6,
)  # fmt: skip
SHAPE, FOV = np.array([8, 6, 4]), np.array([0.192, 0.15, 0.12])  # readout, first and second phase encode
READ = 1.0e-3  # s that the readout's trapezoid lasts


class Maker:
    """Blocks of 1 ms for pulses, centred, 2.5 ms to wind, 2 ms to read and 2.5 ms to rewind: 8 ms in all."""

    def __init__(self, axes="xyz", sign=1, uses=True, shape=SHAPE, fov=FOV):
        self.axes, self.uses, self.shape, self.fov = axes, uses, shape, fov
        self.seq = pp.Sequence(system=SYSTEM)
        times = {"rise_time": 0.18e-3, "flat_time": 0.64e-3, "delay": 0.5e-3, "system": SYSTEM}
        self.gx = pp.make_trapezoid(axes[0], flat_area=sign * shape[0] / fov[0], **times)
        self.adc = pp.make_adc(int(shape[0]), duration=0.64e-3, delay=0.68e-3, system=SYSTEM)
        # Half a sample on, so that a sample lies at the centre of k-space; the echo stays within a dwell time of it.
        self.back = -self.gx.area / 2 - sign / fov[0] / 2
        self.forth = -self.gx.area - self.back

    def pulse(self, degrees, use, phase=0.0, slab=None):
        common = {"phase_offset": phase, "system": SYSTEM, "use": use if self.uses else "undefined"}
        flip = np.deg2rad(degrees)
        if slab is None:
            rf = pp.make_block_pulse(flip, duration=0.5e-3, delay=0.25e-3, **common)
            self.seq.add_block(rf, pp.make_delay(1e-3))
            return 0.0
        rf = pp.make_sinc_pulse(flip, duration=0.6e-3, delay=0.2e-3, time_bw_product=4, apodization=0.5, **common)
        amplitude = 4 / 0.6e-3 / slab
        select = {"rise_time": 0.2e-3, "flat_time": 0.6e-3, "system": SYSTEM}
        self.seq.add_block(rf, pp.make_trapezoid(self.axes[2], amplitude=amplitude, **select))
        return amplitude * 0.4e-3  # moment after its centre

    def lobes(self, areas, duration=2.5e-3):
        named = zip(self.axes, areas, strict=True)
        made = [pp.make_trapezoid(c, area=a, duration=1e-3, system=SYSTEM) for c, a in named if a]
        self.seq.add_block(*made, pp.make_delay(duration))

    def read(self, encode, before, after):
        """Wind, read and rewind; `before` and `after` along the readout."""
        self.lobes([before, *encode])
        self.seq.add_block(self.gx, self.adc, pp.make_delay(2e-3))
        self.lobes([after, *(-k for k in encode)])

    def wait(self, seconds):
        self.seq.add_block(pp.make_delay(seconds))

    def encodes(self):
        cells = itertools.product(*(np.arange(n) - n // 2 for n in self.shape[1:]))
        return [np.array(cell) / self.fov[1:] for cell in cells]

    def done(self):
        at = ["xyz".index(axis) for axis in self.axes]
        fov, shape = np.empty(3), np.empty(3, int)
        fov[at], shape[at] = self.fov, self.shape
        self.seq.set_definition("FOV", fov.tolist())
        self.seq.set_definition("ImgSize", shape.tolist())
        return self.seq


def gre(**how):
    make = Maker(**how)
    for n, encode in enumerate(make.encodes()):
        make.pulse(12, "excitation", phase=np.deg2rad(117 * n * (n + 1) / 2 % 360))
        make.read(encode, make.back, make.forth + 1.5 * make.gx.area)
    return make.done()


def bssfp(**how):
    """α/2, half a TR, then α of alternating phase: the timing of a spin-echo train, without moment between pulses."""
    make = Maker(**how)
    make.pulse(15, "excitation", phase=np.pi)
    make.wait(3e-3)
    for n, encode in enumerate(make.encodes()):
        make.pulse(30, "excitation", phase=np.pi * (n % 2))
        make.read(encode, make.back, make.forth)
    return make.done()


def mprage(**how):
    make = Maker(**how)
    for n, encode in enumerate(make.encodes()):
        if n % 6 == 0:
            make.wait(0.05)
            make.pulse(180, "inversion")
            make.wait(0.02)
        make.pulse(8, "excitation")
        make.read(encode, make.back, make.forth + make.gx.area)
    return make.done()


def t2_prepared(**how):
    """90°, two of 180°, 90° and a spoiler before each six gradient echoes."""
    make = Maker(**how)
    for n, encode in enumerate(make.encodes()):
        if n % 6 == 0:
            for flip, rest in ((90, 9e-3), (180, 19e-3), (180, 9e-3)):
                make.pulse(flip, "preparation", phase=np.pi / 2 * (flip == 180))
                make.wait(rest)
            make.pulse(90, "preparation", phase=np.pi)
            make.lobes([0, 0, 300.0])
        make.pulse(8, "excitation")
        make.read(encode, make.back, make.forth + make.gx.area)
    return make.done()


def tse(echoes=4, flips=(150, 120, 100, 60), phase=np.pi / 2, dummies=1, **how):
    make = Maker(**how)
    encodes = make.encodes()
    trains = [None] * dummies + [encodes[n : n + echoes] for n in range(0, len(encodes), echoes)]
    for train in trains:
        make.pulse(90, "excitation", phase=phase)
        make.lobes([-make.back, 0, 0], 3e-3)
        for n in range(echoes):
            make.pulse(flips[n % len(flips)], "refocusing")
            if train is None:
                make.wait(2.5e-3)
                make.seq.add_block(make.gx, pp.make_delay(2e-3))
                make.lobes([0.0 if echoes == 1 else -2 * make.back - make.gx.area, 0, 0])
            else:
                make.read(train[n], 0.0, -2 * make.back - make.gx.area)
        make.wait(0.1)
    return make.done()


def haste(**how):
    """One slice in one train, selective pulses, from three lines before the centre on."""
    make = Maker(**how, shape=np.array([8, 12, 1]), fov=np.array([0.192, 0.24, 0.02]))
    area = make.pulse(90, "excitation", phase=np.pi / 2, slab=0.02)
    make.lobes([-make.back, 0, -area], 3e-3)
    for n in range(-3, 6):
        make.pulse(160, "refocusing", slab=0.02)
        make.read(np.array([n / 0.24, 0.0]), 0.0, -2 * make.back - make.gx.area)
    return make.done()


KINDS = {"gre": gre, "bssfp": bssfp, "mprage": mprage, "t2 prepared": t2_prepared, "tse": tse, "haste": haste}
