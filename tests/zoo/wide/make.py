"""Writes the wide zoo: models/<name>.onnx, models/<name>.npz (`in:`, `out:` and `keys:` arrays), models/index.json, ../OPS.md.

`python make.py` makes all of it, `python make.py WORD...` only models whose name has one of the words (and no index).
"""

import sys
import warnings

import harness
import numpy as np
import pandas as pd
from handmade import handmade
from harness import MODELS, finish, rows_for, save, skip
from onnx import TensorProto
from lightgbm import LGBMClassifier, LGBMRegressor, LGBMRanker
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import DoubleTensorType as MlDouble
from onnxmltools.convert.common.data_types import FloatTensorType as MlFloat
from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm as lightgbm_converter
from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost as xgboost_converter
from skl2onnx import to_onnx, update_registered_converter
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType
from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes, calculate_linear_regressor_output_shapes
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.cross_decomposition import PLSRegression
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import *
from sklearn.feature_selection import RFE, SelectFromModel, SelectKBest, VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.linear_model import *
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import *
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR, NuSVC, NuSVR, OneClassSVM
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor
from xgboost import XGBClassifier, XGBRegressor, XGBRFClassifier, XGBRFRegressor

warnings.filterwarnings("ignore")
MODELS.mkdir(exist_ok=True)
words = sys.argv[1:]
OFF, ON, COLUMNS, RAW = {"zipmap": False}, {}, {"zipmap": "columns"}, {"raw_scores": True, "zipmap": False}
S = dict(random_state=0)
iris_x, iris_y = load_iris(return_X_y=True)
wine_x, wine_y = load_wine(return_X_y=True)
cancer_x, cancer_y = load_breast_cancer(return_X_y=True)
dia_x, dia_y = load_diabetes(return_X_y=True)
iris_x, wine_x, cancer_x, dia_x = (v.astype(np.float32) for v in (iris_x, wine_x, cancer_x[:, :10], dia_x * 20))
THREE, TWO, CANCER, DIA = (iris_x, iris_y), (iris_x[50:], iris_y[50:] - 1), (cancer_x, cancer_y), (dia_x, dia_y)
WINE = (wine_x, wine_y)
NAMES = np.array(["setosa", "versicolor", "virginica"])


def wanted(name):
    return not words or any(word in name for word in words)


def with_nan(x, share=0.08):
    x = x.copy()
    x[np.random.default_rng(0).random(x.shape) < share] = np.nan
    return x


def compared(model, rows, onnx_model):
    """Says where onnxruntime's first output is not what the library predicts, on the ordinary rows."""
    try:
        want = np.asarray(model.predict(rows[:14]))
        got = next(v for k, v in harness.run(onnx_model, {onnx_model.graph.input[0].name: rows[:14]}).items() if k.startswith("out:"))
        if want.dtype.kind == "f" and got.dtype.kind == "f":
            far = np.abs(want.ravel() - got.ravel()).max() / max(1, np.abs(want).max())
            return f"differs from the library by {far:.1e} of scale" if far > 1e-3 else ""
        wrong = int((want.astype(str).ravel() != got.astype(str).ravel()).sum())
        return f"{wrong} of 14 labels differ from the library" if wrong else ""
    except Exception:
        return ""


def skl(name, family, model, data, options=None, opset=17, ml=3, nan=False, inf=False, large=100.0, dtype=np.float32, fit=True):
    """Fits, exports with skl2onnx, and saves."""
    if not wanted(name):
        return
    x, y = data
    try:
        x = x.astype(dtype)
        if fit:
            model.fit(x, y)
        target = {"": opset, "ai.onnx.ml": ml} if ml else opset
        try:
            onnx_model = to_onnx(model, x[:1], options={id(model): options} if options else None, target_opset=target)
        except (NameError, AttributeError):  # this estimator has no such option
            onnx_model = to_onnx(model, x[:1], target_opset=target)
        rows = rows_for(x, onnx_model, nan, inf, large)
        feeds, note = {onnx_model.graph.input[0].name: rows}, ""
        try:
            harness.run(onnx_model, feeds)
        except Exception as why:
            if "Type (tensor(double)) of output arg" not in str(why):
                raise
            # Trees answer in float32 whatever they read; what skl2onnx declares for double inputs is refused as it stands.
            for output in onnx_model.graph.output:
                if output.type.tensor_type.elem_type == TensorProto.DOUBLE:
                    output.type.tensor_type.elem_type = TensorProto.FLOAT
            note = "as exported it declares double outputs and onnxruntime refuses it; they are declared float here"
        also = compared(model, rows, onnx_model)
        save(name, family, "skl2onnx", onnx_model, feeds, "; ".join(filter(None, [note, also])))
    except Exception as why:
        skip(name, why)


def boosted(name, convert, family, model, data, nan=True, fit={}, types=None, **more):
    """Fits, exports XGBoost or LightGBM with onnxmltools, and saves."""
    if not wanted(name):
        return
    x, y = data
    try:
        model.fit(x, y, **fit)
        kind = (types or MlFloat)([None, x.shape[1]])
        onnx_model = convert(model, initial_types=[("x", kind)], **{"target_opset": 15, **more})
        rows = rows_for(x if types is None else x.astype(np.float64), onnx_model, nan, inf=True)
        save(name, family, "onnxmltools", onnx_model, {"x": rows}, compared(model, rows, onnx_model))
    except Exception as why:
        skip(name, why)


