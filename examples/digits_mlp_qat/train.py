"""A network trained with 4-bit weights and activations, written with `Quant` nodes as Brevitas exports them to QONNX.

onnxruntime does not know these nodes; the expected outputs are those of the network in torch.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import save
from torch_common import CALIBRATION_ROWS, train

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

BITS = 4


class Round(torch.autograd.Function):
    @staticmethod
    def forward(_, x):
        return torch.round(x)

    @staticmethod
    def backward(_, gradient):
        return gradient


def quant(x, scale, signed, narrow=False):
    low = -(2 ** (BITS - 1)) + int(narrow) if signed else 0
    high = 2 ** (BITS - 1) - 1 if signed else 2**BITS - 1
    return Round.apply(torch.clamp(x / scale, low, high)) * scale


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(64, 32), nn.Linear(32, 10)
        self.input_scale, self.hidden_scale = torch.tensor(1 / 15), torch.tensor(0.25)

    def weight(self, layer):
        scale = layer.weight.detach().abs().max() / (2 ** (BITS - 1) - 1)
        return quant(layer.weight, scale, signed=True, narrow=True), scale

    def forward(self, x):
        x = quant(x, self.input_scale, signed=False)
        x = nn.functional.linear(x, self.weight(self.first)[0], self.first.bias)
        x = quant(torch.relu(x), self.hidden_scale, signed=False)
        return nn.functional.linear(x, self.weight(self.second)[0], self.second.bias)


data = load_digits()
x, y = (data.data / 16).astype("float32"), data.target
x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.2, random_state=0)
network = train(Network(), x_train, y_train, epochs=60, weight_decay=0.05)

constants, nodes = {}, []


def constant(name, value):
    constants[name] = np.asarray(value, dtype=np.float32)
    return name


def quant_node(source, target, scale, signed, narrow):
    inputs = [source, constant(target + "_scale", scale), constant(target + "_zero", 0), constant(target + "_bits", BITS)]
    attributes = {"signed": int(signed), "narrow": int(narrow), "rounding_mode": "ROUND"}
    nodes.append(helper.make_node("Quant", inputs, [target], name=target, domain="onnx.brevitas", **attributes))


def layer(name, module, source):
    weight = constant(name + "_weight", module.weight.detach().numpy())
    quant_node(weight, name + "_weight_quant", network.weight(module)[1], True, True)
    bias = constant(name + "_bias", module.bias.detach().numpy())
    nodes.append(helper.make_node("Gemm", [source, name + "_weight_quant", bias], [name], name=name, transB=1))


quant_node("x", "x_quant", network.input_scale, False, False)
layer("first", network.first, "x_quant")
nodes.append(helper.make_node("Relu", ["first"], ["relu"], name="relu"))
quant_node("relu", "relu_quant", network.hidden_scale, False, False)
layer("logits", network.second, "relu_quant")
graph = helper.make_graph(
    nodes,
    "digits_mlp_qat",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 64])],
    [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", 10])],
    [numpy_helper.from_array(value, name) for name, value in constants.items()],
)
opsets = [helper.make_opsetid("", 17), helper.make_opsetid("onnx.brevitas", 1)]
model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
with torch.no_grad():
    outputs = {"logits": network(torch.from_numpy(x_test)).numpy()}
score = float((outputs["logits"].argmax(1) == y_test).mean())
calibration = (x_train[:CALIBRATION_ROWS], y_train[:CALIBRATION_ROWS])
save(Path(__file__).parent, model, x_test, y_test, score, calibration=calibration, outputs=outputs)
