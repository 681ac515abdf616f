"""The painting network: an image-transformation network after Johnson, Alahi and Fei-Fei (ECCV 2016).

Two strided convolutions, residual blocks at a quarter of the size, two upsamplings, sums across. It has no
normalisation, and upsamples by nearest neighbour and a convolution, as integer kernels like it.
"""

from torch import Tensor, nn
from torch.nn import functional


def build(width: int = 32, blocks: int = 4) -> nn.Module:
    """The network without trained weights: [N, 3, H, W] in 0..1 to the same, H and W multiples of 4.

    Args:
        width: channels at full size; twice as many at half size, four times as many at a quarter.
        blocks: residual blocks, at a quarter of the size.
    """
    return PaintingNetwork(width, blocks)


class PaintingNetwork(nn.Module):
    """See `build`. Outputs may leave 0..1 by a little; clip them to show them."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        full, half, quarter = width, 2 * width, 4 * width
        self.conv_in = nn.Conv2d(3, full, 3, padding=1)
        self.down1 = nn.Conv2d(full, half, 3, stride=2, padding=1)
        self.down2 = nn.Conv2d(half, quarter, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(quarter) for _ in range(blocks))
        self.up1 = nn.Conv2d(quarter, half, 3, padding=1)
        self.up2 = nn.Conv2d(half, full, 3, padding=1)
        self.conv_out = nn.Conv2d(full, 3, 3, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        """[N, 3, H, W] to [N, 3, H, W]."""
        at_full = functional.relu(self.conv_in(input))
        at_half = functional.relu(self.down1(at_full))
        x = functional.relu(self.down2(at_half))
        for block in self.blocks:
            x = block(x)
        x = functional.relu(self.up1(_twice(x)) + at_half)
        x = functional.relu(self.up2(_twice(x)) + at_full)
        return self.conv_out(x)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C, H, W]."""
        return x + self.conv2(functional.relu(self.conv1(x)))


def _twice(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")
