"""The estimator base that the three related methods share.

A method subclasses `Estimator` and gives three things:

    build(T, D)   -> nn.Module            the network for series of T steps and D variates
    loss(net, x)  -> (loss, {name: part}) one minibatch x (B, T, D); both tensors are 0-d
    embed(net, x) -> (B, h)               what a series is clustered by; eval mode, no gradient

and gets fit / transform / fit_predict / predict, z-scoring, seeds, the minibatch loop and the
history. A method with more than one stage overrides `_train(net, x)` and calls `train` itself.

Convention: X is (N, T, D) float32, NaN = missing. Each variate is z-scored over all its observed
values in the training X; a constant variate becomes 0; then missing values become 0, that is, the
variate's mean. None of the three papers treats missing values: this is our choice.
"""
import argparse
import contextlib
import importlib.util
import math
import numbers
import sys
import time
from pathlib import Path

import numpy as np
import torch

from kmeans import kmeans

ROOT = Path(__file__).resolve().parent.parent
DATA_DIRS = (ROOT / "data", ROOT.parent / "shared" / "data")
IN_AEON = ("ACSF1", "ArrowHead", "GunPoint", "ItalyPowerDemand", "OSULeaf")  # no UEA archive sets


def check_whole(least, **values):
    """ValueError unless each of the values is a whole number of at least `least`."""
    for name, value in values.items():
        if not isinstance(value, numbers.Integral) or value < least:
            raise ValueError(f"{name} {value!r}: need a whole number of at least {least}")


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


class ZScore:
    """Per-variate z-score from the observed values of a training X (N, T, D); NaN becomes 0."""

    def __init__(self, X):
        X = X.astype(np.float64)  # float32 sums lose the variance of data far from zero
        seen = ~np.isnan(X)
        n = np.maximum(seen.sum((0, 1)), 1)  # (D,)
        self.mean = np.where(seen, X, 0).sum((0, 1)) / n
        std = np.sqrt((np.where(seen, X - self.mean, 0) ** 2).sum((0, 1)) / n)
        constant = std <= 1e-10 * np.abs(self.mean)  # float64 rounding of equal values
        self.std = np.where(constant, np.inf, std)  # so that a constant variate becomes 0

    def __call__(self, X):
        return np.nan_to_num((X - self.mean) / self.std, nan=0.0).astype(np.float32)


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
        raise ValueError(f"device {device!r} is not to be had here; use auto, cpu or cuda") from None
    return torch.device(device)


def batches(n, batch_size, generator):
    """A shuffled split of range(n), n >= 2, into index tensors of nearly equal size, at least 2.

    Nearly equal, not full ones and a rest: a single series has no negatives and no batch statistics,
    so that of an odd n in pairs one batch has three.
    """
    order = torch.randperm(n, generator=generator)
    return torch.tensor_split(order, n_batches(n, batch_size))


