"""Small networks by torch's two exporters, by skl2onnx, by onnxruntime's static quantizer and with torch's and Brevitas' fake quantization:
models/<name>.onnx, and models/<name>.npz with calibration rows (`cal:`), test rows (`in:`), onnxruntime's answers (`out:`) and, of
quantized models, what one unit of the last quantization is in them (`unit`).

    pip install -r requirements.txt && python make.py [part of a name]

onnxruntime runs without graph optimizations: its fused int8 kernels saturate sums of two products on CPUs without VNNI and
then differ from the model by many units.
"""

import io
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from sklearn.datasets import load_diabetes, load_digits, load_iris, load_wine
from torch import nn
from torch.nn import functional as F

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
OUT = Path(__file__).parent / "models"
OUT.mkdir(exist_ok=True)
ONLY = sys.argv[1] if len(sys.argv) > 1 else ""
TEST, CALIBRATION = 40, 100


def shuffled(x, y):
    order = np.random.default_rng(0).permutation(len(x))
    return x[order].astype(np.float32), y[order]


digits = load_digits()
# Digits of 4 x 4 pixels.
small = digits.images.reshape(-1, 4, 2, 4, 2).mean((2, 4))[:, None] / 16
wine = load_wine(return_X_y=True)
wine_x = (wine[0] - wine[0].mean(0)) / wine[0].std(0)
iris = load_iris(return_X_y=True)
diabetes = load_diabetes(return_X_y=True)
DATA = {
    "digits": shuffled(small, digits.target),
    "flat": shuffled(small.reshape(-1, 16), digits.target),
    "sequence": shuffled(small.reshape(-1, 1, 16), digits.target),
    "wine": shuffled(wine_x, wine[1]),
    "iris": shuffled(iris[0] - iris[0].mean(0), iris[1]),
    "diabetes": shuffled(diabetes[0] * 20, ((diabetes[1] - 150) / 80).astype(np.float32)),
}


class Sum(nn.Module):
    """What is fed forward beside what is done to it."""

    def __init__(self, *inner):
        super().__init__()
        self.inner = nn.Sequential(*inner)

    def forward(self, x):
        return x + self.inner(x)


