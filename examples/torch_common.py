"""What the torch training scripts share: seeds, a training loop, the export."""

import io

import numpy as np
import onnx
import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

CALIBRATION_ROWS = 300


class Residual(nn.Module):
    """Two layers beside a connection that skips them, then a linear layer."""

    def __init__(self, columns, width, outputs):
        super().__init__()
        self.inner = nn.Linear(columns, width)
        self.back = nn.Linear(width, columns)
        self.last = nn.Linear(columns, outputs)

    def forward(self, x):
        hidden = torch.relu(self.inner(x))
        return self.last(torch.relu(self.back(hidden) + x))

    @torch.no_grad()
    def in_units(self, mean, deviation):
        """From a standardized target to the target's own units."""
        self.last.weight.mul_(deviation)
        self.last.bias.mul_(deviation).add_(mean)


def train(model, x, y, epochs, weight_decay, limit=None, loss=nn.CrossEntropyLoss(label_smoothing=0.05)):
    """Adam with one learning rate cycle; `limit` keeps each layer's weights within so many standard deviations."""
    x, y = torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(np.asarray(y))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=weight_decay)
    batch = 64
    steps = epochs * ((len(x) + batch - 1) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(batch):
            optimizer.zero_grad()
            loss(model(x[rows]).squeeze(1), y[rows]).backward()
            optimizer.step()
            schedule.step()
            if limit is not None:
                clip(model, limit)
    return model.eval()


@torch.no_grad()
def clip(model, deviations):
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            reach = float(deviations * layer.weight.std())
            layer.weight.clamp_(-reach, reach)


@torch.no_grad()
def accuracy(model, x, y):
    return float((model(torch.from_numpy(np.ascontiguousarray(x))).argmax(1).numpy() == y).mean())


@torch.no_grad()
def r2(model, x, y):
    predicted = model(torch.from_numpy(np.ascontiguousarray(x))).squeeze(1).numpy()
    return float(1 - ((predicted - y) ** 2).sum() / ((y - y.mean()) ** 2).sum())


def export(model, example, output="logits"):
    file = io.BytesIO()
    torch.onnx.export(
        model,
        (torch.from_numpy(np.ascontiguousarray(example)),),
        file,
        input_names=["x"],
        output_names=[output],
        dynamic_axes={"x": {0: "rows"}, output: {0: "rows"}},
        opset_version=17,
        dynamo=False,
    )
    return onnx.load_model_from_string(file.getvalue())
