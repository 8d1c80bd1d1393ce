"""The Gaussianized latent space V (Wulff & Torralba): which latents are likely, and a remedy for the others.

A mapping network ends in a leaky ReLU. With that undone, v = LeakyReLU_5(w) is nearly Gaussian, so that a mean and a
covariance describe it: a prior for projection (Eq. 2 and 4), principal axes, and a compression of the tails that
removes artifacts at less cost in diversity than truncation (Eq. 6).
"""
# Shapes: N batch, W length of w, C length of a label, M number of labels, L number of ws.

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from styleforge.files import atomic_path
from styleforge.latents.statistics import moments, sample_w
from styleforge.networks import Generator
from styleforge.ops.bias_act import LRELU_SLOPE

FORMAT = "styleforge gaussian latents 1"
EIGENVALUE_FLOOR = 1e-8
"""Variances count in the energy as at least this share of the largest: a direction in which the mapping network never
moves costs much, but not infinitely much, and rounding errors of float32 cost nothing."""


def activation_slope(G: Generator) -> float:
    """Negative slope of the mapping network's last activation; 1 for a network without layers, whose V is W."""
    return LRELU_SLOPE if G.config.mapping_layers else 1.0


def compress_tails(x: Tensor, threshold: Tensor | float) -> Tensor:
    """Logarithmic beyond a threshold, unchanged within; once continuously differentiable (Eq. 6).

    Args:
        x: Any shape, float.
        threshold: Above 0; the paper's tau · sigma.
    """
    ratio = (x.abs() / threshold).clamp(min=1)
    return x * ((ratio.log() + 1) / ratio)  # x / ratio is the threshold, with the sign of x