class Of(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Both(nn.Module):
    """A function of what two modules make of one value."""

    def __init__(self, function, first, second):
        super().__init__()
        self.function, self.first, self.second = function, first, second

    def forward(self, x):
        return self.function(self.first(x), self.second(x))


class Product(nn.Module):
    """A product with a matrix that is no `nn.Linear`."""

    def __init__(self, columns, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(columns, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        return x @ self.weight + self.bias


class Standardized(nn.Module):
    """Constants less and times, as preprocessing inside a model has them."""

    def __init__(self, columns):
        super().__init__()
        self.register_buffer("mean", torch.linspace(-0.3, 0.4, columns))
        self.register_buffer("deviation", torch.linspace(0.6, 1.5, columns))

    def forward(self, x):
        return (x - self.mean) / self.deviation * 0.8 + 0.1


class Labels(nn.Module):
    """Positions of the greatest scores, but while it is trained."""

    def forward(self, x):
        return x if self.training else x.argmax(1)


def shuffled_channels(x):
    return x.reshape(-1, 2, 2, *x.shape[2:]).transpose(1, 2).reshape(-1, 4, *x.shape[2:])


def mlp(activation, columns=16, hidden=12, outputs=10):
    return nn.Sequential(nn.Linear(columns, hidden), activation, nn.Linear(hidden, outputs))


def deep(activation, columns=13, outputs=3):
    return nn.Sequential(nn.Linear(columns, 8), activation, nn.Linear(8, 6), activation, nn.Linear(6, outputs))


def head(channels, outputs=10):
    return [nn.Flatten(), nn.Linear(channels, outputs)]


# Name: data and model.
NETWORKS = {
    "mlp_relu": ("flat", lambda: mlp(nn.ReLU())),
    "mlp_deep_relu": ("wine", lambda: deep(nn.ReLU())),
    "mlp_gelu": ("wine", lambda: deep(nn.GELU())),
    "mlp_gelu_tanh": ("iris", lambda: deep(nn.GELU("tanh"), 4)),
    "mlp_silu": ("wine", lambda: deep(nn.SiLU())),
    "mlp_mish": ("iris", lambda: deep(nn.Mish(), 4)),
    "mlp_tanh": ("wine", lambda: deep(nn.Tanh())),
    "mlp_sigmoid": ("iris", lambda: mlp(nn.Sigmoid(), 4, 8, 3)),
    "mlp_elu": ("iris", lambda: deep(nn.ELU(), 4)),
    "mlp_selu": ("iris", lambda: deep(nn.SELU(), 4)),
    "mlp_leaky": ("wine", lambda: deep(nn.LeakyReLU(0.1))),
    "mlp_prelu": ("iris", lambda: deep(nn.PReLU(), 4)),
    "mlp_softplus": ("iris", lambda: deep(nn.Softplus(), 4)),
    "mlp_hardswish": ("wine", lambda: deep(nn.Hardswish())),
    "mlp_hardsigmoid": ("iris", lambda: mlp(nn.Hardsigmoid(), 4, 8, 3)),
    "mlp_relu6": ("wine", lambda: deep(nn.ReLU6())),
    "mlp_batchnorm": ("wine", lambda: nn.Sequential(nn.Linear(13, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3))),
    "mlp_regression": ("diabetes", lambda: deep(nn.ReLU(), 10, 1)),
    "mlp_crelu": ("wine", lambda: nn.Sequential(nn.Linear(13, 6), Of(lambda x: torch.cat([F.relu(x), F.relu(-x)], 1)), nn.Linear(12, 3))),
    "mlp_glu": ("iris", lambda: nn.Sequential(nn.Linear(4, 8), nn.GLU(), nn.Linear(4, 3))),
    "mlp_maxout": ("wine", lambda: nn.Sequential(nn.Linear(13, 8), Of(lambda x: torch.maximum(x[:, :4], x[:, 4:])), nn.Linear(4, 3))),
    "mlp_softmax": ("iris", lambda: nn.Sequential(mlp(nn.ReLU(), 4, 8, 3), nn.Softmax(1))),
    "mlp_log_softmax": ("wine", lambda: nn.Sequential(mlp(nn.ReLU(), 13, 8, 3), nn.LogSoftmax(1))),
    "layer_norm": ("iris", lambda: nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 3))),
    "residual_mlp": ("wine", lambda: nn.Sequential(nn.Linear(13, 8), nn.ReLU(), Sum(nn.Linear(8, 8), nn.ReLU()), nn.Linear(8, 3))),
    "cnn_1d": ("sequence", lambda: nn.Sequential(nn.Conv1d(1, 4, 3, stride=2), nn.ReLU(), *head(28))),
    "cnn_1d_pool": ("sequence", lambda: nn.Sequential(nn.Conv1d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2), *head(32))),
    "cnn_2d": ("digits", lambda: nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), *head(24))),
    "cnn_2d_padded": ("digits", lambda: nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, stride=2), nn.BatchNorm2d(4), nn.ReLU(), *head(16))),
    "cnn_2d_deep": ("digits", lambda: nn.Sequential(nn.Conv2d(1, 4, 2), nn.ReLU(), nn.Conv2d(4, 6, 2), nn.ReLU(), *head(24))),
    "cnn_residual": ("digits", lambda: nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), Sum(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()), *head(48))),
    "cnn_depthwise": ("digits", lambda: nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 6, 1), nn.ReLU(), *head(24))),
    "cnn_groups": ("digits", lambda: nn.Sequential(nn.Conv2d(1, 4, 2), nn.ReLU(), nn.Conv2d(4, 4, 2, groups=2), nn.ReLU(), *head(16))),
    "cnn_dilation": ("digits", lambda: nn.Sequential(nn.Conv2d(1, 6, 2, dilation=2), nn.ReLU(), *head(24))),
    "cnn_max_pool": ("digits", lambda: nn.Sequential(nn.Conv2d(1, 4, 2, padding=1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True), *head(36))),
    "cnn_average_pool": ("digits", lambda: nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(3, 2, 1, count_include_pad=False), *head(16))),
    "cnn_global_average": ("digits", lambda: nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), *head(16))),
    "cnn_global_max": ("digits", lambda: nn.Sequential(nn.Conv2d(1, 12, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(1), *head(12))),
    "cnn_transposed": ("digits", lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 3, 2), nn.ReLU(), *head(27))),
    "cnn_upsample": ("digits", lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 2), nn.ReLU(), *head(36))),
    "mlp_matmul": ("wine", lambda: nn.Sequential(Product(13, 8), nn.ReLU(), Product(8, 3))),
    "mlp_standardized": ("wine", lambda: nn.Sequential(Standardized(13), nn.Linear(13, 8), Standardized(8), nn.ReLU(), Standardized(8), nn.Linear(8, 3))),
    "mlp_abs": ("wine", lambda: deep(Of(torch.abs))),
    "mlp_gaussian": ("iris", lambda: mlp(Of(lambda x: torch.exp(-x * x)), 4, 8, 3)),
    "mlp_log": ("wine", lambda: deep(Of(lambda x: torch.log(1 + F.relu(x))))),
    "mlp_sqrt": ("wine", lambda: deep(Of(lambda x: torch.sqrt(x.abs() + 0.1)))),
    "mlp_square": ("iris", lambda: mlp(Of(lambda x: x**2), 4, 8, 3)),
    "mlp_cube": ("iris", lambda: mlp(Of(lambda x: torch.pow(x.clamp(-2, 2), 3)), 4, 8, 3)),
    "mlp_softsign": ("wine", lambda: deep(nn.Softsign())),
    "mlp_celu": ("iris", lambda: deep(nn.CELU(0.7), 4)),
    "mlp_erf": ("wine", lambda: deep(Of(torch.erf))),
    "mlp_hardtanh": ("wine", lambda: deep(nn.Hardtanh(-0.5, 2))),
    "mlp_clamp_low": ("wine", lambda: deep(Of(lambda x: x.clamp(min=-0.2)))),
    "mlp_sum_of_two": ("wine", lambda: nn.Sequential(Both(torch.add, mlp(nn.ReLU(), 13, 6, 6), mlp(nn.Tanh(), 13, 6, 6)), nn.ReLU(), nn.Linear(6, 3))),
    "mlp_difference": ("wine", lambda: nn.Sequential(Both(torch.sub, mlp(nn.ReLU(), 13, 6, 6), mlp(nn.ReLU(), 13, 6, 6)), nn.ReLU(), nn.Linear(6, 3))),
    "mlp_dense": ("wine", lambda: nn.Sequential(nn.Linear(13, 6), nn.ReLU(), Both(lambda *own: torch.cat(own, 1), nn.Identity(), nn.Sequential(nn.Linear(6, 4), nn.ReLU())), nn.Linear(10, 3))),
    "mlp_arg_max": ("iris", lambda: nn.Sequential(mlp(nn.ReLU(), 4, 8, 3), Labels())),
    "cnn_unflatten": ("flat", lambda: nn.Sequential(nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 4, 3), nn.ReLU(), *head(16))),
    "cnn_1d_groups": ("sequence", lambda: nn.Sequential(nn.Conv1d(1, 4, 3, stride=2), nn.ReLU(), nn.Conv1d(4, 4, 2, groups=2, dilation=2), nn.ReLU(), *head(20))),
    "cnn_1d_causal": ("sequence", lambda: nn.Sequential(Of(lambda x: F.pad(x, (2, 0))), nn.Conv1d(1, 4, 3, stride=2), nn.ReLU(), *head(32))),
    "cnn_1d_same": ("sequence", lambda: nn.Sequential(nn.Conv1d(1, 3, 4, padding="same"), nn.ReLU(), *head(48))),
    "cnn_1d_average": ("sequence", lambda: nn.Sequential(nn.Conv1d(1, 4, 3, padding=1), nn.ReLU(), nn.AvgPool1d(4), *head(16))),
    "cnn_1d_max_padded": ("sequence", lambda: nn.Sequential(nn.Conv1d(1, 3, 2, stride=2), nn.ReLU(), nn.MaxPool1d(3, 2, 1), *head(12))),
    "cnn_1d_global": ("sequence", lambda: nn.Sequential(nn.Conv1d(1, 12, 5), nn.ReLU(), nn.AdaptiveAvgPool1d(1), *head(12))),
    "cnn_same": ("digits", lambda: nn.Sequential(nn.Conv2d(1, 4, 2, padding="same"), nn.ReLU(), *head(64))),
    "cnn_reflect": ("digits", lambda: nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), *head(16))),
    "cnn_replicate": ("digits", lambda: nn.Sequential(nn.ReplicationPad2d((1, 0, 0, 1)), nn.Conv2d(1, 4, 2), nn.ReLU(), *head(64))),
    "cnn_constant_pad": ("digits", lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.ConstantPad2d((0, 1, 1, 0), 0.5), nn.Conv2d(4, 4, 2), nn.ReLU(), *head(16))),
    "cnn_strides": ("digits", lambda: nn.Sequential(nn.Conv2d(1, 6, (3, 2), stride=(1, 2)), nn.ReLU(), *head(24))),
    "cnn_batchnorm_alone": ("digits", lambda: nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 2), nn.ReLU(), *head(4))),
    "cnn_average_padded": ("digits", lambda: nn.Sequential(nn.Conv2d(1, 4, 2), nn.ReLU(), nn.AvgPool2d(2, 1, 1), *head(64))),
    "cnn_max_overlapping": ("digits", lambda: nn.Sequential(nn.Conv2d(1, 4, 2), nn.ReLU(), nn.MaxPool2d(2, 1), *head(16))),
    "cnn_branches": ("digits", lambda: nn.Sequential(Both(lambda *own: torch.cat(own, 1), nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(1, 2, 1)), nn.ReLU(), *head(64))),
    "cnn_shuffle": ("digits", lambda: nn.Sequential(nn.Conv2d(1, 4, 2), nn.ReLU(), Of(shuffled_channels), nn.Conv2d(4, 4, 2, groups=2), nn.ReLU(), *head(16))),
    "cnn_channels_last": ("digits", lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), Of(lambda x: x.permute(0, 2, 3, 1)), *head(16))),
    "cnn_prelu": ("digits", lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.PReLU(4), *head(16))),
    "cnn_projection": ("digits", lambda: nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), Both(torch.add, nn.Conv2d(3, 4, 2), nn.Conv2d(3, 4, 1, stride=(2, 2), padding=(0, 0))), nn.ReLU(), *head(16))),
    "cnn_softmax": ("digits", lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), *head(16), nn.Softmax(1))),
    "cnn_arg_max": ("digits", lambda: nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), *head(24), Labels())),
    "lstm": ("sequence", lambda: nn.Sequential(Of(lambda x: x.transpose(1, 2)), Recurrent(nn.LSTM(1, 4, batch_first=True)), nn.Linear(4, 10))),
    "gru": ("sequence", lambda: nn.Sequential(Of(lambda x: x.transpose(1, 2)), Recurrent(nn.GRU(1, 4, batch_first=True)), nn.Linear(4, 10))),
    "attention": ("sequence", lambda: nn.Sequential(Of(lambda x: x.reshape(-1, 4, 4)), Attention(), nn.Flatten(), nn.Linear(16, 10))),
}


