"""The convolutional network of ``chainer_cifar.py`` and the language model of ``chainer_words.py`` in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

WORDS = 10000
UNITS = 650


def make_cnn() -> Callable[[], None]:
    """What does one step on 64 images of 32 by 32."""
    torch.manual_seed(0)

    def block(n_in: int, n_out: int) -> list[nn.Module]:
        convolution = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(n_out), nn.ReLU(), nn.MaxPool2d(2, 2)]

    network = nn.Sequential(
        *(*block(3, 16), *block(16, 32), *block(32, 32)), nn.Flatten(), nn.Dropout(0.25), nn.Linear(512, 10)
    )
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
    x, t = torch.rand(64, 3, 32, 32), torch.randint(0, 10, (64,))

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), t).backward()
        optimizer.step()

    return step


class LanguageModel(nn.Module):  # type: ignore[misc]
    """An embedding, two LSTM layers and a linear one, with dropout before each layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, UNITS)
        self.lstm = nn.LSTM(UNITS, UNITS, 2, dropout=0.5)
        self.out = nn.Linear(UNITS, WORDS)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)

    def forward(self, x: torch.Tensor, state: Any) -> Any:  # noqa: ANN401  # as nn.LSTM has it: None at first
        """Scores of the next words, shape (T, B, words), for words of shape (T, B); and the state after them."""
        y, state = self.lstm(nn.functional.dropout(self.embed(x)), state)
        return self.out(nn.functional.dropout(y)), state


def make_words() -> Callable[[], None]:
    """What does one pass over 35 words of 20 texts: losses, gradients, update."""
    torch.manual_seed(0)
    network = LanguageModel()
    optimizer = torch.optim.SGD(network.parameters(), 1.0)
    words = torch.randint(0, WORDS, (36, 20))
    state: Any = None

    def step() -> None:
        nonlocal state
        y, state = network(words[:-1], state)
        loss = nn.functional.cross_entropy(y.flatten(0, 1), words[1:].flatten()) * len(y)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5)
        optimizer.step()
        state = tuple(each.detach() for each in state)

    return step
