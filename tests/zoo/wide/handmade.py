"""Models built node by node: what exporters seldom or never write, but the standard allows."""

import numpy as np
from harness import save, skip
from onnx import TensorProto as T
from onnx import helper, numpy_helper
from onnx.helper import make_node

F = np.float32
ONE, UP, DOWN = F(1), np.nextafter(F(1), F(2)), np.nextafter(F(1), F(0))
_values = np.array([0, 1, 2, UP, DOWN, -3, -0.0, 1e30, np.inf, -np.inf], F)[:, None]
EDGE = np.concatenate([np.concatenate([_values, np.roll(_values, k, 0)], 1) for k in range(4)])
GAPS = np.concatenate([EDGE, np.array([[np.nan, np.nan], [np.nan, 0], [np.nan, 1], [0, np.nan], [2, np.nan]], F)])
ROWS = (np.random.default_rng(0).normal(size=(28, 4)) * np.array([1, 3, 0.2, 10])).astype(F)
ROWS = np.concatenate([ROWS, np.zeros((1, 4), F), np.eye(4, dtype=F), -np.eye(4, dtype=F), ROWS[:2] * 50])
W3 = np.array([[0.5, -1, 2, 0.1], [-0.25, 0.75, 1, -0.3], [1.5, 0.5, -3, 0.05]], F)
B3 = np.array([0.1, -0.2, 0.3], F)
ML = "ai.onnx.ml"


