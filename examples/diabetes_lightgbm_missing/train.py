import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import save
from sklearn.model_selection import train_test_split

import numpy as np
from lightgbm import LGBMRegressor
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType
from sklearn.datasets import load_diabetes

x, y = load_diabetes(return_X_y=True)
x = x.astype("float32")
# One value in twenty is missing, so that the trees learn branches for it.
x[np.random.default_rng(0).random(x.shape) < 0.05] = np.nan
x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.2, random_state=0)
model = LGBMRegressor(n_estimators=50, max_depth=4, n_jobs=1, random_state=0, verbose=-1).fit(x_train, y_train)
types = [("features", FloatTensorType([None, x.shape[1]]))]
onnx_model = convert_lightgbm(model, initial_types=types, target_opset=15)
save(Path(__file__).parent, onnx_model, x_test, y_test, model.score(x_test, y_test))
