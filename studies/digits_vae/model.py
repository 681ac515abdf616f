"""The variational autoencoder (Kingma and Welling, ICLR 2014): the decoder is what the study compresses.

The decoder turns 16 numbers into a picture: two fully connected layers to 4 x 4, then upsamplings by nearest neighbour, each
with a convolution behind it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

LATENT = 16


def build(width: int = 32) -> nn.Module:
    """The decoder without trained weights: [N, 16] to [N, 1, 32, 32] in 0..1.

    Args:
        width: channels at 32 x 32; twice as many at 16 x 16, four times as many below.
    """
    return Decoder(width)


class Decoder(nn.Module):
    """See `build`. A latent is near to standard normal."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(LATENT, 6 * width)
        self.spread = nn.Linear(6 * width, 4 * width * 4 * 4)
        self.conv1 = nn.Conv2d(4 * width, 4 * width, 3, padding=1)
        self.conv2 = nn.Conv2d(4 * width, 2 * width, 3, padding=1)
        self.conv3 = nn.Conv2d(2 * width, width, 3, padding=1)
        self.conv_out = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        """[N, 16] to [N, 1, 32, 32]."""
        x = functional.relu(self.hidden(latent))
        x = functional.relu(self.spread(x)).reshape(-1, self.conv1.in_channels, 4, 4)
        x = functional.relu(self.conv1(_twice(x)))
        x = functional.relu(self.conv2(_twice(x)))
        x = functional.relu(self.conv3(_twice(x)))
        return torch.sigmoid(self.conv_out(x))


class Encoder(nn.Module):
    """[N, 1, 32, 32] in 0..1 to the mean and the logarithm of the variance of its latent, [N, 16] each."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.latent = nn.Linear(4 * width * 4 * 4, 2 * LATENT)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[N, 1, 32, 32] to [N, 16], twice."""
        mean, log_variance = self.latent(self.features(images)).chunk(2, dim=1)
        return mean, log_variance


def _twice(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")
