import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import save
from torch_common import CALIBRATION_ROWS, Residual, accuracy, export, train

from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

data = load_breast_cancer()
x, y = data.data.astype("float32"), data.target
x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.2, random_state=0)
mean, deviation = x_train.mean(0), x_train.std(0)
x_train, x_test = (x_train - mean) / deviation, (x_test - mean) / deviation
model = Residual(x.shape[1], 32, 2)
train(model, x_train, y_train, epochs=40, weight_decay=0.05)
score = accuracy(model, x_test, y_test)
calibration = (x_train[:CALIBRATION_ROWS], y_train[:CALIBRATION_ROWS])
save(Path(__file__).parent, export(model, x_train[:2]), x_test, y_test, score, calibration=calibration)
