"""The recurrent variational autoencoder: LSTMs read a digit row by row and draw it row by row (as in Fabius and van Amersfoort,
"Variational Recurrent Auto-Encoders", 2014). The decoder is what the study compresses.

A latent of 16 numbers sets the states that both of the decoder's LSTMs begin with, and enters the first one at each of 32 steps,
beside a learned code of the step. The second one reads the first, and what it says at a step becomes a row of 32 pixels.
"""

import torch
from torch import Tensor, nn

LATENT = 16
ROWS = 32
ROW_PIXELS = 32
CODE = 16  # numbers that tell the first LSTM which row it is at


def build(hidden: int = 160) -> nn.Module:
    """The decoder without trained weights: [N, 16] to [N, 1, 32, 32] in 0..1.

    Args:
        hidden: units of each LSTM.
    """
    return Decoder(hidden)


class Decoder(nn.Module):
    """See `build`. A latent is near to standard normal."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.randn(ROWS, 1, CODE))
        self.lstm1 = nn.LSTM(LATENT + CODE, hidden)
        self.lstm2 = nn.LSTM(hidden, hidden)
        self.state1, self.cell1 = nn.Linear(LATENT, hidden), nn.Linear(LATENT, hidden)
        self.state2, self.cell2 = nn.Linear(LATENT, hidden), nn.Linear(LATENT, hidden)
        self.row = nn.Linear(hidden, ROW_PIXELS)

    def forward(self, latent: Tensor) -> Tensor:
        """[N, 16] to [N, 1, 32, 32]."""
        steps = torch.cat([latent.expand(ROWS, -1, -1), self.codes.expand(-1, len(latent), -1)], dim=2)
        steps, _ = self.lstm1(steps, (_start(self.state1, latent), _start(self.cell1, latent)))
        steps, _ = self.lstm2(steps, (_start(self.state2, latent), _start(self.cell2, latent)))
        return torch.sigmoid(self.row(steps)).transpose(0, 1).unsqueeze(1)


class Encoder(nn.Module):
    """[N, 1, 32, 32] in 0..1 to the mean and the logarithm of the variance of its latent, [N, 16] each.

    Its LSTM reads the rows downwards and upwards; the latent follows from the last state of either.
    """

    def __init__(self, hidden: int = 128) -> None:
        super().__init__()
        self.lstm = nn.LSTM(ROW_PIXELS, hidden, bidirectional=True)
        self.latent = nn.Linear(2 * hidden, 2 * LATENT)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[N, 1, 32, 32] to [N, 16], twice."""
        _, (states, _) = self.lstm(images.squeeze(1).transpose(0, 1))
        mean, log_variance = self.latent(torch.cat([states[0], states[1]], dim=1)).chunk(2, dim=1)
        return mean, log_variance


def _start(linear: nn.Module, latent: Tensor) -> Tensor:
    """[N, 16] to the state that an LSTM begins with, [1, N, hidden] in -1..1."""
    return torch.tanh(linear(latent)).unsqueeze(0)
