import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import save
from sklearn.model_selection import train_test_split

from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

data = load_digits()
x, y = data.data.astype("float32"), data.target
x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.2, random_state=0)
network = MLPClassifier(hidden_layer_sizes=(32,), alpha=1.0, max_iter=500, random_state=0)
model = make_pipeline(StandardScaler(), network).fit(x_train, y_train)
onnx_model = to_onnx(model, x_train[:1], options={"zipmap": False}, target_opset={"": 17, "ai.onnx.ml": 3})
score = model.score(x_test, y_test)
save(Path(__file__).parent, onnx_model, x_test, y_test, score, calibration=(x_train[:300], y_train[:300]))
