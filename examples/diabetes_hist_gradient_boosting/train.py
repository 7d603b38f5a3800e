import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import save
from sklearn.model_selection import train_test_split

import numpy as np
import onnx.helper
from skl2onnx import to_onnx
from sklearn.datasets import load_diabetes
from sklearn.ensemble import HistGradientBoostingRegressor

# skl2onnx 1.20 writes nodes_missing_value_tracks_true as booleans, which newer protobuf refuses: make them integers.
make_attribute = onnx.helper.make_attribute
onnx.helper.make_attribute = lambda key, value, *args, **more: make_attribute(
    key, [int(v) for v in value] if key == "nodes_missing_value_tracks_true" else value, *args, **more
)

x, y = load_diabetes(return_X_y=True)
x = x.astype("float32")
# One value in twenty is missing, so that the trees learn branches for it.
x[np.random.default_rng(0).random(x.shape) < 0.05] = np.nan
x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.2, random_state=0)
model = HistGradientBoostingRegressor(max_iter=50, max_depth=4, random_state=0).fit(x_train, y_train)
onnx_model = to_onnx(model, x_train[:1], target_opset={"": 17, "ai.onnx.ml": 3})
save(Path(__file__).parent, onnx_model, x_test, y_test, model.score(x_test, y_test))