def handmade(wanted):
    def build(name, nodes, outputs, feeds, inits={}, opset=17, ml=3, family="handmade"):
        """`outputs` is {name: (element type, shape)}."""
        if not wanted(name):
            return
        try:
            kinds = {"f": T.FLOAT, "i": T.INT64, "U": T.STRING, "b": T.BOOL}
            kind = lambda v: T.DOUBLE if v.dtype == np.float64 else T.INT32 if v.dtype == np.int32 else kinds[v.dtype.kind]
            given = [helper.make_tensor_value_info(k, kind(v), ["N"] + list(v.shape[1:])) for k, v in feeds.items()]
            made = [helper.make_tensor_value_info(k, *v) if v else helper.make_empty_tensor_value_info(k) for k, v in outputs.items()]
            graph = helper.make_graph(nodes, name, given, made, [numpy_helper.from_array(np.asarray(v), k) for k, v in inits.items()])
            ir = 8 if opset < 20 else 10
            model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(ML, ml)], ir_version=ir)
            save(name, family, "handmade", model, feeds)
        except Exception as why:
            skip(name, why)

    y1, y3 = {"y": (T.FLOAT, ["N", 1])}, {"y": (T.FLOAT, ["N", 3])}
    label3 = {"label": (T.INT64, ["N"]), "scores": (T.FLOAT, ["N", 3])}

    # ---- tree ensembles: one tree of three tests, weights on one or more targets, maybe twice with other values
    def trees(modes, copies=1, targets=1, what="target", weights=(0.25, 0.5, -0.75, 0.125), values=(1.0, 1.0, 0.0)):
        a = {k: [] for k in ("nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_values", "nodes_modes", "nodes_truenodeids", "nodes_falsenodeids", f"{what}_treeids", f"{what}_nodeids", f"{what}_ids", f"{what}_weights")}
        for tree in range(copies):
            a["nodes_treeids"] += [tree] * 7
            a["nodes_nodeids"] += list(range(7))
            a["nodes_featureids"] += [tree % 2, 1, (tree + 1) % 2, 0, 0, 0, 0]
            a["nodes_values"] += [float(v) + tree for v in values] + [0.0] * 4
            a["nodes_modes"] += [f"BRANCH_{m}" for m in modes] + ["LEAF"] * 4
            a["nodes_truenodeids"] += [1, 3, 5, 0, 0, 0, 0]
            a["nodes_falsenodeids"] += [2, 4, 6, 0, 0, 0, 0]
            for leaf in range(4):
                for target in range(targets):
                    a[f"{what}_treeids"].append(tree)
                    a[f"{what}_nodeids"].append(3 + leaf)
                    a[f"{what}_ids"].append(target)
                    a[f"{what}_weights"].append(float(weights[(leaf + target) % 4]) * (1 + 0.5 * target) * (1 + 0.25 * tree))
        return a

    def regressor(name, modes=("LEQ",) * 3, feeds=EDGE, copies=1, targets=1, opset=17, ml=3, values=(1.0, 1.0, 0.0), edit=None, **more):
        a = {**trees(modes, copies, targets, values=values), "n_targets": targets, **more}
        if edit:
            edit(a)
        build(name, [make_node("TreeEnsembleRegressor", ["x"], ["y"], domain=ML, **a)], {"y": (T.FLOAT, ["N", targets])}, {"x": feeds}, {}, opset, ml, "hand_tree")

    for mode in ("LEQ", "LT", "GTE", "GT", "EQ", "NEQ"):
        regressor(f"hand_mode_{mode.lower()}", (mode,) * 3)
        regressor(f"hand_mode_{mode.lower()}_nan_false", (mode,) * 3, GAPS, nodes_missing_value_tracks_true=[0] * 7)
        regressor(f"hand_mode_{mode.lower()}_nan_true", (mode,) * 3, GAPS, nodes_missing_value_tracks_true=[1] * 7)
    regressor("hand_modes_mixed", ("GT", "EQ", "LT"))
    regressor("hand_modes_mixed_nan", ("GT", "NEQ", "LEQ"), GAPS, nodes_missing_value_tracks_true=[1, 0, 1, 0, 0, 0, 0])
    regressor("hand_modes_mixed_trees", ("LT", "GTE", "LEQ"), copies=3)
    for function in ("SUM", "AVERAGE", "MIN", "MAX"):
        for copies in (1, 3):
            regressor(f"hand_aggregate_{function.lower()}_{copies}", copies=copies, aggregate_function=function, base_values=[0.5])
        regressor(f"hand_aggregate_{function.lower()}_two_targets", copies=2, targets=2, aggregate_function=function, base_values=[0.5, -1.0])
    for post in ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"):
        positive = dict(edit=lambda a: a.update(target_weights=[abs(w) / 4 + 0.01 for w in a["target_weights"]])) if post == "PROBIT" else {}
        regressor(f"hand_regressor_{post.lower()}", post_transform=post, **positive)
        regressor(f"hand_regressor_{post.lower()}_three", copies=2, targets=3, post_transform=post, **positive)
    regressor("hand_leaf_only", edit=lambda a: a.update(nodes_treeids=[0], nodes_nodeids=[0], nodes_featureids=[0], nodes_values=[0.0], nodes_modes=["LEAF"], nodes_truenodeids=[0], nodes_falsenodeids=[0], target_treeids=[0], target_nodeids=[0], target_ids=[0], target_weights=[0.75]))
    regressor("hand_tree_ids_sparse", copies=2, edit=lambda a: a.update(nodes_treeids=[7 if t else 3 for t in a["nodes_treeids"]], target_treeids=[7 if t else 3 for t in a["target_treeids"]]))
    regressor("hand_shared_threshold_zero", values=(0.0, -0.0, 0.0))
    regressor("hand_infinite_threshold", values=(np.inf, 1.0, -np.inf))
    regressor("hand_leaf_two_weights", edit=lambda a: [a[k].append(v) for k, v in (("target_treeids", 0), ("target_nodeids", 3), ("target_ids", 0), ("target_weights", 10.0))])
    regressor("hand_leaf_no_weight", edit=lambda a: [a[k].pop() for k in ("target_treeids", "target_nodeids", "target_ids", "target_weights")])
    regressor("hand_hitrates", nodes_hitrates=[1.0] * 7)
    regressor("hand_ml1", ml=1, opset=9)
    regressor("hand_double_input_ml1", feeds=EDGE.astype(np.float64), ml=1)
    whole = [[a, b] for a in range(-3, 4) for b in (0, 1, 2)]
    regressor("hand_int64_input", feeds=np.array(whole, np.int64))
    regressor("hand_int32_input", feeds=np.array(whole, np.int32))

    def as_double(a):
        for key in ("nodes_values", "target_weights", "class_weights"):
            if key in a:
                a[key + "_as_tensor"] = numpy_helper.from_array(np.array(a.pop(key), np.float64), key)
        a["base_values_as_tensor"] = numpy_helper.from_array(np.array([0.1] * (a.get("n_targets") or 3), np.float64), "base")

    fine = np.float64(1) + np.array([0, 2e-16, -1e-16, 1e-12, 1e-9, -1e-9, 1])
    regressor("hand_double_tensor", feeds=np.concatenate([np.stack([fine, np.roll(fine, k)], 1) for k in range(3)]), edit=as_double, copies=2)

    def classifier(name, classes=3, weights=None, labels=None, strings=None, modes=("LEQ",) * 3, feeds=EDGE, copies=2, edit=None, ml=3, **more):
        a = {**trees(modes, copies, weights or classes, "class"), **more}
        a.update(classlabels_strings=strings) if strings else a.update(classlabels_int64s=labels or list(range(classes)))
        if edit:
            edit(a)
        made = {"label": (T.STRING if strings else T.INT64, ["N"]), "scores": (T.FLOAT, ["N", max(classes, 2)])}
        build(name, [make_node("TreeEnsembleClassifier", ["x"], ["label", "scores"], domain=ML, **a)], made, {"x": feeds}, {}, 17, ml, "hand_tree")

    for post in ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"):
        positive = (lambda a: a.update(class_weights=[abs(w) / 4 + 0.01 for w in a["class_weights"]])) if post == "PROBIT" else None
        classifier(f"hand_classifier_{post.lower()}_three", post_transform=post, edit=positive)
        classifier(f"hand_classifier_{post.lower()}_two", 2, post_transform=post, edit=positive)
        classifier(f"hand_classifier_{post.lower()}_binary_one_weight", 2, 1, post_transform=post, edit=positive)
        classifier(f"hand_classifier_{post.lower()}_binary_base", 2, 1, post_transform=post, base_values=[0.05], edit=positive)
    classifier("hand_classifier_positive_weights", 2, 1, edit=lambda a: a.update(class_weights=[abs(w) for w in a["class_weights"]]))
    classifier("hand_classifier_positive_logistic", 2, 1, edit=lambda a: a.update(class_weights=[abs(w) for w in a["class_weights"]]), post_transform="LOGISTIC")
    classifier("hand_classifier_second_class_only", 2, 1, edit=lambda a: a.update(class_ids=[1] * len(a["class_ids"])))
    classifier("hand_classifier_second_class_logistic", 2, 1, edit=lambda a: a.update(class_ids=[1] * len(a["class_ids"])), post_transform="LOGISTIC")
    classifier("hand_classifier_strings", strings=["low", "mid", "high"])
    classifier("hand_classifier_strings_binary", 2, 1, strings=["no", "yes"], post_transform="LOGISTIC")
    classifier("hand_classifier_labels", labels=[7, -2, 40])
    classifier("hand_classifier_base", base_values=[0.1, 0.2, -0.3])
    classifier("hand_classifier_binary_two_bases", 2, 1, base_values=[0.1, -0.3], post_transform="LOGISTIC")
    classifier("hand_classifier_ties", edit=lambda a: a.update(class_weights=[0.5] * len(a["class_weights"])))
    classifier("hand_classifier_ties_two", 2, edit=lambda a: a.update(class_weights=[0.5] * len(a["class_weights"])))
    classifier("hand_classifier_zero_scores_binary", 2, 1, edit=lambda a: a.update(class_weights=[0.0] * len(a["class_weights"])))
    classifier("hand_classifier_missing", feeds=GAPS, nodes_missing_value_tracks_true=[1, 0, 1, 0, 0, 0, 0] * 2)
    classifier("hand_classifier_double", feeds=EDGE.astype(np.float64), edit=as_double)
    classifier("hand_classifier_ml1", ml=1)
    grid = np.array([[a, b] for a in range(-3, 4) for b in (0, 1, 2)])
    classifier("hand_classifier_int64_input", feeds=grid)
    classifier("hand_classifier_int32_input", feeds=grid.astype(np.int32))

    # ---- TreeEnsemble of ai.onnx.ml 5: leaves stand apart, a true or false branch may be one
    def tree5(name, modes=(0, 0, 0), feeds=EDGE, dtype=F, targets=1, post=0, aggregate=1, members=None, tracks=None, roots=(0,), values=(1.0, 1.0, 0.0)):
        tensor = lambda key, v, t: numpy_helper.from_array(np.array(v, t), key)
        a = dict(
            n_targets=targets, aggregate_function=aggregate, post_transform=post, tree_roots=list(roots), nodes_featureids=[0, 1, 0], nodes_modes=tensor("m", modes, np.uint8), nodes_splits=tensor("s", values, dtype),
            nodes_truenodeids=[1, 0, 2], nodes_trueleafs=[0, 1, 1], nodes_falsenodeids=[2, 1, 3], nodes_falseleafs=[0, 1, 1], leaf_targetids=[i % targets for i in range(4)], leaf_weights=tensor("w", [0.25, 0.5, -0.75, 0.125], dtype),
        )
        if members is not None:
            a["membership_values"] = tensor("v", members, dtype)
        if tracks:
            a["nodes_missing_value_tracks_true"] = tracks
        build(name, [make_node("TreeEnsemble", ["x"], ["y"], domain=ML, **a)], {"y": (T.DOUBLE if dtype == np.float64 else T.FLOAT, ["N", targets])}, {"x": feeds.astype(dtype)}, {}, 21, 5, "hand_tree5")

    for at, mode in enumerate(("leq", "lt", "gte", "gt", "eq", "neq")):
        tree5(f"hand5_mode_{mode}", (at,) * 3)
        tree5(f"hand5_mode_{mode}_nan", (at,) * 3, GAPS, tracks=[1, 0, 1])
    whole = np.array([[a, b] for a in (-1, 0, 1, 2, 3, 4, 5, 2.5) for b in (0, 1, 2, 7)], F)
    nan = F(np.nan)
    tree5("hand5_member", (6, 0, 6), whole, members=[1, 2, 4, nan, 0, 3, nan])
    tree5("hand5_member_only", (6, 6, 6), whole, members=[1, 3, 5, nan, 2, 7, nan, 0, -1, nan])
    tree5("hand5_member_nan", (6, 0, 6), np.concatenate([whole, GAPS[-5:]]), members=[1, 2, 4, nan, 0, 3, nan], tracks=[1, 0, 0])
    tree5("hand5_double", dtype=np.float64)
    tree5("hand5_two_targets", targets=2)
    tree5("hand5_two_roots", roots=(0, 1))
    for at, post in enumerate(("none", "softmax", "logistic", "softmax_zero", "probit")):
        tree5(f"hand5_post_{post}", targets=2, post=at)
    for at, function in enumerate(("average", "sum", "min", "max")):
        tree5(f"hand5_aggregate_{function}", roots=(0, 1), aggregate=at)

    # ---- linear operators of ai.onnx.ml
    x = {"x": ROWS}
    for post in ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"):
        scale = 0.002 if post == "PROBIT" else 1.0
        w, b = (W3 * scale).ravel().tolist(), ((B3 * 0 + 0.5) if post == "PROBIT" else B3).tolist()
        for targets in (1, 3):
            build(f"hand_linear_regressor_{post.lower()}_{targets}", [make_node("LinearRegressor", ["x"], ["y"], domain=ML, coefficients=w[: 4 * targets], intercepts=b[:targets], targets=targets, post_transform=post)], {"y": (T.FLOAT, ["N", targets])}, x, family="hand_linear")
        for rows, labels in ((3, [0, 1, 2]), (2, [0, 1]), (1, [0, 1])):
            build(f"hand_linear_classifier_{post.lower()}_{rows}_rows", [make_node("LinearClassifier", ["x"], ["label", "scores"], domain=ML, coefficients=w[: 4 * rows], intercepts=b[:rows], classlabels_ints=labels, post_transform=post, multi_class=int(rows > 1))], {"label": (T.INT64, ["N"]), "scores": (T.FLOAT, ["N", max(rows, 2)])}, x, family="hand_linear")
    one = dict(coefficients=W3[0].tolist(), intercepts=[0.1])
    classes = {"label": (T.STRING, ["N"]), "scores": (T.FLOAT, ["N", 2])}
    build("hand_linear_regressor_no_intercept", [make_node("LinearRegressor", ["x"], ["y"], domain=ML, coefficients=W3[0].tolist())], y1, x, family="hand_linear")
    build("hand_linear_classifier_strings", [make_node("LinearClassifier", ["x"], ["label", "scores"], domain=ML, classlabels_strings=["no", "yes"], post_transform="LOGISTIC", **one)], classes, x, family="hand_linear")
    build("hand_linear_classifier_no_intercept", [make_node("LinearClassifier", ["x"], ["label", "scores"], domain=ML, classlabels_ints=[0, 1, 2], coefficients=W3.ravel().tolist())], label3, x, family="hand_linear")
    build("hand_linear_classifier_int64_input", [make_node("LinearClassifier", ["x"], ["label", "scores"], domain=ML, classlabels_ints=[0, 1, 2], coefficients=W3.ravel().tolist(), intercepts=B3.tolist())], label3, {"x": ROWS.astype(np.int64)}, family="hand_linear")
    build("hand_linear_regressor_double_input", [make_node("LinearRegressor", ["x"], ["y"], domain=ML, **one)], y1, {"x": ROWS.astype(np.float64)}, family="hand_linear")
    svm = dict(kernel_type="LINEAR", coefficients=[0.5, -1.0, 0.5], support_vectors=W3.ravel().tolist(), rho=[0.25], n_supports=3, kernel_params=[0.0, 0.0, 0.0])
    build("hand_svm_regressor_supports", [make_node("SVMRegressor", ["x"], ["y"], domain=ML, **svm)], y1, x, family="hand_linear")
    build("hand_svm_regressor_coefficients", [make_node("SVMRegressor", ["x"], ["y"], domain=ML, kernel_type="LINEAR", coefficients=W3[0].tolist(), rho=[0.25], n_supports=0, kernel_params=[0.0, 0.0, 0.0])], y1, x, family="hand_linear")
    build("hand_svm_regressor_one_class", [make_node("SVMRegressor", ["x"], ["y"], domain=ML, one_class=1, **svm)], y1, x, family="hand_linear")
    build("hand_svm_classifier_coefficients", [make_node("SVMClassifier", ["x"], ["label", "scores"], domain=ML, kernel_type="LINEAR", coefficients=W3.ravel().tolist(), rho=[0.1], classlabels_ints=[0, 1, 2], kernel_params=[0.0, 0.0, 0.0])], label3, x, family="hand_linear")

    # ---- linear layers as deep learning frameworks write them
    n = make_node
    wb = {"w": W3, "b": B3}
    hand = lambda name, nodes, outputs, inits=wb, feeds=x, opset=17: build(name, nodes, outputs, feeds, inits, opset, family="hand_dense")
    gemm = n("Gemm", ["x", "w", "b"], ["z"], transB=1)
    hand("hand_gemm", [n("Gemm", ["x", "w", "b"], ["y"], transB=1)], y3)
    hand("hand_gemm_alpha_beta", [n("Gemm", ["x", "w", "b"], ["y"], transB=1, alpha=0.5, beta=-2.0)], y3)
    hand("hand_gemm_no_bias", [n("Gemm", ["x", "w"], ["y"], transB=1)], y3, {"w": W3})
    hand("hand_gemm_scalar_bias", [n("Gemm", ["x", "w", "b"], ["y"])], y3, {"w": W3.T.copy(), "b": F(0.5)})
    hand("hand_matmul_add", [n("MatMul", ["x", "w"], ["z"]), n("Add", ["z", "b"], ["y"])], y3, {"w": W3.T.copy(), "b": B3})
    hand("hand_matmul_add_left", [n("MatMul", ["x", "w"], ["z"]), n("Add", ["b", "z"], ["y"])], y3, {"w": W3.T.copy(), "b": B3[None]})
    hand("hand_two_layers", [gemm, n("Gemm", ["z", "w2", "b2"], ["y"])], y1, {**wb, "w2": np.array([[1], [-2], [0.5]], F), "b2": np.array([3], F)})
    hand("hand_transpose_weights", [n("Transpose", ["w"], ["t"], perm=[1, 0]), n("MatMul", ["x", "t"], ["y"])], y3, {"w": W3})
    hand("hand_constant_weights", [n("Constant", [], ["w"], value=numpy_helper.from_array(W3.T.copy())), n("Constant", [], ["b"], value_floats=B3.tolist()), n("MatMul", ["x", "w"], ["z"]), n("Add", ["z", "b"], ["y"])], y3, {})
    hand("hand_double_gemm", [n("Gemm", ["x", "w", "b"], ["y"], transB=1)], {"y": (T.DOUBLE, ["N", 3])}, {"w": W3.astype(np.float64), "b": B3.astype(np.float64)}, {"x": ROWS.astype(np.float64)})
    hand("hand_conv_refused", [n("Unsqueeze", ["x", "axes"], ["u"]), n("Conv", ["u", "k"], ["y"])], {"y": (T.FLOAT, ["N", 1, 3])}, {"axes": np.array([1]), "k": np.ones((1, 1, 2), F)})
    hand("hand_relu_refused", [gemm, n("Relu", ["z"], ["r"]), n("Gemm", ["r", "w2"], ["y"])], y1, {**wb, "w2": np.array([[1], [-2], [0.5]], F)})

    # ---- one operation after the linear layer (tail) or before it (head)
    def tail(op, outputs=y3, inits={}, opset=17, name=None, extra=(), domain="", **attributes):
        hand(name or f"hand_tail_{op.lower()}", [gemm, n(op, ["z", *inits], list(outputs), domain=domain, **attributes), *extra], outputs, {**wb, **inits}, opset=opset)

    for op in ("Sigmoid", "Exp", "Identity", "Neg", "Abs", "Relu", "Tanh", "Softplus", "Floor", "Ceil", "Round", "Sign", "HardSigmoid", "Erf"):
        tail(op)
    tail("Softmax", axis=1)
    tail("Softmax", axis=-1, name="hand_tail_softmax_opset11", opset=11)
    tail("LogSoftmax", axis=1)
    tail("Softmax", axis=0, name="hand_tail_softmax_over_rows")
    tail("ArgMax", {"y": (T.INT64, ["N"])}, axis=1, keepdims=0)
    tail("ArgMax", {"y": (T.INT64, ["N", 1])}, axis=-1, keepdims=1, name="hand_tail_argmax_keep")
    tail("ArgMax", {"y": (T.INT64, ["N", 1])}, axis=1, select_last_index=1, name="hand_tail_argmax_last")
    tail("ArgMin", {"y": (T.INT64, ["N"])}, axis=1, keepdims=0)
    tail("TopK", {"y": (T.FLOAT, ["N", 2]), "i": (T.INT64, ["N", 2])}, {"k": np.array([2])}, axis=1)
    tail("Clip", inits={"lo": F(-1), "hi": F(2)})
    tail("Clip", name="hand_tail_clip_opset9", opset=9, min=-1.0, max=2.0)
    tail("Clip", inits={"lo": F(0)}, name="hand_tail_clip_low_only")
    for op in ("Max", "Min", "Add", "Sub", "Mul", "Div", "Pow"):
        tail(op, inits={"c": F(2)})
    tail("Mul", inits={"c": np.array([1, -2, 0.5], F)}, name="hand_tail_mul_vector")
    for op in ("Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Equal"):
        tail(op, {"y": (T.BOOL, ["N", 3])}, {"c": F(0)})
    tail("Cast", {"y": (T.INT64, ["N", 3])}, to=T.INT64)
    tail("Cast", {"y": (T.DOUBLE, ["N", 3])}, to=T.DOUBLE, name="hand_tail_cast_double")
    tail("Gather", {"y": (T.FLOAT, ["N", 2])}, {"c": np.array([2, 0])}, axis=1)
    tail("Gather", {"y": (T.FLOAT, ["N"])}, {"c": np.array(1)}, axis=1, name="hand_tail_gather_scalar")
    tail("Gather", {"y": (T.FLOAT, ["N", 1])}, {"c": np.array([-1])}, axis=-1, name="hand_tail_gather_negative")
    tail("Slice", {"y": (T.FLOAT, ["N", 2])}, {"s": np.array([1]), "e": np.array([3]), "a": np.array([1])})
    tail("Slice", {"y": (T.FLOAT, ["N", 2])}, {"s": np.array([-1]), "e": np.array([-9]), "a": np.array([1]), "t": np.array([-2])}, name="hand_tail_slice_back")
    tail("Reshape", {"y": (T.FLOAT, ["N", 3, 1])}, {"s": np.array([-1, 3, 1])})
    tail("Reshape", {"y": (T.FLOAT, ["M"])}, {"s": np.array([-1])}, name="hand_tail_reshape_flat")
    tail("Flatten", axis=1)
    tail("Unsqueeze", {"y": (T.FLOAT, ["N", 1, 3])}, {"a": np.array([1])})
    tail("Transpose", {"y": (T.FLOAT, [3, "N"])}, perm=[1, 0])
    tail("Normalizer", domain=ML, norm="L1")
    tail("Scaler", domain=ML, offset=[1.0, 0, -1], scale=[0.5, 2, 1])
    tail("Binarizer", domain=ML, threshold=0.5)
    tail("ArrayFeatureExtractor", {"y": (T.FLOAT, ["N", 2])}, {"c": np.array([2, 0])}, domain=ML)
    for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin"):
        inits, more = ({"a": np.array([1])}, {}) if op == "ReduceSum" else ({}, {"axes": [1]})
        tail(op, {"y": (T.FLOAT, ["N", 1])}, inits, keepdims=1, **more)
    hand("hand_tail_squeeze", [n("Gemm", ["x", "w", "b"], ["z"], transB=1), n("Squeeze", ["z", "a"], ["y"])], {"y": (T.FLOAT, ["N"])}, {"w": W3[:1], "b": B3[:1], "a": np.array([1])})
    hand("hand_tail_squeeze_opset11", [n("Gemm", ["x", "w", "b"], ["z"], transB=1), n("Squeeze", ["z"], ["y"], axes=[1])], {"y": (T.FLOAT, ["N"])}, {"w": W3[:1], "b": B3[:1]}, opset=11)
    hand("hand_tail_concat", [n("Gemm", ["x", "w", "b"], ["z"], transB=1), n("Sub", ["one", "z"], ["o"]), n("Concat", ["o", "z"], ["y"], axis=1)], {"y": (T.FLOAT, ["N", 2])}, {"w": W3[:1], "b": B3[:1], "one": F(1)})
    hand("hand_tail_label_encoder", [gemm, n("ArgMax", ["z"], ["i"], axis=1, keepdims=0), n("LabelEncoder", ["i"], ["y"], domain=ML, keys_int64s=[0, 1, 2], values_strings=["red", "green", "blue"])], {"y": (T.STRING, ["N"])})
    hand("hand_tail_argmax_classes", [gemm, n("ArgMax", ["z"], ["i"], axis=1, keepdims=0), n("ArrayFeatureExtractor", ["c", "i"], ["e"], domain=ML), n("Reshape", ["e", "s"], ["y"])], {"y": (T.INT64, ["N"])}, {**wb, "c": np.array([5, 7, 9]), "s": np.array([-1])})
    hand("hand_tail_where", [gemm, n("Greater", ["z", "c"], ["g"]), n("Where", ["g", "z", "c"], ["y"])], y3, {**wb, "c": F(0.5)})
    hand("hand_tail_two_outputs", [gemm, n("Sigmoid", ["z"], ["y"]), n("ArgMax", ["z"], ["label"], axis=1, keepdims=0)], {"label": (T.INT64, ["N"]), "y": (T.FLOAT, ["N", 3]), "z": (T.FLOAT, ["N", 3])})
    hand("hand_body_plus_head", [gemm, n("Gather", ["x", "c"], ["g"], axis=1), n("Add", ["z", "g"], ["y"])], y3, {**wb, "c": np.array([0, 2, 3])})
    hand("hand_passed_through", [gemm, n("Identity", ["x"], ["same"]), n("Identity", ["z"], ["y"])], {"y": (T.FLOAT, ["N", 3]), "same": (T.FLOAT, ["N", 4])})
    hand("hand_unused_node", [gemm, n("Exp", ["x"], ["unused"]), n("Identity", ["z"], ["y"])], y3)
    hand("hand_tail_zipmap", [gemm, n("ZipMap", ["z"], ["y"], domain=ML, classlabels_int64s=[0, 1, 2])], {"y": None})
    hand("hand_tail_zipmap_strings", [gemm, n("Softmax", ["z"], ["p"], axis=1), n("ZipMap", ["p"], ["y"], domain=ML, classlabels_strings=["a", "b", "c"])], {"y": None})

    def head(name, nodes, inits={}, feeds=x, w=W3, opset=17):
        hand(name, [*nodes, n("Gemm", ["h", "w", "b"], ["y"], transB=1)], y3, {"w": w, "b": B3, **inits}, feeds, opset)

    for op in ("Sigmoid", "Exp", "Abs", "Neg", "Tanh", "Relu", "Floor", "Sign", "Identity"):
        small = {"x": np.clip(ROWS, -8, 8)}
        head(f"hand_head_{op.lower()}", [n(op, ["x"], ["h"])], feeds=small)
    positive = {"x": np.abs(ROWS) + F(0.1)}
    head("hand_head_log", [n("Log", ["x"], ["h"])], feeds=positive)
    head("hand_head_sqrt", [n("Sqrt", ["x"], ["h"])], feeds=positive)
    head("hand_head_reciprocal", [n("Reciprocal", ["x"], ["h"])], feeds=positive)
    head("hand_head_pow", [n("Pow", ["x", "c"], ["h"])], {"c": F(2)})
    head("hand_head_sub_div", [n("Sub", ["x", "m"], ["d"]), n("Div", ["d", "s"], ["h"])], {"m": np.array([1, 2, 0, -1], F), "s": np.array([1, 3, 0.2, 10], F)})
    head("hand_head_scaler_one_value", [n("Scaler", ["x"], ["h"], domain=ML, offset=[0.5], scale=[2.0])])
    head("hand_head_imputer", [n("Imputer", ["x"], ["h"], domain=ML, imputed_value_floats=[1.0, 2, 3, 4], replaced_value_float=float("nan"))], feeds={"x": np.where(np.arange(ROWS.size).reshape(ROWS.shape) % 7 == 0, nan, ROWS)})
    head("hand_head_imputer_zero", [n("Imputer", ["x"], ["h"], domain=ML, imputed_value_floats=[9.0], replaced_value_float=0.0)])
    head("hand_head_isnan_where", [n("IsNaN", ["x"], ["q"]), n("Where", ["q", "c", "x"], ["h"])], {"c": np.array([1, 2, 3, 4], F)}, {"x": np.where(np.arange(ROWS.size).reshape(ROWS.shape) % 5 == 0, nan, ROWS)})
    head("hand_head_clip", [n("Clip", ["x", "lo", "hi"], ["h"])], {"lo": F(-1), "hi": F(1)})
    head("hand_head_gather", [n("Gather", ["x", "c"], ["h"], axis=1)], {"c": np.array([3, 1])}, w=W3[:, :2].copy())
    head("hand_head_array_feature_extractor", [n("ArrayFeatureExtractor", ["x", "c"], ["h"], domain=ML)], {"c": np.array([3, 1])}, w=W3[:, :2].copy())
    head("hand_head_slice", [n("Slice", ["x", "s", "e", "a"], ["h"])], {"s": np.array([1]), "e": np.array([3]), "a": np.array([1])}, w=W3[:, :2].copy())
    head("hand_head_slice_opset9", [n("Slice", ["x"], ["h"], starts=[1], ends=[3], axes=[1])], w=W3[:, :2].copy(), opset=9)
    head("hand_head_split_concat", [n("Split", ["x", "s"], ["p", "q"], axis=1), n("Concat", ["q", "p"], ["h"], axis=1)], {"s": np.array([1, 3])})
    head("hand_head_reshape", [n("Reshape", ["x", "s"], ["h"])], {"s": np.array([-1, 4])}, {"x": ROWS.reshape(-1, 2, 2)})
    head("hand_head_flatten", [n("Flatten", ["x"], ["h"], axis=1)], feeds={"x": ROWS.reshape(-1, 2, 2)})
    head("hand_head_squeeze", [n("Squeeze", ["x", "a"], ["h"])], {"a": np.array([2])}, {"x": ROWS[:, :, None].copy()})
    head("hand_head_cast_int64", [n("Cast", ["x"], ["h"], to=T.FLOAT)], feeds={"x": (ROWS * 3).astype(np.int64)})
    head("hand_head_cast_int32", [n("Cast", ["x"], ["h"], to=T.FLOAT)], feeds={"x": (ROWS * 3).astype(np.int32)})
    head("hand_head_cast_bool", [n("Cast", ["x"], ["h"], to=T.FLOAT)], feeds={"x": ROWS > 0})
    head("hand_head_cast_double", [n("Cast", ["x"], ["h"], to=T.FLOAT)], feeds={"x": ROWS.astype(np.float64) * (1 + 1e-9)})
    head("hand_head_cast_trunc", [n("Cast", ["x"], ["i"], to=T.INT64), n("Cast", ["i"], ["h"], to=T.FLOAT)])
    columns = {f"c{i}": ROWS[:, i : i + 1].copy() for i in range(4)}
    head("hand_head_concat_columns", [n("Concat", list(columns), ["h"], axis=1)], feeds=columns)
    mixed = {"c0": ROWS[:, :1].copy(), "c1": (ROWS[:, 1:2] * 3).astype(np.int64), "c2": ROWS[:, 2:4].copy()}
    head("hand_head_feature_vectorizer", [n("Cast", ["c1"], ["f1"], to=T.FLOAT), n("FeatureVectorizer", ["c0", "f1", "c2"], ["h"], domain=ML, inputdimensions=[1, 1, 2])], feeds=mixed)
    words = {"x": np.array([["red"], ["green"], ["blue"], ["none"], [""]] * 5)}
    head("hand_head_label_encoder", [n("LabelEncoder", ["x"], ["h"], domain=ML, keys_strings=["red", "green", "blue"], values_floats=[1.0, -2.0, 0.5], default_float=9.0)], feeds=words, w=W3[:, :1].copy())
    head("hand_head_label_encoder_int64", [n("LabelEncoder", ["x"], ["i"], domain=ML, keys_strings=["red", "green", "blue"], values_int64s=[4, 5, 6], default_int64=-1), n("Cast", ["i"], ["h"], to=T.FLOAT)], feeds=words, w=W3[:, :1].copy())
    head("hand_head_one_hot_encoder", [n("OneHotEncoder", ["x"], ["o"], domain=ML, cats_strings=["red", "green", "blue"], zeros=1), n("Reshape", ["o", "s"], ["h"])], {"s": np.array([-1, 3])}, words, W3[:, :3].copy())
    head("hand_head_one_hot_int64", [n("OneHotEncoder", ["x"], ["o"], domain=ML, cats_int64s=[1, 5, 9], zeros=1), n("Reshape", ["o", "s"], ["h"])], {"s": np.array([-1, 3])}, {"x": np.array([[1], [5], [9], [0], [7]] * 5)}, W3[:, :3].copy())
    head("hand_head_category_mapper", [n("CategoryMapper", ["x"], ["i"], domain=ML, cats_strings=["red", "green"], cats_int64s=[3, 8], default_int64=-1), n("Cast", ["i"], ["h"], to=T.FLOAT)], feeds=words, w=W3[:, :1].copy())

    # ---- trees with heads and tails, and two bodies
    tree = lambda source, out, **more: n("TreeEnsembleRegressor", [source], [out], domain=ML, n_targets=1, **{**trees(("LEQ",) * 3), **more})
    hand_tree = lambda name, nodes, outputs, inits={}, feeds={"x": EDGE}, **more: build(name, nodes, outputs, feeds, inits, family="hand_tree", **more)
    hand_tree("hand_trees_added", [tree("x", "a"), tree("x", "b", nodes_values=[2.0, 0.0, 1.0, 0, 0, 0, 0]), n("Add", ["a", "b"], ["y"])], y1)
    hand_tree("hand_trees_weighted", [tree("x", "a"), tree("x", "b", nodes_values=[2.0, 0.0, 1.0, 0, 0, 0, 0]), n("Mul", ["a", "c"], ["a2"]), n("Mul", ["b", "d"], ["b2"]), n("Sum", ["a2", "b2"], ["y"])], y1, {"c": F(0.25), "d": F(0.75)})
    hand_tree("hand_trees_concat", [tree("x", "a"), tree("x", "b", nodes_values=[2.0, 0.0, 1.0, 0, 0, 0, 0]), n("Concat", ["a", "b"], ["y"], axis=1)], {"y": (T.FLOAT, ["N", 2])})
    hand_tree("hand_tree_sigmoid", [tree("x", "a"), n("Sigmoid", ["a"], ["y"])], y1)
    hand_tree("hand_tree_exp", [tree("x", "a"), n("Exp", ["a"], ["y"])], y1)
    hand_tree("hand_tree_scaled_input", [n("Scaler", ["x"], ["h"], domain=ML, offset=[0.5, -0.5], scale=[2.0, 0.5]), tree("h", "y")], y1)
    hand_tree("hand_tree_negative_scale", [n("Mul", ["x", "c"], ["h"]), tree("h", "y")], y1, {"c": np.array([-1, 3], F)})
    hand_tree("hand_tree_product_input_refused", [n("Mul", ["x", "x"], ["h"]), tree("h", "y")], y1)
    finite = {"x": np.where(np.isfinite(EDGE) & (np.abs(EDGE) < 1e9), EDGE, F(0.5))}
    hand_tree("hand_tree_of_linear_refused", [n("Gemm", ["x", "w"], ["h"]), tree("h", "y")], y1, {"w": np.array([[1, 2], [-1, 0.5]], F)}, finite)
    hand_tree("hand_tree_plus_linear", [n("Gemm", ["x", "w"], ["a"]), tree("x", "b"), n("Add", ["a", "b"], ["y"])], y1, {"w": np.array([[1], [-1]], F)}, finite)
