"""`tm.ml.check` passes good detectors and names what is wrong with others."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tidemill import ml
from tidemill.ml.check import Floats


@pytest.mark.parametrize(
    "detector",
    [
        ml.Ewma(),
        ml.Ewma(two_sided=False),
        ml.Ewma(0.5, warmup=2),
        ml.Ewma(0.001, quiet=0),
        ml.Ewma(threshold=1e-6, quiet=7),
    ],
    ids=repr,
)
def test_ewma_passes(detector: ml.Detector) -> None:
    ml.check(detector)


class Counting:
    """A user's own detector in plain Python: the rank of a value's distance from the mean of all before it."""

    threshold = 1e-2

    def __init__(self) -> None:
        self.keys: dict[str, list[float]] = {}

    def __repr__(self) -> str:
        return "Counting()"

    def score_then_learn(self, values: Floats, keys: Any = None) -> Any:
        keys = ["" for _ in values] if keys is None else keys
        rows = [
            self.point(self.keys.setdefault(str(key), []), value)
            for key, value in zip(keys, values, strict=True)
        ]
        score, p_value, anomaly = np.array(rows, float).reshape(-1, 3).T
        return SimpleNamespace(score=score, p_value=p_value, is_anomaly=anomaly.astype(bool))

    def point(self, seen: list[float], value: float) -> tuple[float, float, bool]:
        if not np.isfinite(value):
            return np.nan, np.nan, False
        value = float(np.clip(value, -1e150, 1e150))
        score, p_value = self.scored(seen, value)
        seen.append(value)
        return score, p_value, bool(p_value < self.threshold)

    def scored(self, seen: Sequence[float], value: float) -> tuple[float, float]:
        if len(seen) < 20:
            return np.nan, np.nan
        score = abs(value - seen[0])
        return score, 1 / (1 + 1e3 * max(0.0, score - 50))

    def reset(self) -> None:
        self.keys = {}

    def save(self) -> bytes:
        return pickle.dumps(self.keys)

    def load(self, data: bytes, /) -> None:
        self.keys = pickle.loads(data)


def test_a_users_own_detector_passes() -> None:
    ml.check(Counting())


class LooksAhead(Counting):
    def score_then_learn(self, values: Floats, keys: Any = None) -> Any:
        with np.errstate(invalid="ignore"):
            return super().score_then_learn(values / np.nanmax(np.abs(values), initial=1.0), keys)


class MixesKeys(Counting):
    def score_then_learn(self, values: Floats, keys: Any = None) -> Any:
        return super().score_then_learn(values)


class Forgets(Counting):
    def score_then_learn(self, values: Floats, keys: Any = None) -> Any:
        self.reset()
        return super().score_then_learn(values, keys)


class LosesItsState(Counting):
    def load(self, data: bytes, /) -> None:
        pass


class TakesInfinityForHuge(Counting):
    def score_then_learn(self, values: Floats, keys: Any = None) -> Any:
        return super().score_then_learn(np.clip(values, -1e9, 1e9), keys)


class DiesOfNothing(Counting):
    def score_then_learn(self, values: Floats, keys: Any = None) -> Any:
        values[0] + 1
        return super().score_then_learn(values, keys)


class UpsideDown(Counting):
    def scored(self, seen: Sequence[float], value: float) -> tuple[float, float]:
        score, p_value = super().scored(seen, value)
        return -score, p_value


class Trigger(Counting):
    def point(self, seen: list[float], value: float) -> tuple[float, float, bool]:
        score, p_value, _ = super().point(seen, value)
        return score, p_value, True


class Dice(Counting):
    def scored(self, seen: Sequence[float], value: float) -> tuple[float, float]:
        score, p_value = super().scored(seen, value)
        return score + np.random.default_rng().random() * 1e-9, p_value


class Infinite(Counting):
    def scored(self, seen: Sequence[float], value: float) -> tuple[float, float]:
        score, p_value = super().scored(seen, value)
        return (np.inf if score > 0.5 and seen[-1] == seen[0] else score), p_value


class Impossible(Counting):
    def scored(self, seen: Sequence[float], value: float) -> tuple[float, float]:
        score, p_value = super().scored(seen, value)
        return score, 2 * p_value


class TooShort(Counting):
    def score_then_learn(self, values: Floats, keys: Any = None) -> Any:
        found = super().score_then_learn(values, keys)
        return SimpleNamespace(score=found.score[1:], p_value=found.p_value, is_anomaly=found.is_anomaly)


@pytest.mark.parametrize(
    ("faulty", "check"),
    [
        (LooksAhead, "causal"),
        (MixesKeys, "key-isolated"),
        (Forgets, "batch-size invariant"),
        (LosesItsState, "restored state continues identically"),
        (TakesInfinityForHuge, "what is not finite gets no score and is not learnt"),
        (DiesOfNothing, "one value, or none"),
        (UpsideDown, "score sign"),
        (Trigger, "constant input"),
        (Infinite, "constant input"),
        (Dice, "deterministic"),
        (Impossible, "scores and probabilities agree"),
        (TooShort, "huge values"),
    ],
)
def test_a_fault_is_named(faulty: type[Counting], check: str) -> None:
    with pytest.raises(ml.CheckFailedError) as found:
        ml.check(faulty())
    assert check in [failure.check for failure in found.value.failures]
    assert str(found.value).startswith("Counting() fails ")
