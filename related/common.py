"""The base that the three related methods share.

A method subclasses `Estimator` and gives three things:

    build(T, D)                -> nn.Module      the network for series of T steps and D variates
    parts(net, x, generator)   -> {name: 0-d}    the losses of one minibatch x (B, T, D); "loss" is
                                                 what is minimised, the others are only logged
    embed(net, x)              -> (B, h)         what a series is clustered by; eval mode

and gets fit / transform / fit_predict / predict / evaluate, seeds, the minibatch loop and the
history. With EMTC they share the z-score and k-means.

Convention: X is (N, T, D) float32, NaN = missing. Each variate is z-scored over all its observed
values in the training X (`emtc.z_scored`); then missing values are 0, that is, the variate's mean.
None of the three papers treats missing values: this is our choice.
"""

import contextlib
import math
import numbers
import time

import numpy as np
import torch

from emtc import z_scored
from kmeans import kmeans


def check_whole(least, **values):
    """ValueError unless each of the values is a whole number of at least `least`."""
    for name, value in values.items():
        if not isinstance(value, numbers.Integral) or value < least:
            raise ValueError(f"{name} {value!r}: need a whole number of at least {least}")


def check_choice(known, **values):
    """ValueError unless each of the values is one of `known`, a tuple of strings."""
    for name, value in values.items():
        if value not in known:
            raise ValueError(f"{name} {value!r} is unknown; use one of {', '.join(known)}")


def check_series(X):
    """X as an (N, T, D) float32 numpy array. ValueError for another shape, no values, or inf."""
    if torch.is_tensor(X):
        X = X.detach().cpu().numpy()
    X = np.asarray(X, dtype=np.float32)
    if X.ndim != 3 or 0 in X.shape:
        raise ValueError(f"X has shape {X.shape}; it must be (N, T, D), none of them 0")
    if np.isinf(X).any():
        raise ValueError("X holds infinite values; use NaN for missing ones")
    return X


class Scale:
    """What `emtc.z_scored` did to the training X (N, T, D), for other series, and back again.

    The z-score of a variate is a straight line, so its two ends tell the whole of it. A variate
    that z_scored found constant has slope 0.
    """

    def __init__(self, X):
        z, seen = (v.cpu().numpy() for v in z_scored(X))

        def ends(values):
            low = np.where(seen, values, np.inf).min((0, 1)).astype(np.float64)
            high = np.where(seen, values, -np.inf).max((0, 1)).astype(np.float64)
            return np.where(low <= high, low, 0), np.where(low <= high, high, 0)  # 0: none observed

        (self.low, high), (self.z_low, z_high) = ends(X), ends(z)  # (D,) each
        span = high - self.low
        self.slope = (z_high - self.z_low) / np.where(span > 0, span, 1)

    def __call__(self, X):
        """X (N, T, D) in the units of the data -> z-scored float32, missing values 0."""
        return np.nan_to_num(self.z_low + self.slope * (X - self.low)).astype(np.float32)

    def undo(self, z):
        """z (N, T, D) -> the units of the data, float32; a constant variate has its value again."""
        slope = np.where(self.slope > 0, self.slope, np.inf)
        return (self.low + (z - self.z_low) / slope).astype(np.float32)


@contextlib.contextmanager
def seeded(seed, device):
    """torch's global RNG starts from `seed` inside the block and is put back as it was after it."""
    device = torch.device(device)
    cuda = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        yield


def pick_device(device):
    """torch.device for "auto" (CUDA if there is one), "cpu", "cuda", ..."""
    if str(device) == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError):
        raise ValueError(
            f"device {device!r} is not to be had here; use auto, cpu or cuda"
        ) from None
    return torch.device(device)


