"""How well the alarms met the faults: what was found, how late, and what was a false alarm.

It deliberately forgives nothing: an alarm counts for a fault only on its machine and within its window, and every
other alarm is false.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from tidemill.demo.fleet import Fault


@dataclass(frozen=True)
class Alarm:
    """One alarm as it reached the user's function."""

    machine: int
    seq: int
    """The number of the alarmed reading among those of its machine."""
    heard_ms: float
    """When it reached the function, in milliseconds since the epoch."""
    temperature: float = float("nan")


@dataclass(frozen=True)
class Finding:
    """A fault that was found, and how late."""

    fault: Fault
    late_points: int
    """Readings of the machine from the first faulty one to the alarmed one; 0 is at once."""
    late_ms: float
    """From sending the first faulty reading to hearing of the alarm."""


@dataclass
class Score:
    """What the alarms were worth; it grows by `hear`."""

    faults: tuple[Fault, ...]
    found: list[Finding] = field(default_factory=list)
    false_alarms: list[Alarm] = field(default_factory=list)
    repeats: int = 0
    """Further alarms within the window of a fault that had been found."""

    def hear(self, alarm: Alarm, sent_ms: Mapping[Fault, float]) -> Fault | None:
        """Book one alarm: the fault that it belongs to, or None where it is false."""
        fault = next((f for f in self.faults if f.machine == alarm.machine and _meets(f, alarm)), None)
        if fault is None:
            self.false_alarms.append(alarm)
        elif any(finding.fault == fault for finding in self.found):
            self.repeats += 1
        else:
            late_ms = alarm.heard_ms - sent_ms[fault]
            self.found.append(Finding(fault, alarm.seq - fault.start, late_ms))
        return fault

    @property
    def missed(self) -> list[Fault]:
        """The faults without an alarm."""
        found = {finding.fault for finding in self.found}
        return [fault for fault in self.faults if fault not in found]

    def within(self, injected: Iterable[Fault]) -> Score:
        """The same alarms, measured by the faults that were sent in fact."""
        sent = tuple(injected)
        return Score(sent, [f for f in self.found if f.fault in sent], self.false_alarms, self.repeats)

    def summary(self, readings: int) -> str:
        """The end of a demonstration in plain words."""
        if not self.faults:
            return f"ended before the first fault, after {readings:,} readings"
        lines = [f"{len(self.found)} of {len(self.faults)} injected faults found{self._missed_kinds()}"]
        if self.found:
            lines += [
                f"late by {_spread([f.late_points for f in self.found], 'readings', 0)}",
                f"        {_spread([f.late_ms for f in self.found], 'ms, from sent to heard', 0)}",
            ]
        number = len(self.false_alarms)
        lines.append(f"{number} false alarm{'' if number == 1 else 's'} in {readings:,} readings")
        return "\n".join(lines)

    def _missed_kinds(self) -> str:
        kinds = sorted({fault.kind.value for fault in self.missed})
        return f" (missed: {', '.join(kinds)})" if kinds else ""


def _meets(fault: Fault, alarm: Alarm) -> bool:
    return fault.start <= alarm.seq < fault.start + fault.window


def _spread(values: list[int] | list[float], unit: str, digits: int) -> str:
    median, p90 = np.percentile(values, [50, 90])
    return f"{median:.{digits}f} (median), {p90:.{digits}f} (90 of 100) {unit}"
