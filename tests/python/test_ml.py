"""Detectors on plain arrays: what they take, what they give, and what they say of mistakes."""

from __future__ import annotations

import doctest
import math
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tidemill import ml
from tidemill._native import CheckpointError, ConfigError, SchemaError
from tidemill.ml.check import Floats


def model(values: Floats, alpha: float = 0.05, warmup: int = 30) -> Floats:
    """The scores by the textbook: weighted mean and weighted variance from all values so far, nothing recursive."""
    out = np.full(len(values), np.nan)
    for row in range(warmup, len(values)):
        seen = values[:row]
        weights = alpha * (1 - alpha) ** np.arange(row - 1, -1, -1.0)
        weights[0] /= alpha  # the first value is the mean at first
        mean = np.sum(weights * seen)
        variance = np.sum(weights * (seen - mean) ** 2)
        out[row] = abs(values[row] - mean) / math.sqrt(variance)
    return out


@pytest.fixture
def noise() -> Floats:
    return np.random.default_rng(5).normal(20, 3, 400)


@pytest.mark.parametrize(("alpha", "warmup"), [(0.05, 30), (0.5, 2), (0.01, 100)])
def test_scores_are_those_of_the_textbook(noise: Floats, alpha: float, warmup: int) -> None:
    scores = ml.Ewma(alpha, warmup=warmup).score_then_learn(noise)
    np.testing.assert_allclose(scores.score, model(noise, alpha, warmup), rtol=1e-9)


def test_probabilities_are_the_normal_tail(noise: Floats) -> None:
    noise[200] = 80.0
    scores = ml.Ewma().score_then_learn(noise)
    expected = [math.erfc(z / math.sqrt(2)) for z in scores.score]
    np.testing.assert_allclose(scores.p_value, expected, rtol=1e-12)
    upper = ml.Ewma(two_sided=False).score_then_learn(noise)
    np.testing.assert_allclose(
        upper.p_value, [math.erfc(z / math.sqrt(2)) / 2 for z in upper.score], rtol=1e-12
    )


def test_values_come_as_numpy_lists_or_arrow(noise: Floats) -> None:
    expected = ml.Ewma().score_then_learn(noise).score
    chunked = pa.chunked_array([noise[:150], noise[150:]])
    for values in (list(noise), noise[::-1][::-1], pa.array(noise), chunked):
        np.testing.assert_array_equal(ml.Ewma().score_then_learn(values).score, expected)
    single = ml.Ewma().score_then_learn(noise.astype(np.float32)).score
    np.testing.assert_array_equal(single, ml.Ewma().score_then_learn(pa.array(noise, pa.float32())).score)


def test_null_and_not_a_number_are_alike(noise: Floats) -> None:
    noise[50:60] = np.nan
    expected = ml.Ewma().score_then_learn(noise)
    found = ml.Ewma().score_then_learn(pa.array(noise, from_pandas=True))
    np.testing.assert_array_equal(found.score, expected.score)
    assert np.isnan(expected.score[50:60]).all()
    assert not expected.is_anomaly[50:60].any()


def test_each_key_has_its_own_state(noise: Floats) -> None:
    keys = np.arange(400) % 4
    together = ml.Ewma().score_then_learn(noise, keys)
    for kind in (
        keys.tolist(),
        [f"device-{key}" for key in keys],
        pa.array(keys.astype(str)),
        keys.astype(str),
    ):
        np.testing.assert_array_equal(ml.Ewma().score_then_learn(noise, kind).score, together.score)
    for key in range(4):
        alone = ml.Ewma().score_then_learn(noise[keys == key])
        np.testing.assert_array_equal(together.score[keys == key], alone.score)


def test_an_object_goes_on_where_it_was(noise: Floats) -> None:
    whole, parts = ml.Ewma().score_then_learn(noise), ml.Ewma()
    found = [parts.score_then_learn(noise[:123]).score, parts.score_then_learn(noise[123:]).score]
    np.testing.assert_array_equal(np.concatenate(found), whole.score)
    parts.reset()
    np.testing.assert_array_equal(parts.score_then_learn(noise).score, whole.score)


def test_saved_state_is_arrow_that_others_read(noise: Floats) -> None:
    detector = ml.Ewma()
    detector.score_then_learn(noise, ["a", "b"] * 200)
    table = pa.ipc.open_stream(detector.save()).read_all()
    assert table.column("key").to_pylist() in ([b"a", b"b"], [b"b", b"a"])
    assert table.column("seen").to_pylist() == [200, 200]
    assert table.schema.metadata[b"tidemill.detector"] == b"Ewma"


