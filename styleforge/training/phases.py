"""Training phases as data: what is optimized, how often, and by which loss (Karras et al. 2020, Appendix B)."""
# Shapes: N batch, C image channels or length of a label, H W image size, L number of ws.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from styleforge import dist
from styleforge.losses import discriminator_loss, generator_loss, path_length_penalty, path_lengths, r1_penalty
from styleforge.networks import Discriminator, Generator
from styleforge.training.config import TrainConfig
from styleforge.training.draws import Draws, mix_styles

Report = Callable[[str, Tensor], None]


@dataclass(kw_only=True, slots=True)
class Batch:
    """What a phase sees at a time."""

    real: Tensor
    """Real images [N, C, H, W], faded to the level of detail."""
    c: Tensor | None
    """Labels [N, C] of the real images, which the generated ones take too; None without labels."""
    draws: Draws
    """Random numbers of the generated images."""
    lod: float
    """Level of detail."""


@dataclass(kw_only=True, slots=True)
class Phase:
    """One optimizer step with its own loss."""

    name: str
    """Gmain, Greg, Dmain, Dreg, or Dboth where R1 is not lazy."""
    network: Literal["G", "D"]
    """Which network learns."""
    interval: int
    """The phase runs every so many steps; a lazy regulariser's loss is multiplied by it."""
    loss: Callable[[Batch, Report], Tensor]
    """The loss [N] of each sample."""
    shrink: int = 1
    """The batch is smaller by this factor."""
    draws_images: bool = False
    """Whether the phase needs random images."""
    after: Callable[[], None] | None = None
    """Called once all parts of the batch have been seen: moves the running mean that the phase keeps."""


