"""Writes one small model for each ONNX operator that runs encrypted, with onnxruntime's answers: python tests/operators/make.py

A model is a Gemm, the operator on its outcome, and a Gemm that copies: the split then puts the operator between two encrypted
maps. `<case>.npz` holds `in:x` and `out:y`; the first rows are for calibration, the last 40 for tests.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

OUT = Path(__file__).parent
ROWS, WIDTH, OPSET = 200, 6, 18
rng = np.random.default_rng(4)
x = rng.uniform(-1, 1, (ROWS, WIDTH)).astype(np.float32)


class Graph:
    """Nodes and constants of one model, by name."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, array):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def add(self, op, *inputs, outputs=1, domain="", **attributes):
        names = [f"n{len(self.nodes)}_{at}" for at in range(outputs)]
        inputs = [i if isinstance(i, str) else self.constant(i) for i in inputs]
        self.nodes.append(helper.make_node(op, inputs, names, domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def linear(self, seed, outputs, low=None, high=None):
        """A map of the input; with limits, of values within them."""
        own = np.random.default_rng(seed)
        w = own.uniform(-1, 1, (WIDTH, outputs)).astype(np.float32)
        b = np.zeros(outputs, np.float32)
        if low is not None:
            reach = np.abs(w).sum(0)
            w, b = w * (high - low) / (2 * reach), b + (high + low) / 2
        return self.add("Gemm", "x", w.astype(np.float32), b.astype(np.float32))


def save(name, build, size, opset=OPSET):
    g = Graph()
    value = build(g)
    flat = g.add("Reshape", g.add("Cast", value, to=TensorProto.FLOAT), np.array([-1, size], np.int64))
    weights, bias = g.constant(np.eye(size, dtype=np.float32)), g.constant(np.zeros(size, np.float32))
    g.nodes.append(helper.make_node("Gemm", [flat, weights, bias], ["y"]))
    shape = lambda name, columns: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", columns])
    graph = helper.make_graph(g.nodes, name, [shape("x", WIDTH)], [shape("y", size)], g.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.checker.check_model(model)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Fused, products with weights of four bits round their other factor.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options)
    y = session.run(["y"], {"x": x})[0]
    assert np.isfinite(y).all() and (y.std(0) > 0).any(), name
    (OUT / f"{name}.onnx").write_bytes(model.SerializeToString())
    np.savez_compressed(OUT / f"{name}.npz", **{"in:x": x, "out:y": y})


def unary(op, low=-2, high=2, opset=OPSET, **attributes):
    save(op, lambda g: g.add(op, g.linear(1, 3, low, high), **attributes), 3, opset)


def image(g, channels=1, *sizes):
    sizes = sizes or (4, 4)
    count = channels * int(np.prod(sizes))
    return g.add("Reshape", g.add("Relu", g.linear(2, count)), np.array([-1, channels, *sizes], np.int64))


def floats(*values):
    return np.array(values, np.float32)


def ints(*values):
    return np.array(values, np.int64)


def weights(*shape):
    return np.random.default_rng(7).uniform(-1, 1, shape).astype(np.float32)


# Elementwise, of one value.
for op in ["Abs", "Asinh", "Atan", "Ceil", "Cos", "Erf", "Exp", "Floor", "HardSwish", "Identity", "Neg", "Not", "Relu", "Round",
           "Sigmoid", "Sign", "Sin", "Sinh", "Cosh", "Softplus", "Softsign", "Tanh", "Mish"]:
    if op == "Not":
        save(op, lambda g: g.add("Not", g.add("Cast", g.add("Greater", g.linear(1, 3), floats(0.0)), to=9)), 3)
    else:
        unary(op)
for op in ["Acos", "Asin", "Atanh", "Tan"]:
    unary(op, -0.9, 0.9)
for op in ["Log", "Sqrt", "Reciprocal"]:
    unary(op, 0.5, 3)
unary("Acosh", 1.2, 4)
unary("Gelu", opset=20)
for op, attributes in {"Celu": {"alpha": 0.5}, "Elu": {"alpha": 0.5}, "Selu": {}, "LeakyRelu": {"alpha": 0.2}, "HardSigmoid": {},
                       "ThresholdedRelu": {"alpha": 0.5}, "Shrink": {"lambd": 0.5, "bias": 0.25}}.items():
    unary(op, **attributes)
save("Cast", lambda g: g.add("Cast", g.linear(1, 3, -4, 4), to=TensorProto.INT32), 3)
save("CastLike", lambda g: g.add("CastLike", g.linear(1, 3, -4, 4), ints(0)), 3)
save("Clip", lambda g: g.add("Clip", g.linear(1, 3), floats(-0.5)[0], floats(0.75)[0]), 3)
save("PRelu", lambda g: g.add("PRelu", g.linear(1, 3), floats(0.1, 0.2, 0.3)), 3)
save("Pow", lambda g: g.add("Pow", g.linear(1, 3, 0, 2), floats(3.0)[0]), 3)
save("Mod", lambda g: g.add("Mod", g.linear(1, 3, -3, 3), floats(2.0)[0], fmod=1), 3)
save("Dropout", lambda g: g.add("Dropout", g.linear(1, 3)), 3)
save("IsInf", lambda g: g.add("Where", g.add("IsInf", g.linear(1, 3)), floats(1.0), g.linear(3, 3)), 3)
save("IsNaN", lambda g: g.add("Where", g.add("IsNaN", g.linear(1, 3)), floats(1.0), g.linear(3, 3)), 3)

# Elementwise, of two encrypted values.
for op in ["Add", "Sub", "Mul", "Max", "Min", "Sum", "Mean"]:
    save(op, lambda g: g.add(op, g.linear(1, 3), g.linear(3, 3)), 3)
save("Div", lambda g: g.add("Div", g.linear(1, 3, -1, 1), g.linear(3, 3, 1, 3)), 3)
for op in ["Less", "LessOrEqual", "Greater", "GreaterOrEqual"]:
    save(op, lambda g: g.add(op, g.linear(1, 3), g.linear(3, 3)), 3)
floor = lambda g, seed: g.add("Floor", g.linear(seed, 3, 0, 2.9))
whole = lambda g, seed: g.add("Cast", floor(g, seed), to=TensorProto.INT64)
save("Equal", lambda g: g.add("Equal", whole(g, 1), whole(g, 3)), 3)
for op in ["And", "Or", "Xor"]:
    truth = lambda g, seed: g.add("Greater", g.linear(seed, 3), floats(0.0))
    save(op, lambda g: g.add(op, truth(g, 1), truth(g, 3)), 3)
save("Where", lambda g: g.add("Where", g.add("Greater", g.linear(1, 3), floats(0.0)), g.linear(3, 3), g.linear(5, 3)), 3)

# Reductions and what runs along an axis.
for op in ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp"]:
    save(op, lambda g: g.add(op, g.linear(1, 4), ints(1), keepdims=1), 1)
save("ReduceLogSum", lambda g: g.add("ReduceLogSum", g.linear(1, 4, 0.5, 2), ints(1), keepdims=1), 1)
save("ReduceProd", lambda g: g.add("ReduceProd", g.linear(1, 2, 0.5, 2), ints(1), keepdims=1), 1)
save("Softmax", lambda g: g.add("Softmax", g.linear(1, 3), axis=1), 3)
save("LogSoftmax", lambda g: g.add("LogSoftmax", g.linear(1, 3), axis=1), 3)
save("ArgMax", lambda g: g.add("ArgMax", g.linear(1, 3), axis=1), 1)
save("ArgMin", lambda g: g.add("ArgMin", g.linear(1, 3), axis=1), 1)
save("TopK", lambda g: g.add("TopK", g.linear(1, 3), ints(2), outputs=2)[0], 2)
save("Hardmax", lambda g: g.add("Hardmax", g.linear(1, 3), axis=1), 3)
save("CumSum", lambda g: g.add("CumSum", g.add("Relu", g.linear(1, 3)), ints(1)[0]), 3)
save("OneHot", lambda g: g.add("OneHot", g.add("Cast", floor(g, 1), to=7), ints(3)[0], floats(0.0, 1.0)), 9)

# Products.
save("MatMul", lambda g: g.add("MatMul", g.add("Reshape", g.linear(1, 4), ints(-1, 2, 2)), g.add("Reshape", g.linear(3, 4), ints(-1, 2, 2))), 4)
save("Gemm", lambda g: g.add("Gemm", g.add("Relu", g.linear(1, 3)), weights(2, 3), floats(0.5, -0.5), transB=1, alpha=0.5, beta=2.0), 2)
save("Einsum", lambda g: g.add("Einsum", g.add("Reshape", g.linear(1, 4), ints(-1, 2, 2)), g.add("Reshape", g.linear(3, 4), ints(-1, 2, 2)), equation="bij,bjk->bik"), 4)

# Convolutions and windows.
conv = lambda g, image, w, **attributes: g.add("Conv", image, w, floats(*([0.1] * w.shape[0])), **attributes)
save("Conv", lambda g: conv(g, image(g, 2), weights(2, 1, 2, 2), group=2, strides=[2, 2], pads=[1, 0, 0, 1]), 8)
save("Conv_1d", lambda g: conv(g, image(g, 1, 6), weights(2, 1, 2), dilations=[2]), 8)
save("Conv_3d", lambda g: conv(g, image(g, 1, 3, 2, 2), weights(2, 1, 2, 2, 2)), 4)
save("ConvTranspose", lambda g: g.add("ConvTranspose", image(g, 1, 2, 2), weights(1, 1, 2, 2), strides=[2, 2], output_padding=[1, 0]), 20)
save("MaxPool", lambda g: g.add("MaxPool", image(g, 1, 3, 3), kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1), 4)
save("MaxPool_pads", lambda g: g.add("MaxPool", image(g, 1, 3, 3), kernel_shape=[2, 2], pads=[1, 0, 0, 1], strides=[2, 2]), 4)
save("AveragePool", lambda g: g.add("AveragePool", image(g), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), 4)
save("AveragePool_pads", lambda g: g.add("AveragePool", image(g), kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1), 9)
save("AveragePool_same", lambda g: g.add("AveragePool", image(g), kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"), 4)
save("GlobalAveragePool", lambda g: g.add("GlobalAveragePool", image(g, 2, 2, 2)), 2)
save("GlobalMaxPool", lambda g: g.add("GlobalMaxPool", image(g, 2, 2, 2)), 2)
save("Pad", lambda g: g.add("Pad", image(g, 1, 2, 2), ints(0, 0, 1, 0, 0, 0, 0, 1), floats(0.5)[0]), 9)
save("Unfold", lambda g: g.add("Reshape", g.add("Transpose", g.add("Gather", g.add("Gather", image(g, 1, 3, 3), np.array([[0, 1], [1, 2]]), axis=2), np.array([[0, 1], [1, 2]]), axis=4), perm=[0, 1, 2, 4, 3, 5]), ints(-1, 4, 4)), 16)
save("Resize", lambda g: g.add("Resize", image(g, 1, 2, 2), "", floats(1, 1, 2, 2), mode="nearest"), 16)
save("Upsample", lambda g: g.add("Upsample", image(g, 1, 2, 2), floats(1, 1, 2, 2), mode="nearest"), 16, 9)
save("DepthToSpace", lambda g: g.add("DepthToSpace", image(g, 4, 1, 1), blocksize=2), 4)
save("SpaceToDepth", lambda g: g.add("SpaceToDepth", image(g, 1, 2, 2), blocksize=2), 4)

# Normalizations over small widths.
save("BatchNormalization", lambda g: g.add("BatchNormalization", image(g, 2, 2, 2), floats(1.5, 0.5), floats(0.1, 0.2), floats(0.3, 0.4), floats(1.0, 2.0)), 8)
save("LayerNormalization", lambda g: g.add("LayerNormalization", g.linear(1, 3), floats(1, 2, 0.5), floats(0, 0.5, 0)), 3)
save("InstanceNormalization", lambda g: g.add("InstanceNormalization", image(g, 1, 2, 2), floats(1.5), floats(0.5), epsilon=0.1), 4)
save("GroupNormalization", lambda g: g.add("GroupNormalization", image(g, 2, 2, 1), floats(1.5, 0.5), floats(0.5, 0.0), num_groups=2, epsilon=0.1), 4, 21)
save("LpNormalization", lambda g: g.add("LpNormalization", g.linear(1, 3, 0.5, 2), axis=1, p=2), 3)
save("MeanVarianceNormalization", lambda g: g.add("MeanVarianceNormalization", g.add("Reshape", g.linear(1, 3), ints(-1, 1, 3, 1)), axes=[2]), 3)

# Quantization.
save("QuantizeLinear", lambda g: g.add("DequantizeLinear", g.add("QuantizeLinear", g.linear(1, 3), np.float32(0.1), np.int8(3)), np.float32(0.1), np.int8(3)), 3)


def four_bits(g):
    """A product with weights of four bits, two in a byte, and scales and zero points per column."""
    codes = np.random.default_rng(9).integers(-8, 8, 6)
    g.constants.append(helper.make_tensor("w", TensorProto.INT4, [3, 2], codes))
    g.constants.append(helper.make_tensor("z", TensorProto.INT4, [2], [1, -2]))
    return g.add("MatMul", g.add("Relu", g.linear(1, 3)), g.add("DequantizeLinear", "w", floats(0.1, 0.2), "z", axis=1))


save("DequantizeLinear_int4", four_bits, 2, 21)

# What moves values.
r = lambda g, seed=1, size=4: g.add("Relu", g.linear(seed, size))
save("Concat", lambda g: g.add("Concat", r(g), r(g, 3), axis=1), 8)
save("Constant", lambda g: g.add("Add", r(g), g.add("Constant", value=numpy_helper.from_array(floats(1, 2, 3, 4)))), 4)
save("ConstantOfShape", lambda g: g.add("Add", r(g), g.add("ConstantOfShape", ints(4), value=numpy_helper.from_array(floats(0.5)))), 4)
save("Expand", lambda g: g.add("Expand", g.add("Reshape", r(g), ints(-1, 4, 1)), ints(1, 4, 2)), 8)
save("Flatten", lambda g: g.add("Flatten", image(g, 1, 2, 2)), 4)
save("Gather", lambda g: g.add("Gather", r(g), ints(2, 0, 2), axis=1), 3)
save("Range", lambda g: g.add("Add", r(g), g.add("Range", floats(0)[0], floats(4)[0], floats(1)[0])), 4)
save("Reshape", lambda g: g.add("Reshape", r(g), ints(0, 2, 2)), 4)
save("Shape", lambda g: g.add("Reshape", r(g), g.add("Shape", r(g, 3))), 4)
save("Slice", lambda g: g.add("Slice", r(g), ints(3), ints(0), ints(1), ints(-2)), 2)
save("Split", lambda g: g.add("Concat", *g.add("Split", r(g), ints(1, 3), axis=1, outputs=2)[::-1], axis=1), 4)
save("Squeeze", lambda g: g.add("Squeeze", g.add("Reshape", r(g), ints(-1, 1, 4)), ints(1)), 4)
save("Tile", lambda g: g.add("Tile", r(g), ints(1, 2)), 8)
save("Transpose", lambda g: g.add("Transpose", g.add("Reshape", r(g), ints(-1, 2, 2)), perm=[0, 2, 1]), 4)
save("Trilu", lambda g: g.add("Trilu", g.add("Reshape", r(g), ints(-1, 2, 2)), upper=0), 4)
save("Unsqueeze", lambda g: g.add("Unsqueeze", r(g), ints(1)), 4)