def linear():
    for key, model in {
        "linear_regression": LinearRegression(), "linear_regression_no_intercept": LinearRegression(fit_intercept=False),
        "ridge": Ridge(), "ridge_cv": RidgeCV(), "lasso": Lasso(0.1), "lasso_cv": LassoCV(), "elastic_net": ElasticNet(0.1),
        "lars": Lars(), "orthogonal_matching_pursuit": OrthogonalMatchingPursuit(), "sgd_regressor": SGDRegressor(**S),
        "huber": HuberRegressor(), "bayesian_ridge": BayesianRidge(), "ard_regression": ARDRegression(),
        "quantile_regressor": QuantileRegressor(solver="highs"), "theil_sen": TheilSenRegressor(**S), "ransac": RANSACRegressor(**S),
        "linear_svr": LinearSVR(**S), "pls_regression": PLSRegression(2),
    }.items():
        skl(key, "linear", model, DIA)
    for key, model in {"poisson": PoissonRegressor(), "gamma": GammaRegressor(), "tweedie": TweedieRegressor(power=1.5), "tweedie_identity": TweedieRegressor(power=0)}.items():
        skl(key, "glm", model, (dia_x, dia_y / 50), large=3.0)
    pair = (dia_x, np.stack([dia_y, -2 * dia_y + 1, dia_y**2 / 100], 1))
    for key, model in {"linear_regression_multi": LinearRegression(), "ridge_multi": Ridge(), "multi_task_lasso": MultiTaskLasso(), "multi_task_elastic_net": MultiTaskElasticNet(), "pls_regression_multi": PLSRegression(2), "multi_output_regressor_ridge": MultiOutputRegressor(Ridge())}.items():
        skl(key, "linear", model, pair)
    for suffix, data in {"two": TWO, "three": THREE}.items():
        for key, model in {
            "logistic": LogisticRegression(max_iter=500), "logistic_cv": LogisticRegressionCV(max_iter=500), "sgd_hinge": SGDClassifier(**S), "sgd_log_loss": SGDClassifier(loss="log_loss", **S),
            "sgd_modified_huber": SGDClassifier(loss="modified_huber", **S), "sgd_squared_hinge": SGDClassifier(loss="squared_hinge", **S), "ridge_classifier": RidgeClassifier(), "perceptron": Perceptron(**S),
            "linear_svc": LinearSVC(**S), "lda": LinearDiscriminantAnalysis(), "qda": QuadraticDiscriminantAnalysis(),
        }.items():
            skl(f"{key}_{suffix}", "linear", model, data, OFF)
        skl(f"logistic_raw_{suffix}", "linear", LogisticRegression(), data, RAW)
        skl(f"linear_svc_raw_{suffix}", "linear", LinearSVC(**S), data, {"raw_scores": True})
        skl(f"logistic_zipmap_{suffix}", "linear", LogisticRegression(), data)
        skl(f"logistic_columns_{suffix}", "linear", LogisticRegression(), data, COLUMNS)
        skl(f"logistic_ovr_{suffix}", "linear", OneVsRestClassifier(LogisticRegression()), data, OFF)
        skl(f"ovo_linear_svc_{suffix}", "linear", OneVsOneClassifier(LinearSVC(**S)), data, OFF)
        skl(f"logistic_strings_{suffix}", "linear", LogisticRegression(), (data[0], NAMES[data[1]]), OFF)
    skl("logistic_strings_zipmap", "linear", LogisticRegression(), (iris_x, NAMES[iris_y]))
    skl("logistic_liblinear", "linear", LogisticRegression(solver="liblinear"), TWO, OFF)
    skl("logistic_minus_one_one", "linear", LogisticRegression(), (TWO[0], 2 * TWO[1] - 1), OFF)
    skl("logistic_l1_wine", "linear", make_pipeline(StandardScaler(), LogisticRegression(C=0.1, l1_ratio=1, solver="saga", max_iter=500, **S)), WINE, OFF)
    skl("logistic_booleans", "linear", LogisticRegression(), (TWO[0], TWO[1] == 1), OFF)
    for dtype, key in ((np.float64, "double"), (np.int64, "int64")):
        skl(f"linear_regression_{key}", "linear", LinearRegression(), DIA, dtype=dtype)
        skl(f"logistic_{key}", "linear", LogisticRegression(max_iter=500), CANCER, OFF, dtype=dtype, large=3)
        skl(f"scaled_logistic_{key}", "linear", make_pipeline(StandardScaler(), LogisticRegression()), WINE, OFF, dtype=dtype)