class Recurrent(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)[0][:, -1]


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(4, 1, batch_first=True)

    def forward(self, x):
        return self.inner(x, x, x, need_weights=False)[0]


def train(model, x, y, epochs=60):
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.kaiming_uniform_(parameter, nonlinearity="relu")
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    loss = F.mse_loss if y.is_floating_point() else F.nll_loss if ends_in_log(model) else F.cross_entropy
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.02)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            loss(model(x[rows]).squeeze(1), y[rows]).backward()
            optimizer.step()
    return model.eval()


def ends_in_log(model):
    return isinstance(list(model.modules())[-1], nn.LogSoftmax)


def export(model, x, dynamo, opset):
    example = (torch.from_numpy(x[:3]),)
    if dynamo:
        rows = torch.export.Dim("rows", min=1, max=1 << 20)
        program = torch.onnx.export(
            model, example, input_names=["x"], output_names=["y"], dynamic_shapes=({0: rows},), opset_version=opset, dynamo=True, verbose=False, external_data=False
        )
        return program.model_proto
    file = io.BytesIO()
    axes = {"x": {0: "rows"}, "y": {0: "rows"}}
    torch.onnx.export(model, example, file, input_names=["x"], output_names=["y"], dynamic_axes=axes, opset_version=opset, dynamo=False)
    return onnx.load_model_from_string(file.getvalue())


