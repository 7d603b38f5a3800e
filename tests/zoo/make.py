"""Exports small models of every family Tacit reads, with onnxruntime's answers: models/<name>.onnx and models/<name>.npz.

The .npz holds `in:<input>` and `out:<output>`. Rows lie on, just below and just above the data's values.
"""

import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper
from onnx.helper import make_node, make_tensor_value_info
from skl2onnx import to_onnx
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_diabetes, load_iris, load_wine
from sklearn.decomposition import PCA
from sklearn.ensemble import *
from sklearn.impute import SimpleImputer
from sklearn.linear_model import *
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import *
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR
from sklearn.tree import *

warnings.filterwarnings("ignore")
OUT = Path(__file__).parent / "models"
OPSET = {"": 17, "ai.onnx.ml": 3}
iris_x, iris_y = load_iris(return_X_y=True)
iris_x = iris_x.astype(np.float32)
two = iris_y < 2
dia_x, dia_y = load_diabetes(return_X_y=True)
dia_x = (dia_x * 20).astype(np.float32)


def save(name, model, feeds):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    arrays = {f"in:{k}": v for k, v in feeds.items()}
    for out, value in zip(names, session.run(names, feeds)):
        if isinstance(value, list):
            keys = list(value[0])
            value = np.array([[row[k] for k in keys] for row in value], dtype=np.float32)
        # Object arrays need pickle; labels are text.
        arrays[f"out:{out}"] = value.astype(str) if value.dtype == object else value
    (OUT / f"{name}.onnx").write_bytes(model.SerializeToString())
    np.savez_compressed(OUT / f"{name}.npz", **arrays)
    print(f"{name}: {[(k, v.shape) for k, v in arrays.items()]}")


def skl(name, model, x, y, options=None, opset=OPSET):
    try:
        model.fit(x, y)
        rows = np.concatenate([x[::9], np.nextafter(x[::9], np.float32(np.inf)), np.nextafter(x[::9], np.float32(-np.inf))])
        onnx_model = to_onnx(model, x[:1], options=options, target_opset=opset)
        save(name, onnx_model, {onnx_model.graph.input[0].name: rows.astype(np.float32)})
    except Exception as why:
        print(f"{name}: SKIPPED {type(why).__name__} {str(why)[:120]}")


off = {"zipmap": False}
for name, model in {
    "tree_classifier": DecisionTreeClassifier(max_depth=4), "forest_classifier": RandomForestClassifier(5, max_depth=4),
    "extra_classifier": ExtraTreesClassifier(5, max_depth=4), "boosting_classifier": GradientBoostingClassifier(n_estimators=4, max_depth=3),
    "bagging_classifier": BaggingClassifier(DecisionTreeClassifier(max_depth=2), 3),
    "logistic": LogisticRegression(), "ridge_classifier_scaled": make_pipeline(StandardScaler(), LogisticRegression()),
    "minmax_tree": make_pipeline(MinMaxScaler(), DecisionTreeClassifier(max_depth=3)),
    "maxabs_logistic": make_pipeline(MaxAbsScaler(), LogisticRegression()),
    "robust_forest": make_pipeline(RobustScaler(), RandomForestClassifier(3, max_depth=3)),
    "normalizer_tree": make_pipeline(Normalizer(), DecisionTreeClassifier(max_depth=3)),
    "binarizer_tree": make_pipeline(Binarizer(threshold=2.5), DecisionTreeClassifier(max_depth=3)),
    "imputer_tree": make_pipeline(SimpleImputer(), DecisionTreeClassifier(max_depth=3)),
    "pca_tree": make_pipeline(PCA(2), DecisionTreeClassifier(max_depth=3)),
    "pca_logistic": make_pipeline(PCA(3), LogisticRegression()),
    "svc_linear": SVC(kernel="linear"), "svc_linear_probability": SVC(kernel="linear", probability=True, random_state=0),
    "sgd": SGDClassifier(random_state=0), "perceptron": Perceptron(),
}.items():
    if hasattr(model, "random_state"):
        model.random_state = 0
    skl(name, model, iris_x, iris_y, options=off)
    skl(name + "_two", model, iris_x[two], iris_y[two], options=off)
