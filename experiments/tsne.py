"""Exact t-SNE in torch, for a few thousand points: memory and time grow with N^2.

van der Maaten and Hinton 2008, "Visualizing Data using t-SNE", JMLR 9: conditional Gaussians of one
perplexity (their Eq. 1), symmetrised (Section 3.1), a Student t kernel in the plane (Eq. 4), gradient (Eq. 5),
momentum, gains and early exaggeration (Sections 3.3, 3.4).

    Y = tsne(X, perplexity=15, seed=0)                    # X (N, d) -> Y (N, 2)
"""

import torch


def squared_distances(X):
    """(N, N) squared Euclidean distances of X (N, d), zero on the diagonal, never negative."""
    X = X - X.mean(0)                                     # far from the origin the product below would cancel
    norm = (X * X).sum(1)                                 # (N,)
    D = (norm[:, None] + norm[None, :] - 2 * X @ X.T).clamp_min(0)  # (N, N)
    return D.fill_diagonal_(0)


def conditionals(D, perplexity, steps=64):
    """p_{j|i} (N, N), rows sum to 1, of squared distances D (N, N): each row has the given perplexity.

    The precision of each row's Gaussian is found by bisection on its logarithm, all rows at once.
    """
    n = len(D)
    off = ~torch.eye(n, dtype=torch.bool, device=D.device)
    # scale-free: the search starts around one over the row's mean squared distance
    unit = (D.sum(1) / (n - 1)).clamp_min(torch.finfo(D.dtype).tiny)
    D = D / unit[:, None]
    low, high = D.new_full((n, 1), -30.0), D.new_full((n, 1), 40.0)
    for _ in range(steps):
        middle = (low + high) / 2                         # (N, 1)
        P = torch.softmax((-D * middle.exp()).masked_fill(~off, -torch.inf), 1)  # (N, N)
        entropy = torch.special.entr(P).sum(1, keepdim=True)                     # (N, 1), nats
        wide = entropy > torch.log(D.new_tensor(perplexity))
        low, high = torch.where(wide, middle, low), torch.where(wide, high, middle)
    return P


def principal_plane(X):
    """First two principal components (N, 2) of X (N, d), each column's sign fixed; zeros beyond the rank."""
    X = X - X.mean(0)
    U, S, _ = torch.linalg.svd(X, full_matrices=False)
    Y = torch.zeros(len(X), 2, dtype=X.dtype, device=X.device)
    k = min(2, len(S))
    Y[:, :k] = U[:, :k] * S[:k]                           # (N, k)
    sign = torch.sign(Y.gather(0, Y.abs().argmax(0, keepdim=True)))  # (1, 2)
    return Y * torch.where(sign == 0, 1.0, sign)


def tsne(X, perplexity=30.0, steps=750, exaggeration=12.0, exaggerate_for=250, rate=None, seed=0):
    """Place X (N, d), array or tensor without NaN, in the plane; returns (N, 2) float64 on X's device.

    perplexity: in [1, N - 1); callers of small sets want less than N / 3. rate: step size, by default
    max(N / exaggeration / 4, 50). seed: int, for the small jitter of the start, which is otherwise PCA, so that
    far groups keep their places (van der Maaten and Hinton start from noise).
    """
    X = torch.as_tensor(X).to(torch.float64)
    n = len(X)
    if X.dim() != 2 or not torch.isfinite(X).all():
        raise ValueError(f"X is {tuple(X.shape)}; it must be (N, d) with finite values")
    if not 1 <= perplexity < n - 1:
        raise ValueError(f"perplexity is {perplexity}; with {n} points it must be at least 1 and below {n - 1}")
    P = conditionals(squared_distances(X), perplexity)
    P = ((P + P.T) / (2 * n)).clamp_min(1e-12)            # (N, N), sums to 1
    Y = principal_plane(X)
    generator = torch.Generator().manual_seed(seed)
    jitter = torch.randn(n, 2, generator=generator, dtype=Y.dtype).to(Y.device)
    Y = 1e-4 * (Y / Y.std().clamp_min(1e-12) + 1e-2 * jitter)
    rate = max(n / exaggeration / 4, 50.0) if rate is None else rate
    velocity, gains = torch.zeros_like(Y), torch.ones_like(Y)
    for step in range(steps):
        early = step < exaggerate_for
        kernel = 1 / (1 + squared_distances(Y))           # (N, N), Student t with one degree of freedom
        kernel.fill_diagonal_(0)
        Q = (kernel / kernel.sum()).clamp_min(1e-12)
        force = ((exaggeration if early else 1.0) * P - Q) * kernel                # (N, N)
        gradient = 4 * (force.sum(1, keepdim=True) * Y - force @ Y)                # (N, 2)
        gains = torch.where(gradient * velocity < 0, gains + 0.2, gains * 0.8).clamp_min(0.01)
        velocity = (0.5 if early else 0.8) * velocity - rate * gains * gradient
        Y = Y + velocity
        Y = Y - Y.mean(0)
    return Y