def answers(model, x):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: x})))


def unit(model):
    """What one unit of the last quantization is in the results; of a layer behind it: at most."""
    graph = model.graph
    made = {output: node for node in graph.node for output in node.output}
    constants = {own.name: onnx.numpy_helper.to_array(own) for own in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)

    def step(name):
        while made[name].op_type in ("Flatten", "Reshape"):
            name = made[name].input[0]
        node = made[name]
        return float(constants[node.input[1]].max()) if node.op_type in ("DequantizeLinear", "Quant") else None

    last = graph.output[0].name
    if step(last) is not None:
        return step(last)
    node = made[last]
    assert node.op_type == "Gemm", node.op_type
    quantized = made[node.input[1]]
    weights = constants[quantized.input[0]].astype(np.float64)
    if quantized.op_type == "DequantizeLinear":
        weights = weights * np.reshape(constants[quantized.input[1]], (-1, 1))
    return step(node.input[0]) * float(np.abs(weights).max())


def save(name, model, data, outputs=None):
    x, y = DATA[data]
    test, calibration = x[-TEST:], x[:CALIBRATION]
    for entry in [*model.graph.node, *model.graph.initializer, *model.graph.value_info, model.graph]:
        entry.ClearField("doc_string")
    for node in model.graph.node:
        node.ClearField("metadata_props")
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output]:
        value.ClearField("metadata_props")
    del model.metadata_props[:], model.graph.metadata_props[:]
    outputs = answers(model, test) if outputs is None else outputs
    feed = model.graph.input[0].name
    arrays = {f"in:{feed}": test, f"cal:{feed}": calibration}
    arrays |= {f"out:{out}": value for out, value in outputs.items()}
    if any(node.op_type in ("DequantizeLinear", "Quant") for node in model.graph.node) and "u16" not in name:
        arrays["unit"] = np.array([unit(model)])
    (OUT / f"{name}.onnx").write_bytes(model.SerializeToString())
    np.savez_compressed(OUT / f"{name}.npz", **arrays)
    value = next(iter(outputs.values()))
    truth = y[-TEST:]
    if np.issubdtype(value.dtype, np.integer):
        score = (value == truth).mean()
    else:
        score = (value.argmax(1) == truth).mean() if value.shape[1] > 1 else 1 - ((value[:, 0] - truth) ** 2).mean() / truth.var()
    print(f"{name}: score {score:.3f}, {len(model.SerializeToString())} bytes, {sorted({n.op_type for n in model.graph.node})}", flush=True)