def test_the_same_state_saves_as_the_same_bytes_whatever_came_first(noise: Floats) -> None:
    one, other = ml.Ewma(), ml.Ewma()
    one.score_then_learn(noise[:4], ["a", "b", "a", "b"])
    other.score_then_learn(noise[[1, 0, 3, 2]], ["b", "a", "b", "a"])
    assert one.save() == other.save()


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: b"", lambda data: data[:90] + b"?" + data[91:]]
)
def test_damaged_state_is_refused_and_nothing_is_lost(
    noise: Floats, damage: Callable[[bytes], bytes]
) -> None:
    detector = ml.Ewma()
    detector.score_then_learn(noise)
    saved = detector.save()
    with pytest.raises(CheckpointError, match=r"other bytes, or damaged ones; pass what save\(\) returned"):
        detector.load(damage(saved))
    assert detector.save() == saved


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"alpha": 0.0}, "alpha is the weight of the newest value, between 0 and 1, found 0"),
        ({"alpha": float("nan")}, "alpha is .* found NaN"),
        ({"warmup": 1}, "warmup is the number of values learnt before the first score, 2 or more, found 1"),
        ({"warmup": -5}, "warmup is a number of values, from 0 to 4294967295, found -5"),
        (
            {"threshold": 1.0},
            "threshold is the accepted probability of a false alarm, between 0 and 1, found 1",
        ),
        ({"quiet": -1}, "quiet is a number of values"),
    ],
)
def test_a_wrong_parameter_is_named_at_once(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ml.Ewma(**parameters)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"alpha": "fast"}, "alpha is a number, found 'fast'"),
        ({"threshold": True}, "threshold is a number, found True"),
        ({"quiet": 1.5}, "quiet is a number of values, from 0 to 4294967295, found 1.5$"),
        (
            {"quiet": "10m"},
            "found '10m'; a length of time is not offered yet: pass how many values of a key come",
        ),
        ({"warmup": timedelta(minutes=10)}, "a length of time is not offered yet"),
    ],
)
def test_a_parameter_of_a_wrong_type_is_named(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ml.Ewma(**parameters)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"treshold": 1e-3}, r"Ewma\(\) takes no argument 'treshold'; did you mean threshold\?"),
        ({"grace_period": 10}, "'grace_period'; did you mean warmup"),
        ({"half_life": 10}, "'half_life'; the memory is told by alpha alone"),
        ({"stuck_after": 5}, "'stuck_after'; this setting of detectors is not offered yet"),
        ({"x": 5}, "'x'; it takes alpha, warmup, two_sided, threshold, quiet"),
        ({"x": 5, "treshold": 1}, "'x'.*'treshold'"),
    ],
)
def test_an_unknown_parameter_is_answered_with_those_that_there_are(
    parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        ml.Ewma(**parameters)


@pytest.mark.parametrize(
    ("values", "keys", "message"),
    [
        (np.zeros((3, 2)), None, r"values were expected with shape \(n,\), found \[3, 2\]"),
        (pa.array(["a"]), None, "values were expected to be numeric, found an Arrow array of string"),
        (np.zeros(3), ["a"], "one key a value was expected, found 1 keys for 3 values"),
        (
            np.zeros(1),
            [1.5],
            "keys were expected as integers, strings or an Arrow array, one a value, found list",
        ),
        (
            np.zeros(1),
            pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
            "of type map<string, int64> cannot be a key: the entries of a map have no order",
        ),
    ],
)
def test_wrong_input_is_named(values: object, keys: object, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        ml.Ewma().score_then_learn(values, keys)


def test_settings_are_shown() -> None:
    detector = ml.Ewma(0.1, two_sided=False)
    assert repr(detector) == "Ewma(alpha=0.1, warmup=30, two_sided=False, threshold=0.001, quiet=150)"
    params: dict[str, Any] = detector.get_params()
    assert ml.Ewma(**params).get_params() == params
    assert detector.threshold == 1e-3
    assert detector.bytes_per_key <= 208
    assert isinstance(detector, ml.Detector)


def test_scores_say_what_they_are(noise: Floats) -> None:
    noise[300] = 90.0
    scores = ml.Ewma().score_then_learn(noise)
    assert (len(scores), str(scores.score.dtype), str(scores.is_anomaly.dtype)) == (400, "float64", "bool")
    assert repr(scores) == f"Scores(400 values, {scores.is_anomaly.sum()} anomalies)"


def test_threads_may_share_a_detector(noise: Floats) -> None:
    detector = ml.Ewma()
    keys = [[f"{number}"] * len(noise) for number in range(4)]
    threads = [threading.Thread(target=detector.score_then_learn, args=(noise, key)) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pa.ipc.open_stream(detector.save()).read_all().column("seen").to_pylist() == [400] * 4


def test_the_examples_of_the_docstrings_run() -> None:
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    found = [test for thing in (ml, ml.Ewma, ml.check) for test in finder.find(thing, globs={})]
    assert sum(len(test.examples) for test in found) >= 9
    assert [runner.run(test).failed for test in found] == [0] * len(found)
