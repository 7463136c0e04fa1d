"""Models of other libraries in `score`: the scores are the library's own; what would be wrong is refused at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import tidemill as tm
from tidemill.testing import ScriptedSource

ROWS = 40
COLUMNS = ["x", "y"]
Floats = npt.NDArray[np.floating[Any]]

onnxruntime = pytest.importorskip("onnxruntime")
skl2onnx = pytest.importorskip("skl2onnx")
ensemble = pytest.importorskip("sklearn.ensemble")
linear_model = pytest.importorskip("sklearn.linear_model")
cluster = pytest.importorskip("sklearn.cluster")


@pytest.fixture(scope="module")
def points() -> Floats:
    return np.random.default_rng(7).normal(size=(ROWS, 2)).astype("float32")


@pytest.fixture
def stream(source: ScriptedSource, drained: tm.StreamingContext, points: Floats) -> tm.DStream:
    """The points, in one partition."""
    source.push(0, [b'{"x":%r,"y":%r,"n":1.0}' % (float(x), float(y)) for x, y in points])
    return drained.scripted(source, format=tm.Json(dict.fromkeys([*COLUMNS, "n"], "float64")))


def scores(stream: tm.DStream) -> Floats:
    return np.concatenate([batch["score"] for batch in stream])


def onnx_bytes(model: Any, points: Floats, **options: Any) -> bytes:
    """The model, exported with as many features as the points have."""
    exported = skl2onnx.to_onnx(model, points[:1], target_opset={"": 17, "ai.onnx.ml": 3}, **options)
    return bytes(exported.SerializeToString())


@pytest.fixture(scope="module")
def regression(points: Floats) -> Any:
    return linear_model.LinearRegression().fit(points, points @ np.array([2.0, -1.0]) + 3)


@pytest.fixture(scope="module")
def classifier(points: Floats) -> Any:
    return linear_model.LogisticRegression().fit(points, points[:, 0] > 0)


def test_a_classifier_gives_the_probability_of_its_second_class(
    stream: tm.DStream, points: Floats, classifier: Any
) -> None:
    """Though it has a `decision_function`, which in detectors is lower for what is more anomalous."""
    scored = stream.score(classifier, COLUMNS)
    assert "score(LogisticRegression.predict_proba[:, 1])" in scored.explain()
    np.testing.assert_allclose(scores(scored), classifier.predict_proba(points)[:, 1], rtol=1e-6)


def test_its_other_methods_keep_their_sign(stream: tm.DStream, points: Floats, classifier: Any) -> None:
    scored = stream.score(classifier, COLUMNS, method="decision_function")
    np.testing.assert_allclose(scores(scored), classifier.decision_function(points), rtol=1e-6)


def test_what_an_estimator_gives_no_score_for_is_refused_before_the_start(
    stream: tm.DStream, points: Floats, classifier: Any
) -> None:
    with pytest.raises(
        tm.ConfigError, match=r"given 3 columns, \['x', 'y', 'n'\], and LogisticRegression was fitted on 2$"
    ):
        stream.score(classifier, [*COLUMNS, "n"])
    kinds = np.array(["bad", "fine", "good"])[np.digitize(points[:, 0], [-0.5, 0.5])]
    several = linear_model.LogisticRegression().fit(points, kinds)
    with pytest.raises(
        tm.ConfigError, match=r"3 classes apart, \['bad', 'fine', 'good'\].*for all but 'bad'"
    ):
        stream.score(several, COLUMNS)
    with pytest.raises(tm.ConfigError, match=r"predict gives classes.*pass a callable"):
        stream.score(several, COLUMNS, method="predict")


def test_a_matrix_of_the_wrong_type_says_which_is_right(stream: tm.DStream, points: Floats) -> None:
    model = cluster.KMeans(2, n_init=1, random_state=0).fit(points.astype("float64"))
    with pytest.raises(
        tm.SchemaError, match=r'KMeans.predict takes no matrix of float32.*pass dtype="float64"'
    ):
        scores(stream.score(model, COLUMNS))


def test_an_onnx_file_scores_as_the_model_that_it_was_made_of(
    stream: tm.DStream, points: Floats, regression: Any, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_bytes(regression, points))
    scored = stream.score(path, COLUMNS)
    assert "score(ONNX variable)" in scored.explain()
    np.testing.assert_allclose(scores(scored), regression.predict(points).ravel(), rtol=1e-5)


def test_a_session_of_a_classifier_gives_the_second_class(
    stream: tm.DStream, points: Floats, classifier: Any
) -> None:
    session = onnxruntime.InferenceSession(onnx_bytes(classifier, points, options={"zipmap": False}))
    scored = stream.score(session, COLUMNS)
    assert "score(ONNX probabilities)" in scored.explain()
    np.testing.assert_allclose(scores(scored), classifier.predict_proba(points)[:, 1], rtol=1e-4)


def test_an_isolation_forest_gives_its_scores_as_they_are(stream: tm.DStream, points: Floats) -> None:
    forest = ensemble.IsolationForest(n_estimators=10, random_state=0).fit(points)
    session = onnxruntime.InferenceSession(onnx_bytes(forest, points))
    np.testing.assert_allclose(
        scores(stream.score(session, COLUMNS)), forest.decision_function(points), atol=1e-5
    )


def test_what_an_onnx_model_cannot_take_is_refused_before_the_start(
    stream: tm.DStream, points: Floats, regression: Any, classifier: Any, tmp_path: Path
) -> None:
    session = onnxruntime.InferenceSession(onnx_bytes(regression, points))
    with pytest.raises(tm.ConfigError, match=r"shape \[None, 2\], found 3 columns: \['x', 'y', 'n'\]"):
        stream.score(session, [*COLUMNS, "n"])
    with pytest.raises(tm.ConfigError, match='takes float32, found dtype="float64"; pass dtype="float32"'):
        stream.score(session, COLUMNS, dtype="float64")
    with pytest.raises(tm.ConfigError, match=r"no output 'scores'; it has \['variable'\]"):
        stream.score(session, COLUMNS, method="scores")
    mapped = onnxruntime.InferenceSession(onnx_bytes(classifier, points))
    with pytest.raises(tm.ConfigError, match=r"'output_probability' is seq.*without a ZipMap"):
        stream.score(mapped, COLUMNS)


def test_a_file_that_is_no_model_is_refused(stream: tm.DStream, tmp_path: Path) -> None:
    with pytest.raises(tm.ConfigError, match=r"ends in \.onnx, found 'model\.pkl'"):
        stream.score("model.pkl", COLUMNS)
    with pytest.raises(tm.ConfigError, match=r"finds no file 'missing\.onnx' in /"):
        stream.score("missing.onnx", COLUMNS)
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(tm.ConfigError, match=r"onnxruntime cannot read '.*broken\.onnx': "):
        stream.score(tmp_path / "broken.onnx", COLUMNS)


class TestTorch:
    """Modules of PyTorch, where it is installed."""

    @pytest.fixture(autouse=True)
    def torch(self) -> Any:
        return pytest.importorskip("torch")

    def module(self, torch: Any) -> Any:
        torch.manual_seed(3)
        layers = torch.nn.Linear(2, 4), torch.nn.Dropout(0.5), torch.nn.ReLU(), torch.nn.Linear(4, 1)
        return torch.nn.Sequential(*layers)

    def test_a_module_scores_without_gradients(self, torch: Any, stream: tm.DStream, points: Floats) -> None:
        module = self.module(torch).eval()
        scored = stream.score(module, COLUMNS)
        assert "score(Sequential)" in scored.explain()
        expected = module(torch.from_numpy(points)).detach().numpy().ravel()
        np.testing.assert_allclose(scores(scored), expected, rtol=1e-6)

    def test_what_would_give_wrong_scores_is_refused(self, torch: Any, stream: tm.DStream) -> None:
        module = self.module(torch)
        with pytest.raises(tm.ConfigError, match=r"training mode, where scores are random; call model\.eval"):
            stream.score(module, COLUMNS)
        with pytest.raises(
            tm.ConfigError, match='takes float64, found dtype="float32"; pass dtype="float64"'
        ):
            stream.score(module.eval().double(), COLUMNS)
        with pytest.raises(
            tm.ConfigError, match="calls the module Sequential itself, found method='forward'"
        ):
            stream.score(module.float(), COLUMNS, method="forward")