class Rows(CalibrationDataReader):
    def __init__(self, name, x):
        self.rows = iter(x)
        self.name = name

    def get_next(self):
        row = next(self.rows, None)
        return None if row is None else {self.name: row[None]}


def quantized(model, data, format, activations, weights, per_channel, symmetric):
    x = DATA[data][0][:CALIBRATION]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "f.onnx", Path(folder) / "q.onnx"
        onnx.save(model, source)
        quantize_static(
            str(source),
            str(target),
            Rows(model.graph.input[0].name, x),
            quant_format=format,
            per_channel=per_channel,
            activation_type=activations,
            weight_type=weights,
            extra_options={"ActivationSymmetric": symmetric, "WeightSymmetric": symmetric or weights == QuantType.QInt8},
        )
        return onnx.load(target)


# Suffix: format, activation and weight types, per channel, symmetric.
U8, S8, U16, S16 = QuantType.QUInt8, QuantType.QInt8, QuantType.QUInt16, QuantType.QInt16
QUANTIZERS = {
    "qdq_u8_channel": (QuantFormat.QDQ, U8, S8, True, False),
    "qdq_u8_tensor": (QuantFormat.QDQ, U8, S8, False, False),
    "qdq_s8_channel": (QuantFormat.QDQ, S8, S8, True, False),
    "qdq_s8_symmetric": (QuantFormat.QDQ, S8, S8, False, True),
    "qdq_u8_u8": (QuantFormat.QDQ, U8, U8, False, False),
    "qdq_u16_s8": (QuantFormat.QDQ, U16, S8, True, False),
    "qop_u8_tensor": (QuantFormat.QOperator, U8, S8, False, False),
    "qop_u8_channel": (QuantFormat.QOperator, U8, S8, True, False),
    "qop_s8_symmetric": (QuantFormat.QOperator, S8, S8, False, True),
    "qop_u8_u8": (QuantFormat.QOperator, U8, U8, False, False),
}
# Which of them for which network.
QUANTIZED = {
    "mlp_relu": list(QUANTIZERS),
    "mlp_sigmoid": ["qdq_u8_tensor", "qop_u8_tensor"],
    "mlp_leaky": ["qdq_s8_channel", "qop_s8_symmetric"],
    "residual_mlp": ["qdq_u8_channel", "qdq_s8_symmetric", "qop_u8_tensor"],
    "mlp_gelu": ["qdq_u8_tensor"],
    "cnn_1d_pool": ["qdq_u8_tensor", "qop_u8_channel"],
    "cnn_2d_deep": list(QUANTIZERS),
    "cnn_residual": ["qdq_s8_channel", "qop_u8_tensor"],
    "cnn_depthwise": ["qdq_u8_channel", "qop_u8_channel"],
    "cnn_max_pool": ["qdq_u8_tensor", "qop_u8_channel"],
    "cnn_average_pool": ["qdq_u8_channel", "qop_u8_tensor"],
    "cnn_global_average": ["qdq_s8_symmetric", "qop_u8_tensor"],
}


