"""Weights of `model.toml`, on invented applicants whose score follows a known rule with noise."""

import csv
from pathlib import Path

import numpy as np
from sklearn.neural_network import MLPClassifier

here = Path(__file__).parent
rng = np.random.default_rng(0)
HOUSING = ["own", "rent", "free"]
PURPOSE = ["car", "furniture", "education", "business"]
rows = 1500
income = rng.gamma(4.0, 12000.0, rows).clip(0, 200000).round(2)
months = rng.integers(6, 73, rows).astype(float)
housing, purpose = rng.integers(0, 3, rows), rng.integers(0, 4, rows)
score = (
    income / 30000
    - months / 24
    + np.array([0.8, -0.4, 0.2])[housing]
    + np.array([0.3, 0.0, 0.5, -0.6])[purpose]
    - np.where((months > 48) & (income < 40000), 1.0, 0.0)
)
y = (score + rng.normal(0, 0.4, rows) > 0.2).astype(int)
x = np.column_stack([income, months, np.eye(3)[housing], np.eye(4)[purpose]]).astype(np.float32)
mean, deviation = x[:1200].mean(0), x[:1200].std(0)
model = MLPClassifier([16], max_iter=400, alpha=1e-3, random_state=0).fit((x[:1200] - mean) / deviation, y[:1200])
np.savez(
    here / "weights.npz",
    mean=mean,
    scale=(1 / deviation).astype(np.float32),
    w1=np.ascontiguousarray(model.coefs_[0].T, dtype=np.float32),
    b1=model.intercepts_[0].astype(np.float32),
    w2=np.ascontiguousarray(model.coefs_[1].T, dtype=np.float32),
    b2=model.intercepts_[1].astype(np.float32),
)


def table(name, part):
    with open(here / name, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["income", "months", "housing", "purpose"])
        for row in range(rows)[part]:
            writer.writerow([income[row], months[row], HOUSING[housing[row]], PURPOSE[purpose[row]]])


table("calibration.csv", slice(0, 300))
table("x_test.csv", slice(1200, None))
probability = model.predict_proba((x[1200:] - mean) / deviation)[:, 1:]
decision = np.where(probability[:, 0] > 0.5, "grant", "refuse")
np.savez_compressed(here / "expected.npz", probability=probability.astype(np.float32), decision=decision)
np.save(here / "y_test.npy", y[1200:])
print(f"credit_scoring: score {model.score((x[1200:] - mean) / deviation, y[1200:]):.4f}, 300 test rows")