class Losses:
    """The losses of the phases, for two networks.

    Args:
        config: The run's config.
        G: The generator.
        D: The discriminator.
        pl_mean: The running mean of path lengths, a scalar; updated in place.
    """

    def __init__(self, config: TrainConfig, G: Generator, D: Discriminator, pl_mean: Tensor) -> None:
        self.config, self.G, self.D, self.pl_mean = config, G, D, pl_mean
        self._seen: list[Tensor] = []  # what the parts of a batch leave for the running mean

    def _ws(self, batch: Batch, keep_w: bool = False) -> Tensor:
        """Ws [N, L, W] with style mixing."""
        G, draws = self.G, batch.draws
        mixes = self.config.style_mixing_prob > 0
        z = draws.z if mixes else draws.z[:1]  # all latents go through the mapping network in one pass
        c = None if batch.c is None else batch.c.repeat(len(z), 1)
        w, *others = G.mapping.map(z.flatten(0, 1), c).chunk(len(z))
        if keep_w:
            self._seen.append(w.detach())
        ws = w[:, None].expand(-1, G.num_ws, -1)
        if not ws.requires_grad and torch.is_grad_enabled():
            ws = ws.detach().requires_grad_()  # without a mapping network nothing before ws has a gradient
        if not mixes:
            return ws
        num_active = 2 * len(G.synthesis.active_blocks(batch.lod))
        other = others[0][:, None].expand_as(ws)
        return mix_styles(ws, other, draws, self.config.style_mixing_prob, num_active)

    def _fake(self, batch: Batch, keep_w: bool = False) -> Tensor:
        ws = self._ws(batch, keep_w)
        img: Tensor = self.G.synthesis(ws, lod=batch.lod, noise=batch.draws.noise)
        return img

    def _mean_seen(self) -> Tensor:
        """Mean over the whole batch of all processes, so that neither their number nor that of the parts matters."""
        mean = torch.cat(self._seen).mean(0)
        self._seen.clear()
        dist.all_reduce_mean([mean])
        return mean

    def update_w_avg(self) -> None:
        """Moves the running mean of w."""
        self.G.mapping.update_w_avg(self._mean_seen()[None], self.config.w_avg_decay)

    def update_pl_mean(self) -> None:
        """Moves the running mean of path lengths, the next batch's target."""
        self.pl_mean.lerp_(self._mean_seen(), 1 - self.config.pl_decay)

    def generator_main(self, batch: Batch, report: Report) -> Tensor:
        """Non-saturating logistic loss."""
        logits = self.D(self._fake(batch, keep_w=True), batch.c, lod=batch.lod)
        loss = generator_loss(logits)
        report("Loss/scores/fake", logits)
        report("Loss/signs/fake", logits.sign())
        report("Loss/G/loss", loss)
        return loss

    def generator_path_length(self, batch: Batch, report: Report) -> Tensor:
        """Path length regularisation, Eq. 4, towards the mean length of the batches before."""
        assert batch.draws.y is not None
        lengths = path_lengths(
            lambda ws: self.G.synthesis(ws, lod=batch.lod, noise=batch.draws.noise), self._ws(batch), batch.draws.y
        )
        self._seen.append(lengths.detach())
        penalty = path_length_penalty(lengths, self.pl_mean)
        loss = penalty * self.config.pl_weight
        report("Loss/pl_penalty", penalty)
        report("Loss/pl_lengths", lengths)
        report("Loss/G/reg", loss)
        return loss

    def discriminator_main(self, batch: Batch, report: Report) -> Tensor:
        """Logistic loss on generated and real images."""
        with torch.no_grad():
            fake = self._fake(batch)
        # In one pass: narrow networks spend much of their time on operations, however many images each sees.
        c = None if batch.c is None else batch.c.repeat(2, 1)
        logits = self.D(torch.cat([fake, batch.real]), c, lod=batch.lod, num_batches=2)
        fake_logits, real_logits = logits.chunk(2)
        return self._report_discriminator(fake_logits, real_logits, report)

    def _report_discriminator(self, fake_logits: Tensor, real_logits: Tensor, report: Report) -> Tensor:
        loss = discriminator_loss(fake_logits, real=False) + discriminator_loss(real_logits, real=True)
        report("Loss/scores/fake", fake_logits)
        report("Loss/signs/fake", fake_logits.sign())
        report("Loss/scores/real", real_logits)
        report("Loss/signs/real", real_logits.sign())
        report("Loss/D/loss", loss)
        return loss

    def _r1(self, batch: Batch, report: Report) -> tuple[Tensor, Tensor]:
        penalty, logits = r1_penalty(lambda img: self.D(img, batch.c, lod=batch.lod), batch.real)
        loss = penalty * (self.config.gamma / 2)
        report("Loss/r1_penalty", penalty)
        report("Loss/D/reg", loss)
        return loss, logits

    def discriminator_r1(self, batch: Batch, report: Report) -> Tensor:
        """R1 regularisation with weight gamma / 2."""
        return self._r1(batch, report)[0]

    def discriminator_both(self, batch: Batch, report: Report) -> Tensor:
        """Logistic loss and R1 in one step, as configs A and B have it."""
        with torch.no_grad():
            fake = self._fake(batch)
        fake_logits = self.D(fake, batch.c, lod=batch.lod)
        reg, real_logits = self._r1(batch, report)
        return self._report_discriminator(fake_logits, real_logits, report) + reg


def make_phases(config: TrainConfig, losses: Losses) -> list[Phase]:
    """The phases of a step, in order: generator, its regulariser, discriminator, its regulariser."""
    phases = [
        Phase(name="Gmain", network="G", interval=1, loss=losses.generator_main, after=losses.update_w_avg),
    ]
    if config.pl_weight:
        phases.append(
            Phase(
                name="Greg",
                network="G",
                interval=config.pl_interval,
                loss=losses.generator_path_length,
                shrink=config.pl_batch_shrink,
                draws_images=True,
                after=losses.update_pl_mean,
            )
        )
    if config.gamma and config.r1_interval == 0:
        phases.append(Phase(name="Dboth", network="D", interval=1, loss=losses.discriminator_both))
        return phases
    phases.append(Phase(name="Dmain", network="D", interval=1, loss=losses.discriminator_main))
    if config.gamma:
        phases.append(Phase(name="Dreg", network="D", interval=config.r1_interval, loss=losses.discriminator_r1))
    return phases
