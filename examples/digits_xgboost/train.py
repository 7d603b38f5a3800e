import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import save
from sklearn.model_selection import train_test_split

from onnxmltools import convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from sklearn.datasets import load_digits
from xgboost import XGBClassifier

x, y = load_digits(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split(x.astype("float32"), y, test_size=0.2, random_state=0)
model = XGBClassifier(n_estimators=10, max_depth=4, n_jobs=1, random_state=0).fit(x_train, y_train)
onnx_model = convert_xgboost(model, initial_types=[("features", FloatTensorType([None, x.shape[1]]))], target_opset=15)
save(Path(__file__).parent, onnx_model, x_test, y_test, model.score(x_test, y_test))