def n_batches(n, batch_size):
    return max(1, min(math.ceil(n / batch_size), n // 2))


def train(optimizer, loss_fn, n, epochs, batch_size, generator, on_epoch=None):
    """The minibatch loop; the learning rate falls to 0 along a cosine, step by step.

    optimizer  a torch optimizer whose learning rate is the highest one
    loss_fn    index (B,) int64 on the CPU -> (0-d loss, {name: 0-d part})
    n          number of series
    generator  CPU torch.Generator for the order of the series
    on_epoch   called with each epoch's record

    Returns a list with one dict per epoch: epoch (from 1), loss, the parts (means over the
    batches) and seconds.
    """
    steps = max(1, epochs * n_batches(n, batch_size))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    history = []
    for epoch in range(1, epochs + 1):
        start, rows = time.perf_counter(), []
        for index in batches(n, batch_size, generator):
            loss, parts = loss_fn(index)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            rows.append({"loss": float(loss.detach()), **{k: float(v.detach()) for k, v in parts.items()}})
        means = {k: sum(row[k] for row in rows) / len(rows) for k in rows[0]}
        record = {"epoch": epoch, **means, "seconds": time.perf_counter() - start}
        if not math.isfinite(record["loss"]):
            raise FloatingPointError(f"the loss is {record['loss']} at epoch {epoch}; lower lr")
        history.append(record)
        if on_epoch is not None:
            on_epoch(record)
    return history


class Estimator:
    """fit / transform / fit_predict / predict for one network.

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

    def __init__(self, n_clusters=None, epochs=60, batch_size=32, lr=1e-3, seed=0, device="auto",
                 on_epoch=None):
        check_whole(0, epochs=epochs, seed=seed)
        check_whole(2, batch_size=batch_size)
        if n_clusters is not None:
            check_whole(1, n_clusters=n_clusters)
        self.n_clusters, self.epochs, self.batch_size = n_clusters, epochs, batch_size
        self.lr, self.seed, self.device, self.on_epoch = lr, seed, device, on_epoch

    def build(self, T, D):
        raise NotImplementedError

    def loss(self, net, x):
        raise NotImplementedError

    def embed(self, net, x):
        raise NotImplementedError

    def optimizer(self, net):
        return torch.optim.Adam(net.parameters(), lr=self.lr)

    def _train(self, net, x):
        """Train net in place on x (N, T, D), a scaled tensor on the device; returns the history."""
        net.train()
        return train(self.optimizer(net), lambda index: self.loss(net, x[index.to(x.device)]),
                     len(x), self.epochs, self.batch_size, self.generator_, self.on_epoch)

    def fit(self, X):
        """Learn from X (N, T, D), N >= 2, NaN = missing; returns self. Labels play no part."""
        X = check_series(X)
        if len(X) < max(2, self.n_clusters or 0):
            raise ValueError(f"{len(X)} series for n_clusters={self.n_clusters}; need at least 2 "
                             "and at least n_clusters")
        self.device_, self.shape_, self.scale_ = pick_device(self.device), X.shape[1:], ZScore(X)
        # Masks and order come from a CPU generator, so that they are the same on every device.
        self.generator_ = torch.Generator().manual_seed(self.seed)
        with seeded(self.seed, self.device_):
            self.net_ = self.build(*self.shape_).to(self.device_)
            x = torch.from_numpy(self.scale_(X)).to(self.device_)  # (N, T, D)
            self.history_ = self._train(self.net_, x)
        self.embedding_ = self.transform(X)
        if not np.isfinite(self.embedding_).all():
            raise FloatingPointError("the network's output is not finite; lower lr")
        if self.n_clusters is not None:
            self._cluster()
        return self

    def _cluster(self):
        mean, std = self.embedding_.mean(0), self.embedding_.std(0)
        self.embed_scale_ = mean, np.where(std > 1e-6, std, 1)  # a dead feature stays at 0
        result = kmeans(torch.from_numpy(self._standardise(self.embedding_)), self.n_clusters,
                        seed=self.seed)
        self.labels_ = result.labels.cpu().numpy()
        self.cluster_centers_ = result.centers.cpu().numpy()

    def _standardise(self, H):
        mean, std = self.embed_scale_
        return ((H - mean) / std).astype(np.float32)

    def _scaled(self, X):
        if not hasattr(self, "net_"):
            raise RuntimeError(f"{type(self).__name__} is not fitted; call fit(X) first")
        X = check_series(X)
        if X.shape[1:] != self.shape_:
            raise ValueError(f"X has (T, D) = {X.shape[1:]}, but fit saw {self.shape_}")
        return torch.from_numpy(self.scale_(X))

    @torch.no_grad()
    def transform(self, X):
        """(N, h) float32 representation of X (N, T, D) with the T and D of fit; eval mode."""
        x = self._scaled(X)
        self.net_.eval()
        parts = [self.embed(self.net_, x[i:i + 64].to(self.device_)) for i in range(0, len(x), 64)]
        return torch.cat(parts).float().cpu().numpy()

    @torch.no_grad()
    def _mean_parts(self, X, seed, parts_fn):
        """Mean over shuffled batches of parts_fn(net, x, generator), a dict; eval mode."""
        x, generator = self._scaled(X), torch.Generator().manual_seed(seed)
        if len(x) < 2:
            raise ValueError("1 series has no others to be compared with; need at least 2")
        self.net_.eval()
        parts = [parts_fn(self.net_, x[index].to(self.device_), generator)
                 for index in batches(len(x), self.batch_size, generator)]
        return {k: sum(float(part[k]) for part in parts) / len(parts) for k in parts[0]}

    def fit_predict(self, X):
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


def data_dirs():
    """The project's folders and, if aeon is installed, its bundled data (found, not imported)."""
    aeon = importlib.util.find_spec("aeon")
    roots = aeon.submodule_search_locations or () if aeon else ()
    return [*DATA_DIRS, *(Path(root) / "datasets" / "data" for root in roots)]


def find(name, split, folders=None):
    """The uea_loader.Dataset from the first of `folders` (None: `data_dirs`) that has `name`.

    If none has it, uea_loader looks in its own places (and downloads what the archive offers).
    """
    from uea_loader import DataError, load
    folders = [Path(folder) for folder in folders or data_dirs()]
    for folder in folders:
        if (folder / name).is_dir():
            return load(name, split=split, data_dir=folder)
    if name in IN_AEON:
        raise DataError(f"{name} is in none of {', '.join(map(str, folders))}: `pip install --no-deps "
                        "aeon` brings it, or give --data-dir")
    return load(name, split=split)


def load_splits(name, folders=None):
    """(train, test) Datasets of `name` with one T, both with labels; `folders` as in `find`."""
    from uea_loader import DataError
    both, n = find(name, "all", folders), len(find(name, "train", folders).X)
    if both.y is None:
        raise DataError(f"{name} has no labels to score against")
    return [both._replace(X=both.X[part], y=both.y[part]) for part in (slice(n), slice(n, None))]


def parser(description):
    """The options that the three scripts share."""
    p = argparse.ArgumentParser(description=description)
    p.add_argument("--data", default="BasicMotions", help="name of a data set")
    p.add_argument("--split", default="test", choices=("train", "test", "all"))
    p.add_argument("--data-dir", nargs="+", help="folders to look in, e.g. .../aeon/datasets/data")
    p.add_argument("--epochs", type=int, help="passes over the data; 0: untrained network")
    p.add_argument("--batch-size", type=int, help="series per step")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", default="auto", help="auto, cpu or cuda")
    return p


def run(method, args, **settings):
    """Load, fit, score against the labels, print: what `python related/simmtm.py` does."""
    from metrics import scores
    settings |= {k: v for k, v in (("epochs", args.epochs), ("batch_size", args.batch_size))
                 if v is not None}
    try:
        data = find(args.data, args.split, args.data_dir)
        if data.y is None:
            raise ValueError(f"{args.data} has no labels to score against")
        model = method(len(data.classes), seed=args.seed, device=args.device, on_epoch=show,
                       **settings)
        print(f"{data.name} {args.split}: N, T, D = {data.X.shape}, {len(data.classes)} classes")
        start = time.perf_counter()
        found = scores(data.y, model.fit_predict(data.X))
    except (ValueError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    print("  ".join(f"{k} {v:.3f}" for k, v in found.items()),
          f" ({time.perf_counter() - start:.1f} s, seed {args.seed}, last epoch)")


def show(record):
    """Print every tenth epoch's record on one line."""
    if record["epoch"] == 1 or record["epoch"] % 10 == 0:
        print("  ".join(f"{k} {v:.4g}" for k, v in record.items()))
