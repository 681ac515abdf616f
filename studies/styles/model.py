"""One network that paints in several styles: conditional instance normalisation (Dumoulin, Shlens and Kudlur, ICLR 2017).

All styles share the convolutions. Each has its own scale and shift behind every normalisation: a fully connected layer reads
them from the style, so that a mixture of styles is one as well. The convolutions are those of an image-transformation network
after Johnson, Alahi and Fei-Fei (ECCV 2016), with sums across.
"""

from torch import Tensor, nn
from torch.nn import functional

STYLES = ("oil", "cartoon", "pencil", "mosaic")


def build(width: int = 16, blocks: int = 4) -> nn.Module:
    """The network without trained weights: photograph [N, 3, H, W] in 0..1 and style [N, 4] to [N, 3, H, W].

    Args:
        width: half of the channels at full size; three times as many are at half size, six times as many at a quarter.
        blocks: residual blocks, at a quarter of the size.
    """
    return StylesNetwork(width, blocks)


class StylesNetwork(nn.Module):
    """See `build`. H and W are multiples of 4. Outputs may leave 0..1 by a little; clip them to show them."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        full, half, quarter = 2 * width, 3 * width, 6 * width
        self.conv_in = nn.Conv2d(3, full, 3, padding=1)
        self.down1 = nn.Conv2d(full, half, 3, stride=2, padding=1)
        self.down2 = nn.Conv2d(half, quarter, 3, stride=2, padding=1, bias=False)
        self.norm_in = StyleNorm(quarter)
        self.blocks = nn.ModuleList(ResidualBlock(quarter) for _ in range(blocks))
        self.up1 = nn.Conv2d(quarter, half, 3, padding=1)
        self.up2 = nn.Conv2d(half, full, 3, padding=1)
        self.conv_out = nn.Conv2d(full, 3, 3, padding=1)

    def forward(self, photograph: Tensor, style: Tensor) -> Tensor:
        """[N, 3, H, W] and [N, 4], one-hot or a mixture, to [N, 3, H, W]."""
        at_full = functional.relu(self.conv_in(photograph))
        at_half = functional.relu(self.down1(at_full))
        x = functional.relu(self.norm_in(self.down2(at_half), style))
        for block in self.blocks:
            x = block(x, style)
        x = functional.relu(self.up1(_twice(x)) + at_half)
        x = functional.relu(self.up2(_twice(x)) + at_full)
        return self.conv_out(x)


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x)))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = StyleNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = StyleNorm(channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """[N, C, H, W] and [N, 4] to [N, C, H, W]."""
        y = functional.relu(self.norm1(self.conv1(x), style))
        return x + self.norm2(self.conv2(y), style)


class StyleNorm(nn.Module):
    """Instance norm with a scale and a shift for each channel that are the style's."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels)
        self.scale = nn.Linear(len(STYLES), channels)
        self.shift = nn.Linear(len(STYLES), channels)
        nn.init.ones_(self.scale.bias)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """[N, C, H, W] and [N, 4] to [N, C, H, W]."""
        return self.norm(x) * self.scale(style)[:, :, None, None] + self.shift(style)[:, :, None, None]


def _twice(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")
