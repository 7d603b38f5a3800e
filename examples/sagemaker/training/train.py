"""Trains a gradient boosting classifier and exports it to ONNX: the entry point of a scikit-learn container of SageMaker."""

import argparse
import os
import pathlib

import numpy
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.model_selection import train_test_split


def main():
    """Writes `model.onnx`, test rows, and the model's own labels of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trees", type=int, default=20)
    parser.add_argument("--depth", type=int, default=3)
    args, _ = parser.parse_known_args()
    model_folder = pathlib.Path(os.environ["SM_MODEL_DIR"])
    output = pathlib.Path(os.environ["SM_OUTPUT_DATA_DIR"])
    x, y = load_breast_cancer(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x.astype(numpy.float32), y, random_state=0)
    model = GradientBoostingClassifier(n_estimators=args.trees, max_depth=args.depth, random_state=0).fit(x_train, y_train)
    print(f"accuracy={model.score(x_test, y_test):.4f};")
    # Names of classes as one array, not as a dictionary for each row.
    onnx = to_onnx(model, x_train[:1], options={"zipmap": False})
    (model_folder / "model.onnx").write_bytes(onnx.SerializeToString())
    numpy.savez(output / "test.npz", x=x_test, label=model.predict(x_test))


if __name__ == "__main__":
    main()
