"""Visual complexity: the two-dimensional entropy of an image (arXiv 2211.11033; Abutaleb 1989).

-sum p log2 p of the pairs (pixel, mean of its 8 neighbours), in each colour channel, averaged over channels. The
released code leaves the pairs as floats, so that nearly every pair is unique and the entropy saturates at log2(number
of pixels); here both are rounded to 256 levels. Only pixels with all 8 neighbours count.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch.nn import functional

from claimbench.errors import UserError

LEVELS = 256
SIDE = 224
FLAT = 1e-4  # a range far below one of 255 levels is rounding


def visual_entropy(
    pixels: Float[np.ndarray, "images channels height width"], *, side: int | None = SIDE
) -> Float[np.ndarray, " images"]:
    """Bits of each image, between 0 and log2(inner pixels).

    side: images are first scaled to side x side (bilinearly; None: left as they are) and each to the range 0..1.
    A constant image has 0 bits. Raises UserError for images of fewer than 3 pixels a side.
    """
    values = torch.as_tensor(np.ascontiguousarray(pixels), dtype=torch.float32)
    if side is not None and values.shape[-2:] != (side, side):
        values = functional.interpolate(values, size=(side, side), mode="bilinear", align_corners=False)
    height, width = values.shape[-2:]
    if min(height, width) < 3:
        raise UserError(f"images of {height} x {width}: a pixel with 8 neighbours needs 3 x 3; give side")
    low, high = values.amin((1, 2, 3), keepdim=True), values.amax((1, 2, 3), keepdim=True)
    # Scaling leaves a constant image constant only up to rounding, which must not be spread over the whole range.
    values = (values - low) / (high - low).clamp_min(1e-12) * (high - low > FLAT)
    flat = values.flatten(0, 1)[:, None]
    total = functional.avg_pool2d(flat, 3, stride=1, divisor_override=1)
    centre = flat[..., 1:-1, 1:-1]
    # The tiny shift keeps a mean that lies between two levels on the same side however its terms were added.
    pixel, around = (
        (part * (LEVELS - 1) + 0.5 + 1e-3).long().clamp(0, LEVELS - 1)
        for part in (centre, (total - centre) / 8)
    )
    codes = (pixel * LEVELS + around).flatten(1)
    inside = codes.shape[1]
    entropies = []
    for row in codes:
        counts = torch.bincount(row, minlength=1)
        shares = counts[counts > 0].double() / inside
        entropies.append(-(shares * shares.log2()).sum())
    return torch.stack(entropies).clamp_min(0).view(len(values), -1).mean(1).numpy()
