"""The super-resolution network: residual blocks as in EDSR (Lim, Son, Kim, Nah and Lee, CVPR Workshops 2017) at the small
size, then sub-pixel convolution (Shi and others, CVPR 2016).

What it adds is a correction: the photograph itself goes around the network, every pixel four times, and enters before the
pixels are shuffled.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

FACTOR = 2


def build(width: int = 64, blocks: int = 6) -> nn.Module:
    """The network without trained weights: [N, 3, H, W] in 0..1 to [N, 3, 2 H, 2 W].

    Args:
        width: channels.
        blocks: residual blocks.
    """
    return SuperResolution(width, blocks)


class SuperResolution(nn.Module):
    """See `build`. Outputs may leave 0..1 by a little; clip them to show them."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(blocks))
        self.conv_body = nn.Conv2d(width, width, 3, padding=1)
        self.conv_out = nn.Conv2d(width, 3 * FACTOR**2, 3, padding=1)
        self.shuffle = nn.PixelShuffle(FACTOR)

    def forward(self, input: Tensor) -> Tensor:
        """[N, 3, H, W] to [N, 3, 2 H, 2 W]."""
        shallow = self.conv_in(input)
        x = shallow
        for block in self.blocks:
            x = block(x)
        x = self.conv_body(x) + shallow
        nearest = torch.repeat_interleave(input, FACTOR**2, dim=1)
        return self.shuffle(self.conv_out(x) + nearest)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C, H, W]."""
        return x + self.conv2(functional.relu(self.conv1(x)))