class FakeQuantized(nn.Module):
    """A network trained with torch's fake quantization: activations per tensor, weights per channel."""

    def __init__(self, convolution):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(1, 6, 3), nn.Linear(24, 10)] if convolution else [nn.Linear(16, 12), nn.Linear(12, 10)])
        self.scales = []

    def scale(self, layer):
        return layer.weight.detach().abs().flatten(1).amax(1).clamp_min(1e-3) / 127

    def freeze(self):
        """Constant scales of weights, which exporters want."""
        self.scales = [self.scale(layer) for layer in self.layers]
        return self.eval()

    def values(self, x, scale):
        return torch.fake_quantize_per_tensor_affine(x, scale, 0, 0, 255)

    def weights(self, at):
        layer = self.layers[at]
        scale = self.scales[at] if self.scales else self.scale(layer)
        return torch.fake_quantize_per_channel_affine(layer.weight, scale, torch.zeros(len(scale), dtype=torch.int32), 0, -128, 127)

    def forward(self, x):
        first, last = self.layers
        x = self.values(x, 1 / 255)
        apply = F.conv2d if isinstance(first, nn.Conv2d) else F.linear
        x = self.values(F.relu(apply(x, self.weights(0), first.bias)), 4 / 255).flatten(1)
        return F.linear(x, self.weights(1), last.bias)


def brevitas_networks():
    import brevitas.nn as qnn
    from brevitas.export import export_qonnx
    from brevitas.quant import Int8WeightPerTensorFloat, Int8ActPerTensorFloat, Uint8ActPerTensorFloat

    def network(bits, convolution):
        first = qnn.QuantConv2d(1, 6, 3, weight_bit_width=bits, bias=True) if convolution else qnn.QuantLinear(16, 12, bias=True, weight_bit_width=bits)
        last = qnn.QuantLinear(24 if convolution else 12, 10, bias=True, weight_bit_width=bits)
        return nn.Sequential(qnn.QuantIdentity(bit_width=bits), first, qnn.QuantReLU(bit_width=bits), nn.Flatten(), last)

    for name, data, bits, convolution in [
        ("brevitas_mlp_4", "flat", 4, False),
        ("brevitas_mlp_8", "flat", 8, False),
        ("brevitas_cnn_4", "digits", 4, True),
    ]:
        if ONLY not in name:
            continue
        x, y = DATA[data]
        torch.manual_seed(0)
        model = train(network(bits, convolution), x[:-TEST], y[:-TEST])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "m.onnx"
            export_qonnx(model, torch.from_numpy(x[:1]), str(path), input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "rows"}, "y": {0: "rows"}}, dynamo=False)
            exported = onnx.load(path)
        with torch.no_grad():
            outputs = {"y": model(torch.from_numpy(x[-TEST:])).numpy()}
        save(name, exported, data, outputs)


