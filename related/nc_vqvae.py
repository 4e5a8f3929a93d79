"""NC-VQVAE: codes for time series that also know what a series is like as a whole.

A VQVAE turns a series into a few indices of a codebook and back; it learns shapes. NC-VQVAE adds a
second, augmented view of the series and a loss without negatives (Barlow Twins, VIbCReg) that
wants both views' codes alike: then the codes also carry what survives the augmentation. A MaskGIT
prior (`maskgit.py`) learns which codes go together and draws new series.

Source: "Blending Low and High-Level Semantics of Time Series for Better Masked Time Series
Generation" (arXiv 2408.16613). Its full text was not at hand: layers and settings follow what is
known of its published code. Equations have our numbers: (N1) to (N5), augmentations and losses
between the views, are in `second_view.py`, (N6) to (N8) here. Each line where seed and code part,
or where we leave them, says NOTE(paper).

    python train.py --data BasicMotions --method nc-vqvae       # the first stage, as a clustering
    python experiments/nc_vqvae.py                              # both stages, scores, pictures

Convention: x (B, T, D). u = STFT(x) has real and imaginary parts as channels, (B, 2D, 5, W) with
W = T // 2 + 1; z (B, d, 5, W') is the encoder's output, n = 5 W' tokens a series, K codes of d.
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from related import maskgit
from related.common import Estimator, check_choice, check_whole, seeded
from related.second_view import AUGMENT, SSL, iter_norm

N_FFT, HOP = 8, 2  # 5 frequencies, one frame for two steps


# ---- time-frequency -----------------------------------------------------------------------------


def stft(x):
    """Short-time Fourier transform: x (B, T, D), T >= 5 -> u (B, 2D, 5, T // 2 + 1)."""
    B, T, D = x.shape
    window = torch.hann_window(N_FFT, device=x.device)
    rows = x.transpose(1, 2).reshape(B * D, T)
    u = torch.view_as_real(torch.stft(rows, N_FFT, HOP, window=window, return_complex=True))
    return u.unflatten(0, (B, D)).movedim(-1, 2).flatten(1, 2)  # (BD, 5, W, 2) -> (B, 2D, 5, W)


def istft(u, T):
    """The inverse of stft: u (B, 2D, 5, W) -> x (B, T, D)."""
    B, window = len(u), torch.hann_window(N_FFT, device=u.device)
    rows = u.unflatten(1, (-1, 2)).flatten(0, 1).movedim(1, -1).contiguous()  # (BD, 5, W, 2)
    x = torch.istft(torch.view_as_complex(rows), N_FFT, HOP, window=window, length=T)  # (BD, T)
    return x.unflatten(0, (B, -1)).transpose(1, 2)


# ---- network ------------------------------------------------------------------------------------


def half(n_in, n_out):
    """Convolution that halves the number of frames and keeps the frequencies."""
    return nn.Conv2d(n_in, n_out, (3, 4), (1, 2), (1, 1), padding_mode="replicate")


def double(n_in, n_out):
    return nn.ConvTranspose2d(n_in, n_out, (3, 4), (1, 2), (1, 1))


def act(d):
    return nn.Sequential(nn.BatchNorm2d(d), nn.LeakyReLU())


class ResBlock(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.body = nn.Sequential(
            nn.LeakyReLU(), nn.Conv2d(d, d, 3, padding=1), act(d), nn.Conv2d(d, d, 1)
        )

    def forward(self, z):
        return z + self.body(z)


class Quantiser(nn.Module):
    """Nearest code, straight-through gradient, codebook by exponential moving averages."""

    def __init__(self, K, d, decay=0.9):
        super().__init__()
        self.decay = decay
        codes = torch.randn(K, d)
        self.register_buffer("codes", codes)
        # NOTE(paper): counts that start at 0 (as in the library that the published code uses) throw
        # a code that no vector chose at the first step 1e5 times as far out. At 1 it stays near.
        self.register_buffer("count", torch.ones(K))
        self.register_buffer("total", codes.clone())

    def distances(self, z):
        """Squared distance of each position to each code: z (B, d, 5, W') -> (B, n, K)."""
        v = z.flatten(2).transpose(1, 2)  # (B, n, d)
        return (v**2).sum(-1, keepdim=True) - 2 * v @ self.codes.T + (self.codes**2).sum(-1)

    def look_up(self, tokens, shape):
        """Codes of tokens (B, n) in the shape of z, (B, d, 5, W')."""
        return self.codes[tokens].transpose(1, 2).reshape(shape)

    def forward(self, z):
        """z (B, d, 5, W') -> (z_q of its shape, commitment loss); in train mode moves the codes."""
        tokens = self.distances(z).argmin(-1)  # (B, n)
        e = self.look_up(tokens, z.shape)  # before the codes move
        if self.training:
            self.move(z.detach(), tokens)
        return z + (e - z).detach(), functional.mse_loss(z, e)

    @torch.no_grad()
    def move(self, z, tokens):
        """n_k <- .9 n_k + .1 count, m_k <- .9 m_k + .1 sum z, e_k = m_k / n_k.  # Eq. (N6)"""
        hot = functional.one_hot(tokens.flatten(), len(self.codes)).to(z.dtype)  # (B n, K)
        v = z.flatten(2).transpose(1, 2).flatten(0, 1)  # (B n, d)
        self.count.lerp_(hot.sum(0), 1 - self.decay)
        self.total.lerp_(hot.T @ v, 1 - self.decay)
        mass, eps = self.count.sum(), 1e-5
        smooth = (self.count + eps) / (mass + len(self.codes) * eps) * mass  # n_k, never 0
        self.codes.copy_(self.total / smooth[:, None])


class Net(nn.Module):
    """Encoder, quantiser, decoder and, with SSL, the projector."""

    def __init__(self, T, D, dim, n_codes, n_res, width):
        super().__init__()
        n_down = max(1, int(math.log2(max(1, round(T / 16)))))  # about 8 to 16 frames are left
        sizes = [2 * D] + [dim] * n_down
        down = [layer for n in sizes[:-1] for layer in (half(n, dim), act(dim))]
        res = [layer for _ in range(n_res) for layer in (ResBlock(dim), nn.BatchNorm2d(dim))]
        up = [layer for _ in range(n_down - 1) for layer in (double(dim, dim), act(dim))]
        self.encoder = nn.Sequential(*down, *res)
        self.quantiser = Quantiser(n_codes, dim)
        self.decoder = nn.Sequential(
            *[ResBlock(dim) for _ in range(n_res)], *up, double(dim, 2 * D), double(2 * D, 2 * D)
        )
        self.projector = None
        if width:
            layers = []
            for n in (2 * dim, width):
                layers += [nn.Linear(n, width), nn.BatchNorm1d(width), nn.ReLU()]
            self.projector = nn.Sequential(*layers, nn.Linear(width, width))

    def decode(self, z, T):
        """z (B, d, 5, W') -> (xhat (B, T, D), uhat (B, 2D, 5, T // 2 + 1))."""
        size = (N_FFT // 2 + 1, T // HOP + 1)
        uhat = functional.interpolate(self.decoder(z), size, mode="bilinear")
        return istft(uhat, T), uhat

    def project(self, z):
        """z (B, d, 5, W') -> (B, width)."""
        return self.projector(torch.cat([z.mean((2, 3)), z.amax((2, 3))], dim=1))  # (B, 2d) in


# ---- estimator ----------------------------------------------------------------------------------


class NCVQVAE(Estimator):
    """Two stages: `fit` learns the codes, `fit_prior` what to write with them; `generate` writes.

    n_clusters, epochs, batch_size, lr, seed, device, on_epoch: see `common.Estimator`
    ssl       "barlow", "vibcreg", "vicreg", or "none" for the plain VQVAE
    augment   the second view: "slice" (slice and shuffle), "warp" (amplitude resize and window
              warp), "gauss", or "none" for the series itself
    readout   what transform pools over time and frequency: "codes" (z_q) or "continuous" (z)
    dim       channels, and length of a code;  n_codes  K;  n_res  residual blocks each way
    projector_width  P, length of the projections y that the SSL loss compares
    aug_weight   weight of the second view's reconstruction; None: .1 with an SSL loss, 0 without
                 (then there is no second view at all)
    ssl_weights  (w, lambda) for Barlow Twins, (w, invariance, variance, covariance) for the other
                 two, w being the weight of the loss; None: as in `second_view.SSL`

    history_ has: loss, rec and rec_aug (squared errors of the series and of its spectrogram, first
    and augmented view), vq (commitment), ssl (the SSL loss before its weight).

    NOTE(paper): the published code has 1000 epochs in batches of 128, dim 64, n_res 4, projector
    4096 and a prior of 4 layers of 256; all smaller here, for a CPU.
    """

    def __init__(
        self,
        n_clusters=None,
        epochs=100,
        batch_size=32,
        lr=1e-3,
        seed=0,
        device="auto",
        on_epoch=None,
        ssl="barlow",
        augment="slice",
        readout="codes",
        dim=32,
        n_codes=32,
        n_res=2,
        projector_width=256,
        aug_weight=None,
        ssl_weights=None,
    ):
        super().__init__(n_clusters, epochs, batch_size, lr, seed, device, on_epoch)
        check_choice((*SSL, "none"), ssl=ssl)
        check_choice(tuple(AUGMENT), augment=augment)
        check_choice(("codes", "continuous"), readout=readout)
        check_whole(1, dim=dim, n_codes=n_codes, n_res=n_res, projector_width=projector_width)
        own = SSL[ssl][1] if ssl != "none" else ()
        if ssl_weights is not None and len(ssl_weights) != len(own):
            raise ValueError(
                f"ssl_weights {ssl_weights}: need {len(own)} for ssl {ssl!r}, as {own}"
            )
        self.ssl, self.augment, self.readout = ssl, augment, readout
        self.dim, self.n_codes, self.n_res = dim, n_codes, n_res
        self.projector_width = projector_width
        self.aug_weight, self.ssl_weights = aug_weight, ssl_weights

    def build(self, T, D):
        if T < 5:
            raise ValueError(f"series of {T} steps; NC-VQVAE's transform needs at least 5")
        width = 0 if self.ssl == "none" else self.projector_width
        return Net(T, D, self.dim, self.n_codes, self.n_res, width)

    def fit(self, X, y=None):
        """Stage 1 on X (N, T, D), see `common.Estimator.fit`; a prior of older codes is dropped."""
        vars(self).pop("prior_", None)
        return super().fit(X)

    def optimizer(self, net):
        return torch.optim.AdamW(net.parameters(), lr=self.lr, weight_decay=1e-3)

    def parts(self, net, x, generator):
        """Reconstruction + commitment + .1 second view's reconstruction + w SSL.  # Eq. (N7)"""

        def reconstruction(z, x, u):
            xhat, uhat = net.decode(z, x.shape[1])
            return functional.mse_loss(xhat, x) + functional.mse_loss(uhat, u)

        u = stft(x)
        z_q, commitment = net.quantiser(net.encoder(u))
        parts = {"rec": reconstruction(z_q, x, u), "vq": commitment}
        loss = parts["rec"] + parts["vq"]
        aug_weight = self.aug_weight
        if aug_weight is None:
            aug_weight = 0 if self.ssl == "none" else 0.1
        if self.ssl != "none" or aug_weight:
            xa = AUGMENT[self.augment](x, generator)
            ua = stft(xa)
            za = net.encoder(ua)  # NOTE(paper): not quantised, as in the code
        if self.ssl != "none":
            y, ya = net.project(z_q), net.project(za)
            if self.ssl == "vibcreg":
                y, ya = iter_norm(y), iter_norm(ya)
        if aug_weight:
            parts["rec_aug"] = reconstruction(za, xa, ua)
            loss = loss + aug_weight * parts["rec_aug"]
        if self.ssl != "none":
            ssl, weights = SSL[self.ssl]
            weight, *terms = weights if self.ssl_weights is None else self.ssl_weights
            parts["ssl"] = ssl(y, ya, *terms)
            loss = loss + weight * parts["ssl"]
        return {"loss": loss, **parts}

    @torch.no_grad()
    def encode(self, X):
        """The codes of X (N, T, D): indices (N, n) int64 on the device; eval mode."""
        self.net_.eval()
        rows = self.scaled(X).split(64)
        parts = [self.net_.quantiser.distances(self.net_.encoder(stft(x.to(self.device_))))
                 for x in rows]  # fmt: skip
        return torch.cat(parts).argmin(-1)

    @torch.no_grad()
    def decode(self, tokens):
        """The series that codes (N, n) stand for: (N, T, D) float32 in the units of the data."""
        self.net_.eval()
        out = []
        for rows in tokens.split(256):
            z = self.net_.quantiser.look_up(rows, (len(rows), self.dim, N_FFT // 2 + 1, -1))
            out.append(self.net_.decode(z, self.shape_[0])[0].cpu().numpy())
        return self.scale_.undo(np.concatenate(out))

    def embed(self, net, x):
        # NOTE(paper): the published probe reads the codes in train mode: batch statistics and
        # codebook then move with the test data. Eval mode here (Estimator.transform).
        z = net.encoder(stft(x))
        z = net.quantiser(z)[0] if self.readout == "codes" else z
        return z.mean((2, 3))  # (B, d)

    def fit_prior(
        self,
        X,
        y=None,
        epochs=300,
        batch_size=32,
        lr=1e-3,
        dim=64,
        n_layers=3,
        codes="frozen",
    ):
        """Learn the prior over the codes of X (N, T, D); returns self.

        y: (N,) labels, numbers or strings, for generation by class; None: unconditional only.
        dim: the transformer's channels, even; n_layers: its blocks; codes: what it reads tokens by,
        "frozen" stage-1 codes, "tuned" from there, or "random" at first (see `maskgit.Prior`).
        """
        check_whole(0, epochs=epochs)
        check_whole(2, batch_size=batch_size, dim=dim)
        check_whole(1, n_layers=n_layers)
        check_choice(maskgit.CODES, codes=codes)
        if dim % 2:
            raise ValueError(f"dim {dim}: need an even number, one half for each of two heads")
        x = self.scaled(X)
        classes, index = ([], np.zeros(len(x))) if y is None else np.unique(y, return_inverse=True)
        if np.shape(index) != (len(x),):
            raise ValueError(
                f"labels of shape {np.shape(y)} for {len(x)} series; need one for each"
            )
        self.net_.eval()
        with torch.no_grad():
            z = torch.cat([self.net_.encoder(stft(b.to(self.device_))) for b in x.split(64)])
            # Stochastic quantisation: softmax(-squared distance), so that near codes share a place.
            token_logits = -self.net_.quantiser.distances(z)  # Eq. (N8), (N, n, K)
        generator = torch.Generator().manual_seed(self.seed)
        with seeded(self.seed, self.device_):
            prior = maskgit.Prior(
                self.net_.quantiser.codes,
                token_logits.shape[1],
                len(classes),
                dim,
                n_layers,
                codes=codes,
            ).to(self.device_)
            labels = torch.as_tensor(index, dtype=torch.int64, device=self.device_)
            self.prior_history_ = maskgit.fit_prior(
                prior, token_logits, labels, epochs, batch_size, lr, generator, self.on_epoch
            )
        self.prior_, self.classes_ = prior, list(classes)
        return self

    @torch.no_grad()
    def generate(self, n, y=None, steps=10, guidance=1.0, seed=None):
        """n new series (n, T, D) float32 in the units of the data.

        y: None, one label for all, or (n,) labels that fit_prior saw; steps: rounds of decoding;
        guidance: see maskgit.decode; seed: int, by default the model's (same seed, same series).
        """
        if not hasattr(self, "prior_"):
            raise RuntimeError("there is no prior yet; call fit(X), then fit_prior(X)")
        check_whole(1, n=n, steps=steps)
        index = [len(self.classes_)] * n if y is None else self._class_index(n, y)
        generator = torch.Generator().manual_seed(self.seed if seed is None else seed)
        tokens = [
            maskgit.decode(self.prior_, labels, generator, steps, guidance=guidance)
            for labels in torch.tensor(index, device=self.device_).split(256)
        ]
        return self.decode(torch.cat(tokens))

    def _class_index(self, n, y):
        y = [y] * n if np.ndim(y) == 0 else list(y)
        unknown = sorted({str(label) for label in y if label not in self.classes_})
        if unknown or len(y) != n:
            raise ValueError(
                f"{len(y)} labels, unknown among them: {unknown or 'none'}; need {n} "
                f"out of {[str(c) for c in self.classes_]}"
            )
        return [self.classes_.index(label) for label in y]
