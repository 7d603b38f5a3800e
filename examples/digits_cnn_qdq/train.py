"""onnxruntime's static quantizer on the convolutional network of `digits_cnn`: int8, weights per channel."""

import sys
import tempfile
from pathlib import Path

here = Path(__file__).parent
sys.path.insert(0, str(here.parent))
from common import save

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

source = here.parent / "digits_cnn"
calibration, y_calibration = np.load(source / "calibration.npy"), np.load(source / "y_calibration.npy")
x_test, y_test = np.load(source / "x_test.npy"), np.load(source / "y_test.npy")


class Rows(CalibrationDataReader):
    def __init__(self):
        self.rows = iter(calibration)

    def get_next(self):
        row = next(self.rows, None)
        return None if row is None else {"x": row[None]}


with tempfile.TemporaryDirectory() as folder:
    target = Path(folder) / "qdq.onnx"
    quantize_static(
        str(source / "model.onnx"),
        str(target),
        Rows(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    model = onnx.load(target)
# Without optimizations: the fused int8 kernels saturate sums of two products on CPUs without VNNI.
options = onnxruntime.SessionOptions()
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
outputs = {"logits": session.run(["logits"], {"x": x_test})[0]}
score = float((outputs["logits"].argmax(1) == y_test).mean())
save(here, model, x_test, y_test, score, calibration=(calibration, y_calibration), outputs=outputs)
