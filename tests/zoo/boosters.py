"""CatBoost's own ONNX export, k-means and neighbours of skl2onnx: models/<name>.onnx and .npz, as `make.py` writes them."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from catboost import CatBoostClassifier, CatBoostRegressor
from skl2onnx import to_onnx
from sklearn.cluster import KMeans
from sklearn.datasets import load_diabetes, load_iris
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

OUT = Path(__file__).parent / "models"
iris_x, iris_y = load_iris(return_X_y=True)
iris_x = iris_x.astype(np.float32)
dia_x, dia_y = load_diabetes(return_X_y=True)
dia_x = (dia_x * 20).astype(np.float32)


def save(name, model, x):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = session.get_inputs()[0].name
    rows = np.concatenate([x[::9], np.nextafter(x[::9], np.float32(np.inf)), np.nextafter(x[::9], np.float32(-np.inf))])
    names = [output.name for output in session.get_outputs()]
    arrays = {f"in:{feed}": rows}
    for out, value in zip(names, session.run(names, {feed: rows})):
        if isinstance(value, list):
            keys = list(value[0])
            value = np.array([[row[key] for key in keys] for row in value], dtype=np.float32)
        arrays[f"out:{out}"] = value
    (OUT / f"{name}.onnx").write_bytes(model.SerializeToString())
    np.savez_compressed(OUT / f"{name}.npz", **arrays)
    print(f"{name}: {[(key, value.shape) for key, value in arrays.items()]}")


def catboost(name, model, x, y):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        model.fit(x, y).save_model(str(path), format="onnx")
        save(name, onnx.load(path), x)


common = {"iterations": 10, "depth": 4, "verbose": 0, "random_seed": 0, "thread_count": 1, "allow_writing_files": False}
two = iris_y < 2
catboost("catboost_two", CatBoostClassifier(**common), iris_x[~(iris_y == 0)], iris_y[~(iris_y == 0)] - 1)
catboost("catboost_three", CatBoostClassifier(**common), iris_x, iris_y)
catboost("catboost_regressor", CatBoostRegressor(**common), dia_x, dia_y)
save("kmeans", to_onnx(KMeans(3, random_state=0, n_init=1).fit(iris_x), iris_x[:1], target_opset=17), iris_x)
off = {"zipmap": False}
neighbours = KNeighborsClassifier(3).fit(iris_x[::5], iris_y[::5])
save("knn_classifier", to_onnx(neighbours, iris_x[:1], options=off, target_opset=17), iris_x)
regressor = KNeighborsRegressor(4).fit(dia_x[::15], dia_y[::15])
save("knn_regressor", to_onnx(regressor, dia_x[:1], target_opset=17), dia_x)
