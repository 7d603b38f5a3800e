import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import save
from torch_common import CALIBRATION_ROWS, accuracy, export, train

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

# Digits scaled up to MNIST's 28 x 28, for a network of the size that is usual there.
data = load_digits()
small = torch.from_numpy((data.images[:, None] / 16).astype("float32"))
large = nn.functional.interpolate(small, size=(28, 28), mode="bilinear", align_corners=False)
x, y = large.reshape(len(small), -1).clamp(0, 1).numpy(), data.target
x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.2, random_state=0)
model = nn.Sequential(nn.Linear(784, 392), nn.ReLU(), nn.Linear(392, 10))
# Weights without outliers, so that few bits describe them.
train(model, x_train, y_train, epochs=30, weight_decay=0.5, limit=2.5)
score = accuracy(model, x_test, y_test)
calibration = (x_train[:CALIBRATION_ROWS], y_train[:CALIBRATION_ROWS])
save(Path(__file__).parent, export(model, x_train[:2]), x_test, y_test, score, calibration=calibration)