def n_batches(n, batch_size):
    """Number of batches in one epoch over n series, n >= 2."""
    return max(1, min(math.ceil(n / batch_size), n // 2))


def batches(n, batch_size, generator):
    """A shuffled split of range(n), n >= 2, into index tensors of nearly equal size, at least 2.

    Nearly equal, not full ones and a rest: a single series has no negatives and no batch
    statistics, so that of an odd n in pairs one batch has three.
    """
    order = torch.randperm(n, generator=generator)
    return torch.tensor_split(order, n_batches(n, batch_size))


def train(optimizer, parts_of, n, epochs, batch_size, generator, on_epoch=None):
    """The minibatch loop; the learning rate falls to 0 along a cosine, step by step.

    optimizer  a torch optimizer whose learning rate is the highest one
    parts_of   index (B,) int64 on the CPU -> {"loss": 0-d, further 0-d parts}
    n          number of series
    generator  CPU torch.Generator for the order of the series
    on_epoch   called with each epoch's record

    Returns a list with one dict per epoch: epoch (from 1), loss, the parts (means over the
    batches) and seconds.
    """
    steps = max(1, epochs * n_batches(n, batch_size))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    history = []
    for epoch in range(1, epochs + 1):
        start, rows = time.perf_counter(), []
        for index in batches(n, batch_size, generator):
            parts = parts_of(index)
            optimizer.zero_grad()
            parts["loss"].backward()
            optimizer.step()
            schedule.step()
            rows.append({name: float(part.detach()) for name, part in parts.items()})
        means = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
        record = {"epoch": epoch, **means, "seconds": time.perf_counter() - start}
        if not math.isfinite(record["loss"]):
            raise FloatingPointError(f"the loss is {record['loss']} at epoch {epoch}; lower lr")
        history.append(record)
        if on_epoch is not None:
            on_epoch(record)
    return history


class Estimator:
    """fit / transform / fit_predict / predict / evaluate for one network.

    n_clusters  clusters for k-means; None: fit learns the representation only
    epochs      passes over X; 0 gives the untrained network, the control in the tables
    batch_size  series per step
    lr          highest learning rate
    seed        int; decides initial weights, order, masks, dropout and k-means. The caller's
                global random state is left as it was.
    device      "auto" (CUDA if there is one), "cpu" or "cuda"
    on_epoch    called with each epoch's record (a dict), e.g. print

    After fit: net_, embedding_ (N, h) float32, history_ (list of dicts) and, with n_clusters,
    labels_ (N,) int64 and cluster_centers_ (n_clusters, h) float32 on the standardised embedding.
    """

    def __init__(
        self,
        n_clusters=None,
        epochs=60,
        batch_size=32,
        lr=1e-3,
        seed=0,
        device="auto",
        on_epoch=None,
    ):
        check_whole(0, epochs=epochs, seed=seed)
        check_whole(2, batch_size=batch_size)
        if n_clusters is not None:
            check_whole(1, n_clusters=n_clusters)
        self.n_clusters, self.epochs, self.batch_size = n_clusters, epochs, batch_size
        self.lr, self.seed, self.device, self.on_epoch = lr, seed, device, on_epoch

    def build(self, T, D):
        raise NotImplementedError

    def parts(self, net, x, generator):
        raise NotImplementedError

    def embed(self, net, x):
        raise NotImplementedError

    def optimizer(self, net):
        return torch.optim.Adam(net.parameters(), lr=self.lr)

    def fit(self, X, y=None):
        """Learn from X (N, T, D), N >= 2, NaN = missing; returns self. Labels y play no part."""
        X = check_series(X)
        if len(X) < max(2, self.n_clusters or 0):
            raise ValueError(
                f"{len(X)} series for n_clusters={self.n_clusters}; need at least 2 "
                "and at least n_clusters"
            )
        self.device_, self.shape_, self.scale_ = pick_device(self.device), X.shape[1:], Scale(X)
        # Masks and order come from a CPU generator, so that they are the same on every device.
        self.generator_ = torch.Generator().manual_seed(self.seed)
        with seeded(self.seed, self.device_):
            self.net_ = net = self.build(*self.shape_).to(self.device_).train()
            x = torch.from_numpy(self.scale_(X)).to(self.device_)  # (N, T, D)
            self.history_ = train(
                self.optimizer(net),
                lambda index: self.parts(net, x[index.to(x.device)], self.generator_),
                len(x), self.epochs, self.batch_size, self.generator_, self.on_epoch,
            )  # fmt: skip
        self.embedding_ = self.transform(X)
        if not np.isfinite(self.embedding_).all():
            raise FloatingPointError("the network's output is not finite; lower lr")
        if self.n_clusters is not None:
            self._cluster()
        return self

    def _cluster(self):
        mean, std = self.embedding_.mean(0), self.embedding_.std(0)
        self.embed_scale_ = mean, np.where(std > 1e-6, std, 1)  # a dead feature stays at 0
        H = torch.from_numpy(self._standardise(self.embedding_))
        result = kmeans(H, self.n_clusters, seed=self.seed)
        self.labels_ = result.labels.cpu().numpy()
        self.cluster_centers_ = result.centers.cpu().numpy()

    def _standardise(self, H):
        mean, std = self.embed_scale_
        return ((H - mean) / std).astype(np.float32)

    def scaled(self, X):
        """X (N, T, D) with the T and D of fit as a z-scored float32 tensor on the CPU."""
        if not hasattr(self, "net_"):
            raise RuntimeError(f"{type(self).__name__} is not fitted; call fit(X) first")
        X = check_series(X)
        if X.shape[1:] != self.shape_:
            raise ValueError(f"X has (T, D) = {X.shape[1:]}, but fit saw {self.shape_}")
        return torch.from_numpy(self.scale_(X))

    @torch.no_grad()
    def transform(self, X):
        """(N, h) float32 representation of X (N, T, D) with the T and D of fit; eval mode."""
        x = self.scaled(X)
        self.net_.eval()
        parts = [self.embed(self.net_, rows.to(self.device_)) for rows in x.split(64)]
        return torch.cat(parts).float().cpu().numpy()

    @torch.no_grad()
    def evaluate(self, X, seed=0):
        """Means of the parts of the loss on X (N, T, D): eval mode, draws and batches by `seed`."""
        x, generator = self.scaled(X), torch.Generator().manual_seed(seed)
        if len(x) < 2:
            raise ValueError("1 series has no others to be compared with; need at least 2")
        self.net_.eval()
        parts = [
            self.parts(self.net_, x[index].to(self.device_), generator)
            for index in batches(len(x), self.batch_size, generator)
        ]
        return {k: sum(float(part[k]) for part in parts) / len(parts) for k in parts[0]}

    def fit_predict(self, X, y=None):
        """fit(X), then the cluster of each series: (N,) int64 in 0..n_clusters-1."""
        if self.n_clusters is None:
            raise ValueError("n_clusters is None; give the number of clusters")
        return self.fit(X).labels_

    def predict(self, X):
        """Nearest learned centre of each series of X (N, T, D): (N,) int64."""
        if self.n_clusters is None:
            raise ValueError("n_clusters is None; give the number of clusters")
        H = self._standardise(self.transform(X))
        gaps = ((H[:, None] - self.cluster_centers_[None]) ** 2).sum(2)  # (N, n_clusters)
        return gaps.argmin(1).astype(np.int64)