def support_vectors():
    small = (iris_x[::3], iris_y[::3])
    small_two = (iris_x[50::2], iris_y[50::2])
    for suffix, data in {"two": small_two, "three": small}.items():
        for key, model in {"svc": SVC(kernel="linear"), "svc_ovo": SVC(kernel="linear", decision_function_shape="ovo"), "svc_break_ties": SVC(kernel="linear", break_ties=True), "svc_probability": SVC(kernel="linear", probability=True, **S), "nu_svc": NuSVC(kernel="linear"), "nu_svc_probability": NuSVC(kernel="linear", probability=True, **S)}.items():
            skl(f"{key}_{suffix}", "svm", model, data, OFF)
        skl(f"svc_raw_{suffix}", "svm", SVC(kernel="linear"), data, RAW)
        skl(f"svc_strings_{suffix}", "svm", SVC(kernel="linear"), (data[0], NAMES[data[1]]), OFF)
        skl(f"calibrated_svc_{suffix}", "svm", CalibratedClassifierCV(SVC(kernel="linear"), ensemble=False, cv=3), data, OFF)
    skl("svc_zipmap", "svm", SVC(kernel="linear"), small)
    skl("svc_double", "svm", SVC(kernel="linear"), small, OFF, dtype=np.float64)
    skl("svc_rbf", "svm", SVC(), small, OFF)
    few = (dia_x[:60], dia_y[:60])
    for key, model in {"svr": SVR(kernel="linear"), "nu_svr": NuSVR(kernel="linear"), "svr_rbf": SVR()}.items():
        skl(key, "svm", model, few)
    skl("one_class_svm", "svm", OneClassSVM(kernel="linear", nu=0.3), small)


def trees():
    for suffix, data in {"two": TWO, "three": THREE}.items():
        for key, model in {
            "tree": DecisionTreeClassifier(max_depth=4, **S), "extra_tree": ExtraTreeClassifier(max_depth=4, **S), "forest": RandomForestClassifier(5, max_depth=4, **S), "extra_trees": ExtraTreesClassifier(5, max_depth=4, **S),
            "gradient_boosting": GradientBoostingClassifier(n_estimators=5, max_depth=3, **S), "hist_gradient_boosting": HistGradientBoostingClassifier(max_iter=5, max_depth=3, **S),
            "gradient_boosting_zero_init": GradientBoostingClassifier(n_estimators=4, max_depth=2, init="zero", **S),
            "ada_boost": AdaBoostClassifier(DecisionTreeClassifier(max_depth=2, **S), n_estimators=4, **S), "bagging": BaggingClassifier(DecisionTreeClassifier(max_depth=3, **S), 4, **S),
            "bagging_features": BaggingClassifier(DecisionTreeClassifier(max_depth=3, **S), 4, max_features=0.5, **S),
        }.items():
            skl(f"{key}_{suffix}", "tree", model, data, OFF, inf="ada" not in key)
            if "gradient" in key:
                skl(f"{key}_raw_{suffix}", "tree", model, data, RAW)
        skl(f"tree_zipmap_{suffix}", "tree", DecisionTreeClassifier(max_depth=3, **S), data)
        skl(f"tree_columns_{suffix}", "tree", DecisionTreeClassifier(max_depth=3, **S), data, COLUMNS)
        skl(f"forest_strings_{suffix}", "tree", RandomForestClassifier(4, max_depth=3, **S), (data[0], NAMES[data[1]]), OFF)
        skl(f"hist_gradient_boosting_missing_{suffix}", "tree", HistGradientBoostingClassifier(max_iter=5, max_depth=3, **S), (with_nan(data[0]), data[1]), OFF, nan=True, inf=True)
        skl(f"tree_missing_{suffix}", "tree", DecisionTreeClassifier(max_depth=4, **S), (with_nan(data[0]), data[1]), OFF, nan=True, inf=False)
        skl(f"forest_missing_{suffix}", "tree", RandomForestClassifier(4, max_depth=4, **S), (with_nan(data[0]), data[1]), OFF, nan=True)
    skl("tree_strings_zipmap", "tree", DecisionTreeClassifier(max_depth=3, **S), (iris_x, NAMES[iris_y]))
    skl("tree_pure_leaf", "tree", DecisionTreeClassifier(max_depth=1, **S), (TWO[0], 0 * TWO[1]), OFF)
    skl("tree_labels_10_20_35", "tree", DecisionTreeClassifier(max_depth=3, **S), (iris_x, np.array([10, 20, 35])[iris_y]), OFF)
    skl("tree_labels_minus_one_one", "tree", RandomForestClassifier(3, max_depth=3, **S), (TWO[0], 2 * TWO[1] - 1), OFF)
    skl("tree_decision_path", "tree", DecisionTreeClassifier(max_depth=2, **S), THREE, {"zipmap": False, "decision_path": True})
    skl("tree_decision_leaf", "tree", DecisionTreeClassifier(max_depth=2, **S), THREE, {"zipmap": False, "decision_leaf": True})
    skl("tree_multi_label", "tree", DecisionTreeClassifier(max_depth=3, **S), (iris_x, np.stack([iris_y == 1, iris_y == 2], 1).astype(int)), OFF)
    skl("forest_wine_entropy", "tree", RandomForestClassifier(10, max_depth=6, criterion="entropy", **S), WINE, OFF, inf=True)
    skl("forest_cancer_deep", "tree", RandomForestClassifier(8, **S), CANCER, OFF, inf=True)
    for key, model in {
        "tree": DecisionTreeRegressor(max_depth=5, **S), "extra_tree": ExtraTreeRegressor(max_depth=5, **S), "forest": RandomForestRegressor(5, max_depth=4, **S), "extra_trees": ExtraTreesRegressor(5, max_depth=4, **S),
        "gradient_boosting": GradientBoostingRegressor(n_estimators=6, max_depth=3, **S), "gradient_boosting_quantile": GradientBoostingRegressor(n_estimators=6, max_depth=3, loss="quantile", **S), "hist_gradient_boosting": HistGradientBoostingRegressor(max_iter=6, max_depth=4, **S),
        "ada_boost": AdaBoostRegressor(DecisionTreeRegressor(max_depth=3, **S), n_estimators=3, **S), "bagging": BaggingRegressor(DecisionTreeRegressor(max_depth=3, **S), 4, **S), "bagging_features": BaggingRegressor(DecisionTreeRegressor(max_depth=3, **S), 4, max_features=0.5, **S),
    }.items():
        skl(f"{key}_regressor", "tree", model, DIA, inf="ada" not in key)
    skl("hist_gradient_boosting_poisson", "tree", HistGradientBoostingRegressor(loss="poisson", max_iter=6, max_depth=3, **S), DIA)
    skl("hist_gradient_boosting_missing_regressor", "tree", HistGradientBoostingRegressor(max_iter=6, max_depth=4, **S), (with_nan(dia_x), dia_y), nan=True, inf=True)
    skl("tree_missing_regressor", "tree", DecisionTreeRegressor(max_depth=5, **S), (with_nan(dia_x), dia_y), nan=True)
    codes = np.random.default_rng(0).integers(0, 5, len(dia_x))
    mixed = np.concatenate([dia_x[:, :3], codes[:, None]], 1).astype(np.float32)
    skl("hist_gradient_boosting_categorical", "tree", HistGradientBoostingRegressor(max_iter=5, max_depth=3, categorical_features=[3], **S), (mixed, dia_y + 60 * (codes % 2)))
    pair = (dia_x, np.stack([dia_y, -dia_y / 3], 1))
    for key, model in {"tree": DecisionTreeRegressor(max_depth=4, **S), "forest": RandomForestRegressor(4, max_depth=4, **S), "extra_trees": ExtraTreesRegressor(4, max_depth=4, **S), "multi_output_boosting": MultiOutputRegressor(GradientBoostingRegressor(n_estimators=4, max_depth=2, **S))}.items():
        skl(f"{key}_multi_regressor", "tree", model, pair)
    skl("isolation_forest", "tree", IsolationForest(n_estimators=4, max_samples=32, **S), DIA)
    for dtype, key in ((np.float64, "double"), (np.int64, "int64")):
        skl(f"tree_{key}", "tree", DecisionTreeClassifier(max_depth=4, **S), WINE, OFF, dtype=dtype)
        skl(f"forest_{key}_regressor", "tree", RandomForestRegressor(4, max_depth=4, **S), (cancer_x, cancer_x[:, 0] * 2), dtype=dtype)
        skl(f"gradient_boosting_{key}", "tree", GradientBoostingClassifier(n_estimators=4, max_depth=2, **S), CANCER, OFF, dtype=dtype)
    skl("forest_double_ml1", "tree", RandomForestRegressor(4, max_depth=4, **S), DIA, dtype=np.float64, ml=1)
    skl("hist_gradient_boosting_double", "tree", HistGradientBoostingRegressor(max_iter=5, max_depth=3, **S), DIA, dtype=np.float64)


