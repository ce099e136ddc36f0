"""Clips without beginning or end: the last frame is followed by the first.

A video model knows clips that begin and end. Asked about a clip that is turned round a little further at each step of
the sampler, it sees the seam in the middle of most of its questions, and makes that as smooth as all else. No training
knows of it. (Bi 2025, "Mobius", turns latents so.)
"""

import itertools

from torch import Tensor

from shared.schedulers.diffusion import Denoised, Denoiser

GOLDEN = (5**0.5 - 1) / 2  # of a turn: no small number of turns comes back to where it was


def rolling(denoise: Denoiser) -> Denoiser:
    """The same denoiser of clips (B, C, F, H, W), asked with the frames turned round, another way at each call."""
    calls = itertools.count()

    def rolled(xt: Tensor, t: Tensor) -> Denoised:
        by = round(next(calls) * GOLDEN * xt.shape[2]) % xt.shape[2]
        denoised = denoise(xt.roll(by, 2), t)
        return Denoised(denoised.x0.roll(-by, 2), denoised.eps.roll(-by, 2))

    return rolled
