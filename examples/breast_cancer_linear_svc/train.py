import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import save
from sklearn.model_selection import train_test_split

from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

data = load_breast_cancer()
x, y = data.data.astype("float32"), data.target
x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.2, random_state=0)
model = make_pipeline(StandardScaler(), LinearSVC(random_state=0)).fit(x_train, y_train)
onnx_model = to_onnx(model, x_train[:1], options={LinearSVC: {"raw_scores": True}}, target_opset={"": 17, "ai.onnx.ml": 3})
save(Path(__file__).parent, onnx_model, x_test, y_test, model.score(x_test, y_test))