def meta():
    tree, line, svm = (lambda: DecisionTreeClassifier(max_depth=3, **S)), (lambda: LogisticRegression(max_iter=500)), (lambda: LinearSVC(**S))
    for suffix, data in {"two": TWO, "three": THREE}.items():
        for key, model in {
            "voting_soft": VotingClassifier([("a", tree()), ("b", line())], voting="soft", flatten_transform=False), "voting_hard": VotingClassifier([("a", tree()), ("b", line()), ("c", svm())], flatten_transform=False), "voting_weighted": VotingClassifier([("a", tree()), ("b", line())], voting="soft", weights=np.array([1, 3]), flatten_transform=False),
            "ovr_tree": OneVsRestClassifier(tree()), "ovr_svc": OneVsRestClassifier(svm()), "calibrated_tree": CalibratedClassifierCV(tree(), cv=2), "calibrated_linear_svc": CalibratedClassifierCV(svm(), cv=2),
            "calibrated_isotonic": CalibratedClassifierCV(line(), method="isotonic", cv=2), "stacking": StackingClassifier([("a", tree()), ("b", line())], cv=3), "stacking_passthrough": StackingClassifier([("a", tree()), ("b", line())], cv=3, passthrough=True),
            "bagging_logistic": BaggingClassifier(line(), 3, **S), "ada_boost_logistic": AdaBoostClassifier(line(), n_estimators=3, **S),
        }.items():
            skl(f"{key}_{suffix}", "meta", model, data, OFF)
    labels = (iris_x, np.stack([iris_y > 0, iris_y > 1], 1).astype(int))
    skl("multi_output_logistic", "meta", MultiOutputClassifier(line()), labels)
    skl("multi_output_forest", "meta", MultiOutputClassifier(RandomForestClassifier(3, max_depth=3, **S)), labels)
    skl("multi_label_ovr", "meta", OneVsRestClassifier(line()), labels, OFF)
    for key, model in {
        "voting_regressor": VotingRegressor([("a", DecisionTreeRegressor(max_depth=3, **S)), ("b", Ridge())]), "voting_regressor_weighted": VotingRegressor([("a", DecisionTreeRegressor(max_depth=3, **S)), ("b", Ridge())], weights=np.array([1, 2])),
        "voting_regressor_forests": VotingRegressor([("a", RandomForestRegressor(3, max_depth=3, **S)), ("b", GradientBoostingRegressor(n_estimators=3, max_depth=2, **S))]),
        "stacking_regressor": StackingRegressor([("a", DecisionTreeRegressor(max_depth=3, **S)), ("b", Ridge())], cv=3), "bagging_ridge": BaggingRegressor(Ridge(), 3, **S), "transformed_target": TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1),
    }.items():
        skl(key, "meta", model, DIA, large=3)