@dataclass(kw_only=True, eq=False)
class GaussianLatents:
    """The distribution of v = LeakyReLU_5(w) as a Gaussian: `fit` measures it, everything else uses it.

    The statistics lie on the CPU. Methods take latents on any device and compute in float64 where the device has it,
    since the variances of V span many orders of magnitude.
    """

    mean: Tensor
    """[W] float64."""
    covariance: Tensor
    """[W, W] float64, unbiased."""
    slope: float = LRELU_SLOPE
    """Negative slope of the mapping network's last activation."""
    num_samples: int
    """How many samples were measured."""
    mapping_sha256: str
    """Whose: `mapping_sha256` of the network."""
    _placed: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def fit(
        cls,
        G: Generator,
        num_samples: int = 100_000,
        seed: int = 0,
        *,
        c: Tensor | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Self:
        """Measures the mean and the covariance of V, in memory that does not grow with the number of samples.

        Args:
            G: The generator; work is done on its device.
            num_samples: How many samples; more than w is long.
            seed: Of the samples; the same seed gives the same fit.
            c: One label [C] for all, or labels [M, C] to draw from; None draws from all classes of a conditional
                network.
            progress: Called with (done, total) samples.

        Raises:
            ValueError: Too few samples, labels that the network cannot take, or a mapping network whose w do not
                vary or are not finite.
        """
        if num_samples <= G.w_dim:
            raise ValueError(
                f"num_samples: got {num_samples}, expected more than the {G.w_dim} dimensions of w, since the "
                "covariance is singular otherwise; take 100000"
            )
        slope = activation_slope(G)

        def chunks_of_v() -> Iterator[Tensor]:
            done = 0
            for w in sample_w(G, num_samples, seed, c=c):
                yield F.leaky_relu(w, 1 / slope)  # [n, W]
                done += len(w)
                if progress is not None:
                    progress(done, num_samples)

        mean, covariance = moments(chunks_of_v())
        if not (covariance.isfinite().all() and covariance.trace() > 0):
            raise ValueError(
                "G: got a mapping network whose w are not finite or all the same, expected w that vary with z; "
                "take an earlier snapshot"
            )
        return cls(
            mean=mean, covariance=covariance, slope=slope, num_samples=num_samples, mapping_sha256=mapping_sha256(G)
        )

    @classmethod
    def fit_cached(
        cls,
        G: Generator,
        num_samples: int = 100_000,
        seed: int = 0,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> Self:
        """`fit`, kept in the cache folder (see `styleforge.downloads.cache_dir`) for the next time.

        It is found by the weights of the mapping network, wherever the checkpoint lies and whatever it is called.
        """
        from styleforge.downloads import cache_dir

        path = cache_dir() / "gaussian" / f"{mapping_sha256(G)[:32]}-{num_samples}-seed{seed}.safetensors"
        with contextlib.suppress(OSError, ValueError):  # not there yet, or damaged: made anew
            return cls.load(path, G)
        gaussian = cls.fit(G, num_samples, seed, progress=progress)
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not the result
            gaussian.save(path)
        return gaussian

    def w_to_v(self, w: Tensor) -> Tensor:
        """Undoes the mapping network's last activation: v = LeakyReLU_5(w), of any shape.

        The gain sqrt(2) that follows the activation in StyleGAN2 stays in v: it is only a scale.
        """
        return F.leaky_relu(w, 1 / self.slope)

    def v_to_w(self, v: Tensor) -> Tensor:
        """Inverse of `w_to_v`, to the last rounding: w = LeakyReLU_0.2(v)."""
        return F.leaky_relu(v, self.slope)

    def energy(self, ws: Tensor) -> Tensor:
        """How unlikely latents are: (v - mean)ᵀ covariance⁻¹ (v - mean), Eq. 2; summed over layers, Eq. 4.

        The network's own w have W each, on average. Differentiable; small variances count as `EIGENVALUE_FLOOR` has it.

        Args:
            ws: [N, W] or [N, L, W].

        Returns:
            [N], in the float type of ``ws``.

        Raises:
            ValueError: Another shape.
        """
        mean, eigenvalues, axes = self._statistics_for(ws)
        components = (self.w_to_v(ws.to(mean.dtype)) - mean) @ axes  # [N, W] or [N, L, W]
        variances = eigenvalues.clamp(min=EIGENVALUE_FLOOR * eigenvalues[0])
        return (components.square() / variances).flatten(1).sum(1).to(ws.dtype)

    def principal_axes(self) -> tuple[Tensor, Tensor]:
        """Principal components of V.

        Returns:
            The variances along the axes [W], falling, and the axes [W, W] in columns, float64. An axis points to
            where its largest entry is positive.
        """
        return self._principal_axes

    @functools.cached_property
    def _principal_axes(self) -> tuple[Tensor, Tensor]:
        return falling_eigen(self.covariance)

    def compress(self, ws: Tensor, tau: float) -> Tensor:
        """Draws components of V with a large magnitude towards the mean, and leaves the others (Eq. 6).

        Args:
            ws: [N, W], [N, L, W], or more dimensions before the last.
            tau: Components beyond tau times the largest standard deviation are compressed; infinity leaves all.

        Returns:
            The shape and float type of ``ws``. Latents with nothing to compress come back bit for bit, if the device
            has float64.

        Raises:
            ValueError: tau is not above 0, or latents of another network.
        """
        if not tau > 0:
            raise ValueError(
                f"tau: got {tau}, expected a number above 0, such as 1.5; leave compression out to have none "
                "(--compress)"
            )
        mean, eigenvalues, axes = self._statistics_for(ws)
        v = self.w_to_v(ws.to(mean.dtype))
        components = (v - mean) @ axes
        change = compress_tails(components, tau * eigenvalues[0].sqrt()) - components
        return self.v_to_w(v + change @ axes.T).to(ws.dtype)

    def _statistics_for(self, ws: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, variances along the axes, and the axes, on the device of ws."""
        if ws.ndim < 2 or ws.shape[-1:] != self.mean.shape:
            W = len(self.mean)
            raise ValueError(
                f"ws: got shape {list(ws.shape)}, expected [N, {W}] or [N, L, {W}]; use the network that the Gaussian "
                "was fitted to"
            )
        if ws.device not in self._placed:
            dtype = torch.float32 if ws.device.type == "mps" else torch.float64
            eigenvalues, axes = self._principal_axes
            self._placed[ws.device] = (
                self.mean.to(ws.device, dtype),
                eigenvalues.to(ws.device, dtype),
                axes.to(ws.device, dtype),
            )
        return self._placed[ws.device]

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file, atomically; nothing in it can execute code.

        Raises:
            OSError: It cannot be written; an older one of the same name stays as it was.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        tensors = {"mean": self.mean, "covariance": self.covariance}
        header = json.dumps(
            {"slope": self.slope, "num_samples": self.num_samples, "mapping_sha256": self.mapping_sha256}
        )
        metadata = {"format": FORMAT, "header": header, "sha256": sha256_of(header, tensors)}
        try:
            with atomic_path(path) as temporary:
                save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as error:  # wraps what the system says
            raise OSError(f"{path}: could not be written ({error}); is the disk full?") from error

    @classmethod
    def load(cls, path: str | Path, G: Generator) -> Self:
        """Reads what `save` wrote.

        Args:
            path: The file.
            G: The generator that it was fitted to.

        Raises:
            ValueError: The file is damaged, of another kind, or was fitted to another network.
            OSError: There is no such file, or it cannot be read.
        """
        from safetensors import SafetensorError, safe_open

        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: there is no such file, expected one written by GaussianLatents.save")
        metadata: dict[str, str] = {}
        tensors: dict[str, Tensor] = {}
        with contextlib.suppress(SafetensorError), safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") == FORMAT:
                tensors = {name: file.get_tensor(name) for name in ("mean", "covariance")}
        header = metadata.get("header", "")
        if not tensors or metadata.get("sha256") != sha256_of(header, tensors):
            raise ValueError(
                f"{path}: got a file that is damaged or of another kind, expected one written by "
                "GaussianLatents.save; fit it again"
            )
        gaussian = cls(mean=tensors["mean"], covariance=tensors["covariance"], **json.loads(header))
        if gaussian.mapping_sha256 != mapping_sha256(G):
            raise ValueError(
                f"{path}: got the latents of another network, expected those of the mapping network at hand; use the "
                "network that they were fitted to, or fit them again"
            )
        return gaussian


def falling_eigen(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [W] of a covariance, falling, and eigenvectors [W, W] in columns, whose largest entry is positive."""
    values, axes = torch.linalg.eigh(matrix)
    values, axes = values.flip(0).clamp(min=0), axes.flip(1)  # rounding makes zeros negative
    return values, axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()


def mapping_sha256(G: Generator) -> str:
    """SHA-256 of all that w depends on: the mapping network's weights and config, not its running mean of w."""
    sizes = ["z_dim", "w_dim", "c_dim", "mapping_layers", "mapping_features"]
    arithmetic = ["label_mode", "mapping_lr_multiplier", "convention"]
    config = json.dumps({name: getattr(G.config, name) for name in sizes + arithmetic})
    return sha256_of(config, dict(G.mapping.named_parameters()))


def sha256_of(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over a text, and the name, type, shape and bytes of every tensor."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
