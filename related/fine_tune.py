"""What a pre-trained SimMTM is for: classification with few labels, and forecasting.

Both put one linear layer on all of z, flattened, and train it together with a copy of the encoder.
The model given stays as it is; one fitted with epochs=0 gives the network trained from scratch, the
control. A model fitted on one data set and tuned on another is the paper's transfer: both need the
same T and D, and `model.scale_ = Scale(X_new)` puts the new data on a scale of their own.

    model = SimMTM(seed=0).fit(X)                                   # no labels
    label_of = classifier(model, X[few], y[few]);  label_of(X_test)
    future_of = forecaster(SimMTM().fit(X[:, :-10]), X, 10);  future_of(X_test[:, :-10])
"""

import copy

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from related.common import check_whole, seeded, train


def fine_tune(model, X, target, n_outputs, loss, epochs, batch_size, lr, seed):
    """A function X -> (N, n_outputs): encoder and a new layer, trained on loss(output, target).

    model: a fitted SimMTM; X (N, T, D) with its T and D, N >= 2; target: a tensor of N rows; loss:
    (outputs (B, n_outputs), targets) -> 0-d.
    """
    check_whole(0, epochs=epochs, seed=seed)
    check_whole(2, batch_size=batch_size, series=len(X))
    device, net = model.device_, copy.deepcopy(model.net_)
    x, target = model.scaled(X).to(device), target.to(device)
    with seeded(seed, device):
        width = net.encode(x[:2]).flatten(1).shape[1]
        head = nn.Linear(width, n_outputs).to(device)
        optimizer = torch.optim.Adam([*net.encoder.parameters(), *head.parameters()], lr=lr)
        net.train()

        def parts_of(rows):
            rows = rows.to(device)
            return {"loss": loss(head(net.encode(x[rows]).flatten(1)), target[rows])}

        generator = torch.Generator().manual_seed(seed)
        train(optimizer, parts_of, len(x), epochs, batch_size, generator)
    net.eval()

    @torch.no_grad()
    def outputs(X):
        rows = model.scaled(X).split(64)
        out = [head(net.encode(part.to(device)).flatten(1)) for part in rows]
        return torch.cat(out).cpu().numpy()

    return outputs


def classifier(model, X, y, epochs=60, batch_size=32, lr=1e-3, seed=0):
    """A function X -> labels (N,), tuned on X (N, T, D) and its labels y (N,)."""
    classes, index = np.unique(y, return_inverse=True)
    outputs = fine_tune(
        model, X, torch.from_numpy(index), len(classes), functional.cross_entropy,
        epochs, batch_size, lr, seed,
    )  # fmt: skip
    return lambda X: classes[outputs(X).argmax(1)]


def forecaster(model, X, horizon, epochs=60, batch_size=32, lr=1e-3, seed=0):
    """A function (N, T - horizon, D) -> (N, horizon, D), tuned on X (N, T, D); z-scored units.

    model: fitted on series of T - horizon steps.
    # NOTE(paper): the published code takes each series' own mean and spread off. Here the layer
    # gives the change since the last value, so that 0 is the forecast "as it is now".
    """
    past, D = X[:, :-horizon], X.shape[2]
    z = torch.from_numpy(model.scale_(X))
    change = z[:, -horizon:] - z[:, -horizon - 1, None]  # (N, horizon, D)
    outputs = fine_tune(
        model, past, change.flatten(1), horizon * D, functional.mse_loss,
        epochs, batch_size, lr, seed,
    )  # fmt: skip

    def forecast(past):
        last = model.scale_(past)[:, -1:]  # (N, 1, D)
        return last + outputs(past).reshape(len(past), horizon, D)

    return forecast