def boosting():
    xgb = dict(n_jobs=1, random_state=0)
    lgb = dict(n_jobs=1, random_state=0, verbose=-1, min_child_samples=5)
    for suffix, data in {"two": TWO, "three": THREE}.items():
        boosted(f"xgb_{suffix}", convert_xgboost, "xgboost", XGBClassifier(n_estimators=5, max_depth=3, **xgb), data)
        boosted(f"xgb_missing_{suffix}", convert_xgboost, "xgboost", XGBClassifier(n_estimators=5, max_depth=3, **xgb), (with_nan(data[0]), data[1]))
        boosted(f"xgb_rf_{suffix}", convert_xgboost, "xgboost", XGBRFClassifier(n_estimators=5, max_depth=3, **xgb), data)
        boosted(f"lgbm_{suffix}", convert_lightgbm, "lightgbm", LGBMClassifier(n_estimators=5, max_depth=3, **lgb), data, zipmap=False)
        boosted(f"lgbm_zipmap_{suffix}", convert_lightgbm, "lightgbm", LGBMClassifier(n_estimators=3, max_depth=3, **lgb), data)
        boosted(f"lgbm_missing_{suffix}", convert_lightgbm, "lightgbm", LGBMClassifier(n_estimators=5, max_depth=3, **lgb), (with_nan(data[0]), data[1]), zipmap=False)
        boosted(f"lgbm_missing_zero_{suffix}", convert_lightgbm, "lightgbm", LGBMClassifier(n_estimators=5, max_depth=3, zero_as_missing=True, **lgb), (np.where(data[0] < 1.4, np.float32(0), data[0]), data[1]), zipmap=False)
        boosted(f"lgbm_rf_{suffix}", convert_lightgbm, "lightgbm", LGBMClassifier(n_estimators=4, max_depth=3, boosting_type="rf", bagging_freq=1, bagging_fraction=0.7, **lgb), data, zipmap=False)
        boosted(f"lgbm_dart_{suffix}", convert_lightgbm, "lightgbm", LGBMClassifier(n_estimators=4, max_depth=3, boosting_type="dart", **lgb), data, zipmap=False)
    boosted("xgb_softmax", convert_xgboost, "xgboost", XGBClassifier(n_estimators=4, max_depth=3, objective="multi:softmax", **xgb), THREE)
    boosted("xgb_hinge", convert_xgboost, "xgboost", XGBClassifier(n_estimators=4, max_depth=3, objective="binary:hinge", **xgb), TWO)
    boosted("xgb_logitraw", convert_xgboost, "xgboost", XGBClassifier(n_estimators=4, max_depth=3, objective="binary:logitraw", **xgb), TWO)
    boosted("xgb_base_score", convert_xgboost, "xgboost", XGBClassifier(n_estimators=4, max_depth=3, base_score=0.2, **xgb), CANCER)
    boosted("xgb_dart", convert_xgboost, "xgboost", XGBClassifier(n_estimators=4, max_depth=3, booster="dart", rate_drop=0.5, **xgb), CANCER)
    boosted("xgb_gblinear", convert_xgboost, "xgboost", XGBClassifier(n_estimators=4, booster="gblinear", **xgb), CANCER, nan=False)
    boosted("xgb_opset9", convert_xgboost, "xgboost", XGBClassifier(n_estimators=4, max_depth=3, **xgb), CANCER, target_opset=9)
    boosted("xgb_lossguide", convert_xgboost, "xgboost", XGBClassifier(n_estimators=6, max_depth=0, max_leaves=9, grow_policy="lossguide", tree_method="hist", **xgb), CANCER)
    boosted("xgb_early_stopping", convert_xgboost, "xgboost", XGBClassifier(n_estimators=30, max_depth=3, early_stopping_rounds=2, **xgb), CANCER, fit={"eval_set": [(cancer_x[:99], cancer_y[:99])], "verbose": False})
    for objective in ("reg:squarederror", "reg:logistic", "count:poisson", "reg:gamma", "reg:tweedie", "reg:absoluteerror", "reg:squaredlogerror", "reg:quantileerror"):
        more = {"quantile_alpha": 0.5} if "quantile" in objective else {}
        y = dia_y / dia_y.max() * 0.98 if objective == "reg:logistic" else dia_y / 50
        boosted("xgb_" + objective.replace(":", "_"), convert_xgboost, "xgboost", XGBRegressor(n_estimators=5, max_depth=3, objective=objective, **more, **xgb), (dia_x, y))
    boosted("xgb_missing_regressor", convert_xgboost, "xgboost", XGBRegressor(n_estimators=5, max_depth=3, **xgb), (with_nan(dia_x), dia_y))
    boosted("xgb_base_score_regressor", convert_xgboost, "xgboost", XGBRegressor(n_estimators=5, max_depth=3, base_score=100.0, **xgb), DIA)
    boosted("xgb_rf_regressor", convert_xgboost, "xgboost", XGBRFRegressor(n_estimators=5, max_depth=3, **xgb), DIA)
    boosted("xgb_multi_regressor", convert_xgboost, "xgboost", XGBRegressor(n_estimators=3, max_depth=3, **xgb), (dia_x, np.stack([dia_y, -dia_y], 1)))
    for objective in ("regression", "regression_l1", "huber", "poisson", "gamma", "tweedie", "quantile", "mape", "cross_entropy"):
        y = dia_y / dia_y.max() if objective == "cross_entropy" else dia_y / 50
        boosted(f"lgbm_{objective}", convert_lightgbm, "lightgbm", LGBMRegressor(n_estimators=5, max_depth=3, objective=objective, **lgb), (dia_x, y))
    boosted("lgbm_missing_regressor", convert_lightgbm, "lightgbm", LGBMRegressor(n_estimators=5, max_depth=3, **lgb), (with_nan(dia_x), dia_y))
    boosted("lgbm_split_regressor", convert_lightgbm, "lightgbm", LGBMRegressor(n_estimators=6, max_depth=3, **lgb), DIA, split=2)
    boosted("lgbm_double_regressor", convert_lightgbm, "lightgbm", LGBMRegressor(n_estimators=5, max_depth=3, **lgb), DIA, types=MlDouble)
    boosted("lgbm_ova", convert_lightgbm, "lightgbm", LGBMClassifier(n_estimators=4, max_depth=3, objective="multiclassova", **lgb), THREE, zipmap=False)
    boosted("lgbm_unlimited_depth", convert_lightgbm, "lightgbm", LGBMClassifier(n_estimators=4, **lgb), CANCER, zipmap=False)
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 12, len(dia_x))
    mixed = np.concatenate([dia_x[:, :3], codes[:, None]], 1).astype(np.float32)
    shifted = dia_y + 80 * np.isin(codes, [1, 4, 6, 9])
    category = {"categorical_feature": [3]}
    boosted("lgbm_categorical_regressor", convert_lightgbm, "lightgbm", LGBMRegressor(n_estimators=4, max_depth=3, max_cat_to_onehot=1, **lgb), (mixed, shifted), fit=category)
    boosted("lgbm_categorical_onehot", convert_lightgbm, "lightgbm", LGBMRegressor(n_estimators=4, max_depth=3, max_cat_to_onehot=20, **lgb), (mixed, shifted), fit=category)
    boosted("lgbm_categorical_two", convert_lightgbm, "lightgbm", LGBMClassifier(n_estimators=4, max_depth=3, max_cat_to_onehot=1, **lgb), (mixed, (shifted > 180).astype(int)), fit=category, zipmap=False)
    gaps = mixed.copy()
    gaps[rng.random(gaps.shape) < 0.06] = np.nan
    boosted("lgbm_categorical_missing", convert_lightgbm, "lightgbm", LGBMRegressor(n_estimators=4, max_depth=3, max_cat_to_onehot=1, **lgb), (gaps, shifted), fit=category)
    boosted("lgbm_ranker", convert_lightgbm, "lightgbm", LGBMRanker(n_estimators=4, max_depth=3, **lgb), (dia_x[:440], (dia_y[:440] // 90).astype(int)), fit={"group": [44] * 10})
    # Inside scikit-learn pipelines, the way the documentation of skl2onnx shows.
    both = {"nocl": [True, False], "zipmap": [True, False, "columns"]}
    update_registered_converter(XGBClassifier, "XGBoostXGBClassifier", calculate_linear_classifier_output_shapes, xgboost_converter, options=both)
    update_registered_converter(XGBRegressor, "XGBoostXGBRegressor", calculate_linear_regressor_output_shapes, xgboost_converter)
    update_registered_converter(LGBMClassifier, "LightGbmLGBMClassifier", calculate_linear_classifier_output_shapes, lightgbm_converter, options=both)
    update_registered_converter(LGBMRegressor, "LightGbmLGBMRegressor", calculate_linear_regressor_output_shapes, lightgbm_converter, options={"split": None})
    for suffix, data in {"two": TWO, "three": THREE}.items():
        skl(f"pipeline_xgb_{suffix}", "xgboost", make_pipeline(StandardScaler(), XGBClassifier(n_estimators=4, max_depth=3, **xgb)), data, OFF, nan=True)
        skl(f"pipeline_lgbm_{suffix}", "lightgbm", make_pipeline(StandardScaler(), LGBMClassifier(n_estimators=4, max_depth=3, **lgb)), data, OFF, nan=True)
    skl("pipeline_xgb_zipmap", "xgboost", make_pipeline(StandardScaler(), XGBClassifier(n_estimators=4, max_depth=3, **xgb)), THREE)
    skl("pipeline_xgb_regressor", "xgboost", make_pipeline(SimpleImputer(), XGBRegressor(n_estimators=4, max_depth=3, **xgb)), (with_nan(dia_x), dia_y), nan=True)
    skl("pipeline_lgbm_regressor", "lightgbm", make_pipeline(MinMaxScaler(), LGBMRegressor(n_estimators=4, max_depth=3, **lgb)), DIA)


def pipelines():
    tree, line = (lambda: DecisionTreeClassifier(max_depth=3, **S)), (lambda: LogisticRegression(max_iter=500))
    steps = {
        "standard": StandardScaler(), "standard_no_mean": StandardScaler(with_mean=False), "standard_no_std": StandardScaler(with_std=False), "min_max": MinMaxScaler(), "min_max_clip": MinMaxScaler(clip=True), "min_max_range": MinMaxScaler((-1, 1)), "max_abs": MaxAbsScaler(),
        "robust": RobustScaler(), "robust_no_center": RobustScaler(with_centering=False), "normalizer_l1": Normalizer("l1"), "normalizer_l2": Normalizer("l2"), "normalizer_max": Normalizer("max"), "binarizer": Binarizer(threshold=2.5),
        "polynomial": PolynomialFeatures(2), "polynomial_interactions": PolynomialFeatures(2, interaction_only=True, include_bias=False), "power": PowerTransformer(), "power_box_cox": PowerTransformer("box-cox"), "quantile": QuantileTransformer(n_quantiles=10), "select_k_best": SelectKBest(k=2),
        "variance": VarianceThreshold(0.2), "rfe": RFE(LogisticRegression(), n_features_to_select=2), "select_from_model": SelectFromModel(RandomForestClassifier(5, **S)), "pca": PCA(2), "pca_whiten": PCA(2, whiten=True), "svd": TruncatedSVD(2, **S), "lda_transform": LinearDiscriminantAnalysis(),
        "k_bins_onehot": KBinsDiscretizer(4, encode="onehot"), "k_bins_dense": KBinsDiscretizer(4, encode="onehot-dense"), "k_bins_ordinal": KBinsDiscretizer(4, encode="ordinal"), "function_identity": FunctionTransformer(), "function_log1p": FunctionTransformer(np.log1p), "spline": SplineTransformer(),
        "union": FeatureUnion([("a", StandardScaler()), ("b", PCA(2))]), "two_scalers": make_pipeline(StandardScaler(), MinMaxScaler()),
    }
    for key, step in steps.items():
        large = 100.0 if key not in ("power", "power_box_cox") else 2.0
        for suffix, last in {"tree": tree(), "logistic": line()}.items():
            skl(f"{key}_{suffix}", "pipeline", make_pipeline(step, last), THREE, OFF, large=large)
    skl("standard_ridge", "pipeline", make_pipeline(StandardScaler(), Ridge()), DIA)
    skl("standard_svr", "pipeline", make_pipeline(StandardScaler(), SVR(kernel="linear")), (dia_x[:60], dia_y[:60]))
    skl("standard_svc", "pipeline", make_pipeline(StandardScaler(), SVC(kernel="linear")), (iris_x[::3], iris_y[::3]), OFF)
    skl("standard_pca_gradient_boosting", "pipeline", make_pipeline(StandardScaler(), PCA(4), GradientBoostingClassifier(n_estimators=4, max_depth=2, **S)), WINE, OFF)
    gaps = (with_nan(iris_x), iris_y)
    for strategy in ("mean", "median", "most_frequent", "constant"):
        skl(f"imputer_{strategy}_tree", "pipeline", make_pipeline(SimpleImputer(strategy=strategy, fill_value=-1 if strategy == "constant" else None), tree()), gaps, OFF, nan=True)
    skl("imputer_indicator_tree", "pipeline", make_pipeline(SimpleImputer(add_indicator=True), tree()), gaps, OFF, nan=True)
    skl("imputer_standard_logistic", "pipeline", make_pipeline(SimpleImputer(), StandardScaler(), line()), gaps, OFF, nan=True)
    skl("column_slices_logistic", "pipeline", make_pipeline(ColumnTransformer([("a", StandardScaler(), [0, 2]), ("b", MinMaxScaler(), [3])]), line()), THREE, OFF)
    skl("column_passthrough_tree", "pipeline", make_pipeline(ColumnTransformer([("a", StandardScaler(), [1, 3])], remainder="passthrough"), tree()), THREE, OFF)
    typed()


def typed():
    """Pipelines over columns with several typed graph inputs."""
    rng = np.random.default_rng(0)
    n = 240
    frame = pd.DataFrame({"age": rng.normal(40, 12, n).astype(np.float32), "pay": rng.lognormal(3, 0.5, n).astype(np.float32), "city": rng.choice(["Bern", "Oslo", "Rome", "São Paulo"], n), "kind": rng.integers(0, 4, n)})
    frame["city"] = frame["city"].astype(object)
    score = frame.age / 12 + frame.pay / 15 + 1.5 * frame.city.isin(["Oslo", "Rome"]) - frame.kind + rng.normal(0, 0.3, n)
    y = (score > score.median()).astype(int).to_numpy()
    kinds = {"age": FloatTensorType([None, 1]), "pay": FloatTensorType([None, 1]), "city": StringTensorType([None, 1]), "kind": Int64TensorType([None, 1])}

    def table(name, steps, last, target, columns=tuple(kinds), unseen=False, options=OFF, opset=17):
        if not wanted(name):
            return
        try:
            model = make_pipeline(ColumnTransformer(steps), last).fit(frame[list(columns)], target)
            usable = {id(model): options} if hasattr(last, "classes_") and options else None
            onnx_model = to_onnx(model, initial_types=[(c, kinds[c]) for c in columns], options=usable, target_opset={"": opset, "ai.onnx.ml": 3})
            rows = frame.iloc[:36].copy()
            if unseen:
                rows.iloc[3:5, rows.columns.get_loc("city")] = "Atlantis"
                rows.iloc[6:9, rows.columns.get_loc("kind")] = [9, -1, 2**40]
            feeds = {c: rows[[c]].to_numpy() for c in columns}
            feeds = {c: v.astype(str) if c == "city" else v for c, v in feeds.items()}
            save(name, "typed", "skl2onnx", onnx_model, {i.name: feeds[i.name] for i in onnx_model.graph.input})
        except Exception as why:
            skip(name, why)

    tree, line = (lambda: DecisionTreeClassifier(max_depth=4, **S)), (lambda: LogisticRegression(max_iter=500))
    numbers, hot = ("num", StandardScaler(), ["age", "pay"]), ("cat", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["city", "kind"])
    table("onehot_logistic", [numbers, hot], line(), y, unseen=True)
    table("onehot_logistic_zipmap", [numbers, hot], line(), y, unseen=True, options=None)
    table("onehot_forest", [numbers, hot], RandomForestClassifier(4, max_depth=4, **S), y, unseen=True)
    table("onehot_ridge", [numbers, hot], Ridge(), score.to_numpy(), unseen=True)
    table("onehot_string_only_tree", [("cat", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["city"])], tree(), y, ("city",))
    table("onehot_int_only_logistic", [("cat", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["kind"])], line(), y, ("kind",))
    table("onehot_sparse_logistic", [numbers, ("cat", OneHotEncoder(handle_unknown="ignore"), ["city"])], line(), y, ("age", "pay", "city"))
    table("onehot_drop_first_logistic", [numbers, ("cat", OneHotEncoder(drop="first", sparse_output=False), ["city", "kind"])], line(), y)
    table("ordinal_tree", [("num", "passthrough", ["age", "pay"]), ("cat", OrdinalEncoder(), ["city"])], tree(), y, ("age", "pay", "city"))
    table("ordinal_unknown_tree", [("num", "passthrough", ["age", "pay"]), ("cat", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["city", "kind"])], tree(), y, unseen=True)
    table("ordinal_int_tree", [("num", "passthrough", ["age"]), ("cat", OrdinalEncoder(), ["kind"])], tree(), y, ("age", "kind"))
    table("imputed_columns_logistic", [("num", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "pay"]), hot], line(), y, unseen=True)
    table("int_passthrough_tree", [("num", "passthrough", ["age", "kind"])], tree(), y, ("age", "kind"))
    table("typed_string_labels", [numbers, hot], line(), np.array(["no", "yes"])[y])
    table("onehot_logistic_opset11", [numbers, hot], line(), y, unseen=True, opset=11)


def opsets():
    models = {
        "tree": (DecisionTreeClassifier(max_depth=3, **S), THREE), "forest_regressor": (RandomForestRegressor(3, max_depth=3, **S), DIA), "scaled_logistic": (make_pipeline(StandardScaler(), LogisticRegression()), THREE), "gradient_boosting": (GradientBoostingClassifier(n_estimators=3, max_depth=2, **S), THREE),
        "min_max_clip": (make_pipeline(MinMaxScaler(clip=True), LogisticRegression()), THREE), "pca_logistic": (make_pipeline(PCA(2), LogisticRegression()), THREE), "poisson": (PoissonRegressor(), (dia_x, dia_y / 50)), "voting": (VotingClassifier([("a", DecisionTreeClassifier(max_depth=2, **S)), ("b", LogisticRegression())], voting="soft", flatten_transform=False), THREE),
        "normalizer": (make_pipeline(Normalizer(), LogisticRegression()), THREE),
    }
    for key, (model, data) in models.items():
        for opset, ml in ((9, 1), (11, 1), (13, 2), (15, 2), (17, 3), (18, 3), (21, 3)):
            skl(f"{key}_opset{opset}_ml{ml}", "opset", model, data, OFF, opset=opset, ml=ml, large=3.0)


linear()
support_vectors()
trees()
meta()
boosting()
pipelines()
opsets()
handmade(wanted)
if not words:
    finish()
