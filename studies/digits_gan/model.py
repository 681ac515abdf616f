"""The generator: a DCGAN after Radford, Metz and Chintala (ICLR 2016), told which digit to draw.

Transposed convolutions double the size from 1 x 1 to 32 x 32, each with a batch norm behind it. The condition, the digit as
a one-hot row, joins the noise as in the conditional GAN of Mirza and Osindero (2014).
"""

import torch
from torch import Tensor, nn

NOISE = 64
DIGITS = 10


def build(width: int = 32) -> nn.Module:
    """The generator without trained weights: noise [N, 64] and digit [N, 10] to [N, 1, 32, 32] in -1..1.

    Args:
        width: channels at 16 x 16; twice as many at 8 x 8, four times as many at 4 x 4.
    """
    return Generator(width)


class Generator(nn.Module):
    """See `build`. Noise is standard normal, the digit a row with a single one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up1 = nn.ConvTranspose2d(NOISE + DIGITS, 4 * width, 4, bias=False)
        self.norm1 = nn.BatchNorm2d(4 * width)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 4, stride=2, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(2 * width)
        self.up3 = nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(width)
        self.up4 = nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1)

    def forward(self, noise: Tensor, digit: Tensor) -> Tensor:
        """[N, 64] and [N, 10] to [N, 1, 32, 32]."""
        x = torch.cat([noise, digit], dim=1)[:, :, None, None]
        x = torch.relu(self.norm1(self.up1(x)))
        x = torch.relu(self.norm2(self.up2(x)))
        x = torch.relu(self.norm3(self.up3(x)))
        return torch.tanh(self.up4(x))
