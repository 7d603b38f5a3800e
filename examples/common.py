"""What the training scripts share: write the model, the test split and onnxruntime's outputs beside the script."""

from pathlib import Path

import numpy as np
import onnxruntime


def save(folder, onnx_model, x_test, y_test, score, calibration=None, outputs=None):
    """`calibration` is a pair of training rows and their truth, for models whose values are quantized by calibration;
    `outputs` are for models that onnxruntime does not run."""
    folder = Path(folder)
    if calibration is not None:
        np.save(folder / "calibration.npy", np.ascontiguousarray(calibration[0], dtype=np.float32))
        np.save(folder / "y_calibration.npy", np.asarray(calibration[1]))
    (folder / "model.onnx").write_bytes(onnx_model.SerializeToString())
    x_test = np.ascontiguousarray(x_test, dtype=np.float32)
    np.save(folder / "x_test.npy", x_test)
    np.save(folder / "y_test.npy", np.asarray(y_test))
    if outputs is None:
        outputs = run(onnx_model, x_test)
    np.savez_compressed(folder / "expected.npz", **outputs)
    print(f"{folder.name}: score {score:.4f}, {len(x_test)} test rows, outputs {[(k, v.shape) for k, v in outputs.items()]}")


def run(onnx_model, x_test):
    session = onnxruntime.InferenceSession(onnx_model.SerializeToString(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    names = [output.name for output in session.get_outputs()]
    outputs = {}
    for name_out, value in zip(names, session.run(names, {name: x_test})):
        if isinstance(value, list):  # ZipMap: a list of maps
            keys = list(value[0])
            outputs[name_out] = np.array([[row[key] for key in keys] for row in value], dtype=np.float32)
        else:
            # Object arrays need pickle; labels are text.
            outputs[name_out] = value.astype(str) if value.dtype == object else value
    return outputs
