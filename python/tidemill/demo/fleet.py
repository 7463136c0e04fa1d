"""A simulated fleet of machines: each reports its temperature, and some of them fail on purpose.

It is a pure function of its settings: the same seed gives the same readings and the same faults. It deliberately
knows no clock and no broker; when a reading is due is a number of seconds since the start.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import numpy.typing as npt

REPORTS_PER_SECOND = 20
"""Of one machine: the fleet grows with the rate, so that a detector sees as much of each machine at any rate."""

BASE_C = (45.0, 75.0)  # °C: where machines stand
NOISE_C = 0.5  # °C: the standard deviation of a healthy machine's reading
WAVE_C = 3.0  # °C: the amplitude of the slow wave that load makes
WAVE_S = 120.0  # seconds: the period of the wave, a day in a hurry


WARM_S = 2.5  # seconds: what a detector needs to know a machine


class FaultKind(Enum):
    """What can go wrong with a machine."""

    SPIKE = "spike"
    """Three readings far off, up or down."""
    SHIFT = "level shift"
    """The level jumps and stays, up or down."""
    OVERHEATING = "overheating"
    """The temperature climbs for six readings and stays high; a slower climb looks like load to `Ewma`."""


@dataclass(frozen=True)
class Fault:
    """One fault of one machine; `start` and all lengths count the machine's own readings."""

    kind: FaultKind
    machine: int
    start: int
    direction: int = 1

    @property
    def window(self) -> int:
        """Within how many readings an alarm belongs to the fault."""
        return {FaultKind.SPIKE: 5, FaultKind.SHIFT: 20, FaultKind.OVERHEATING: 20}[self.kind]

    def offset(self, age: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """°C added to readings of that age; 0 is the first faulty one, negative ages are healthy."""
        begun = age >= 0
        match self.kind:
            case FaultKind.SPIKE:
                shape = self.direction * 12 * (begun & (age < 3))
            case FaultKind.SHIFT:
                shape = self.direction * 8 * begun
            case FaultKind.OVERHEATING:
                shape = 4 * np.clip(age + 1, 0, 6)
        return np.asarray(NOISE_C * shape, dtype=np.float64)


@dataclass(frozen=True)
class Readings:
    """Columns of readings, in the order in which they are due."""

    machine: npt.NDArray[np.int64]
    seq: npt.NDArray[np.int64]
    """The number of the reading among those of its machine."""
    temperature: npt.NDArray[np.float64]

    def __len__(self) -> int:
        """How many readings."""
        return len(self.machine)


@dataclass(frozen=True)
class Fleet:
    """Machines that report in turn, `rate` readings a second in all."""

    rate: int
    machines: int
    faults: tuple[Fault, ...]
    seed: int

    @classmethod
    def simulate(cls, rate: int, seconds: float, seed: int = 0) -> Fleet:
        """A fleet for a demonstration of that length, with about one fault in one and a half seconds.

        Faults begin after the machines have been seen for a while and early enough to be noticed; no machine has two.
        """
        machines = max(1, round(rate / REPORTS_PER_SECOND))
        first, last = min(max(0.25 * seconds, WARM_S), 0.6 * seconds), 0.85 * seconds
        count = min(machines, max(3, round((last - first) / 1.5)))
        rng = np.random.default_rng([seed, 1])
        victims = rng.permutation(machines)[:count]
        when = np.linspace(first, last, count) * rate / machines
        kinds = list(FaultKind)
        faults = tuple(
            Fault(kinds[number % len(kinds)], int(machine), round(start), direction=int(rng.choice((-1, 1))))
            for number, (machine, start) in enumerate(zip(victims, when, strict=True))
        )
        return cls(rate, machines, faults, seed)

    def without_faults(self) -> Fleet:
        """The same machines in good health."""
        return replace(self, faults=())

    def readings(self, begin: int, end: int) -> Readings:
        """The readings of that range, counted over the whole fleet from 0."""
        index = np.arange(begin, end)
        machine, seq = index % self.machines, index // self.machines
        temperature = self._healthy(index, machine)
        for fault in self.faults:
            at = machine == fault.machine
            temperature[at] += fault.offset(seq[at] - fault.start)
        return Readings(machine, seq, temperature)

    def index_of(self, fault: Fault) -> int:
        """The number of the fault's first reading, counted over the whole fleet."""
        return fault.start * self.machines + fault.machine

    def _healthy(
        self, index: npt.NDArray[np.int64], machine: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        rng = np.random.default_rng([self.seed, 2])
        base, phase = rng.uniform(*BASE_C, self.machines), rng.uniform(0, 2 * np.pi, self.machines)
        wave = WAVE_C * np.sin(2 * np.pi * index / self.rate / WAVE_S + phase[machine])
        return base[machine] + wave + NOISE_C * _noise(self.seed, index)


def _noise(seed: int, index: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Normal noise that depends on the number of the reading alone, however the readings are asked for."""
    blocks = np.unique(index // _BLOCK)
    drawn = [np.random.default_rng([seed, 3, int(block)]).standard_normal(_BLOCK) for block in blocks]
    if not drawn:
        return np.empty(0)
    return np.asarray(np.concatenate(drawn)[index - blocks[0] * _BLOCK], dtype=np.float64)


_BLOCK = 4096  # readings whose noise is drawn at once
