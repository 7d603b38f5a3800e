import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import save
from torch_common import CALIBRATION_ROWS, accuracy, export, train

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

data = load_digits()
x, y = (data.images[:, None] / 16).astype("float32"), data.target
x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.2, random_state=0)
model = nn.Sequential(
    nn.Conv2d(1, 8, 3, padding=1),
    nn.BatchNorm2d(8),
    nn.ReLU(),
    nn.Conv2d(8, 16, 3, stride=2),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(16 * 3 * 3, 10),
)
train(model, x_train, y_train, epochs=40, weight_decay=0.05)
score = accuracy(model, x_test, y_test)
calibration = (x_train[:CALIBRATION_ROWS], y_train[:CALIBRATION_ROWS])
save(Path(__file__).parent, export(model, x_train[:2]), x_test, y_test, score, calibration=calibration)