def sklearn_networks():
    from skl2onnx import to_onnx
    from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier, StackingClassifier, StackingRegressor
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    more = dict(max_iter=1500, random_state=0)
    forest, tree = RandomForestClassifier(8, max_depth=4, random_state=0), DecisionTreeClassifier(max_depth=4, random_state=0)
    line, level = LogisticRegression(max_iter=500), [("a", forest), ("b", LogisticRegression(max_iter=500))]
    regressors = [("a", GradientBoostingRegressor(n_estimators=10, max_depth=3, random_state=0)), ("b", Ridge())]
    for name, data, model in [
        ("sklearn_mlp_relu", "wine", MLPClassifier((8,), **more)),
        ("sklearn_mlp_tanh", "iris", MLPClassifier((8, 6), activation="tanh", **more)),
        ("sklearn_mlp_logistic", "wine", MLPClassifier((8,), activation="logistic", **more)),
        ("sklearn_mlp_two", "wine", MLPClassifier((6,), **more)),
        ("sklearn_mlp_scaled", "flat", make_pipeline(StandardScaler(), MLPClassifier((12,), alpha=1.0, **more))),
        ("sklearn_mlp_regression", "diabetes", MLPRegressor(hidden_layer_sizes=(8,), alpha=1.0, **more)),
        # Trees and linear models under a model of their scores.
        ("stacking_line_two", "wine", StackingClassifier(level, line, cv=3)),
        ("stacking_line", "wine", StackingClassifier(level, line, cv=3)),
        ("stacking_line_passthrough", "iris", StackingClassifier(level, line, cv=3, passthrough=True)),
        ("stacking_rest", "iris", StackingClassifier([("a", tree), ("b", OneVsRestClassifier(line))], line, cv=3)),
        ("stacking_mlp", "iris", StackingClassifier(level, MLPClassifier((6,), **more), cv=3)),
        ("stacking_forest", "iris", StackingClassifier([("a", tree), ("b", line)], forest, cv=3)),
        ("stacking_mlp_two", "wine", StackingClassifier([("a", tree), ("b", MLPClassifier((4,), **more))], line, cv=3)),
        ("stacking_ridge_regression", "diabetes", StackingRegressor(regressors, Ridge(), cv=3)),
        ("stacking_mlp_regression", "diabetes", StackingRegressor([("a", DecisionTreeRegressor(max_depth=4, random_state=0)), ("b", Ridge())], MLPRegressor(hidden_layer_sizes=(6,), alpha=1.0, **more), cv=3)),
    ]:
        if ONLY not in name:
            continue
        x, y = DATA[data]
        model.fit(x[:-TEST], (y[:-TEST] == 1).astype(int) if name.endswith("two") else y[:-TEST])
        options = None if name.endswith("regression") else {"zipmap": False}
        save(name, to_onnx(model, x[:1], options=options, target_opset=17), data)


def attempt(name, work):
    try:
        work()
    except Exception as why:  # What an exporter or onnxruntime refuses is printed, and is in no test.
        print(f"{name}: not made: {type(why).__name__}: {str(why).splitlines()[0][:140]}", flush=True)


def main():
    for name, (data, make) in NETWORKS.items():
        wanted = [f"{name}_{suffix}" for suffix in ["script", "dynamo", *QUANTIZED.get(name, [])]]
        if not any(ONLY in own for own in wanted):
            continue
        x, y = DATA[data]
        torch.manual_seed(0)
        model = train(make(), x[:-TEST], y[:-TEST])
        exported = {}

        def both():
            for suffix, dynamo, opset in [("script", False, 17), ("dynamo", True, 20)]:
                own = f"{name}_{suffix}"

                def one():
                    exported[suffix] = export(model, x, dynamo, opset)
                    if ONLY in own:
                        save(own, exported[suffix], data)

                attempt(own, one)

        both()
        for suffix in QUANTIZED.get(name, []):
            own = f"{name}_{suffix}"
            if ONLY in own:
                attempt(own, lambda: save(own, quantized(exported["script"], data, *QUANTIZERS[suffix]), data))
    for name, data, convolution in [("fake_mlp", "flat", False), ("fake_cnn", "digits", True)]:
        if ONLY not in f"{name}_script {name}_dynamo":
            continue
        x, y = DATA[data]
        torch.manual_seed(0)
        model = train(FakeQuantized(convolution), x[:-TEST], y[:-TEST])
        for suffix, dynamo, opset in [("script", False, 17), ("dynamo", True, 20)]:
            attempt(f"{name}_{suffix}", lambda: save(f"{name}_{suffix}", export(model.freeze(), x, dynamo, opset), data))
    attempt("sklearn", sklearn_networks)
    attempt("brevitas", brevitas_networks)


main()