skl("tree_strings", DecisionTreeClassifier(max_depth=3), iris_x, np.array(["a", "bb", "ccc"])[iris_y], options=off)
skl("linear_svc", LinearSVC(random_state=0), iris_x, iris_y)
skl("tree_zipmap", DecisionTreeClassifier(max_depth=3), iris_x, iris_y)
skl("tree_opset9", DecisionTreeClassifier(max_depth=3), iris_x, iris_y, options=off, opset={"": 9, "ai.onnx.ml": 1})
skl("logistic_opset11", make_pipeline(StandardScaler(), LogisticRegression()), iris_x, iris_y, options=off, opset={"": 11, "ai.onnx.ml": 1})
for name, model in {
    "linear_regression": LinearRegression(), "lasso": Lasso(0.1), "elastic_net": ElasticNet(0.1), "sgd_regressor": SGDRegressor(random_state=0),
    "linear_svr": LinearSVR(random_state=0), "svr_linear": SVR(kernel="linear"), "huber": HuberRegressor(), "bayesian_ridge": BayesianRidge(),
    "poisson": PoissonRegressor(), "gamma": GammaRegressor(), "tweedie": TweedieRegressor(power=1.5),
    "tree_regressor": DecisionTreeRegressor(max_depth=5), "forest_regressor": RandomForestRegressor(5, max_depth=4, random_state=0),
    "boosting_regressor": GradientBoostingRegressor(n_estimators=6, max_depth=3, random_state=0),
    "polynomial_ridge": make_pipeline(StandardScaler(), Ridge()),
    "voting_regressor": VotingRegressor([("a", DecisionTreeRegressor(max_depth=3)), ("b", Ridge())]),
}.items():
    skl(name, model, dia_x, dia_y)
skl("multi_output", LinearRegression(), dia_x, np.stack([dia_y, -dia_y], 1))
skl("multi_output_tree", DecisionTreeRegressor(max_depth=3), dia_x, np.stack([dia_y, -dia_y], 1))

# Hand-made ensembles: every mode, every post transform, every aggregate.
values = np.array([[0.0], [1.0], [2.0], [np.nextafter(np.float32(1), 2)], [np.nextafter(np.float32(1), 0)], [-3.0], [np.inf], [-np.inf]], dtype=np.float32)
rows = np.concatenate([np.concatenate([values, np.roll(values, k, 0)], 1) for k in range(4)])


def ensemble(name, modes=("BRANCH_LEQ",) * 3, tracks=None, data=rows, **more):
    attrs = dict(
        n_targets=1, nodes_treeids=[0] * 7, nodes_nodeids=list(range(7)), nodes_featureids=[0, 1, 1, 0, 0, 0, 0],
        nodes_values=[1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0], nodes_modes=list(modes) + ["LEAF"] * 4,
        nodes_truenodeids=[1, 3, 5, 0, 0, 0, 0], nodes_falsenodeids=[2, 4, 6, 0, 0, 0, 0],
        target_treeids=[0] * 4, target_nodeids=[3, 4, 5, 6], target_ids=[0] * 4, target_weights=[0.25, 0.5, -0.75, 0.125],
    )
    if tracks:
        attrs["nodes_missing_value_tracks_true"] = tracks
    attrs.update(more)
    node = make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", **attrs)
    graph = helper.make_graph([node], name, [make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])], [make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("ai.onnx.ml", 3), helper.make_opsetid("", 17)], ir_version=8)
    try:
        save(name, model, {"x": data})
    except Exception as why:
        print(f"{name}: SKIPPED {str(why)[:120]}")


for mode in ["LEQ", "LT", "GTE", "GT", "EQ", "NEQ"]:
    ensemble(f"mode_{mode.lower()}", [f"BRANCH_{mode}"] * 3)
ensemble("mode_mixed", ["BRANCH_GT", "BRANCH_EQ", "BRANCH_LT"])
with_nan = np.concatenate([rows, np.full((1, 2), np.nan, np.float32), np.array([[np.nan, 0], [0, np.nan]], np.float32)])
ensemble("missing", tracks=[1, 0, 1, 0, 0, 0, 0], data=with_nan)
for transform in ["LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"]:
    ensemble(f"post_{transform.lower()}", post_transform=transform)
ensemble("base_value", base_values=[0.5])
ensemble("average", aggregate_function="AVERAGE")
