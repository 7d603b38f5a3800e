import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import save

from skl2onnx import to_onnx
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

x, y = load_wine(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split(x.astype("float32"), y, test_size=0.2, random_state=0)
model = make_pipeline(StandardScaler(), KNeighborsClassifier(n_neighbors=5)).fit(x_train[:40], y_train[:40])
onnx_model = to_onnx(model, x_train[:1], options={"zipmap": False}, target_opset=15)
save(Path(__file__).parent, onnx_model, x_test, y_test, model.score(x_test, y_test))
