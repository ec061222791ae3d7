"""The same network, optimizer and batches in PyTorch, with the whole set as tensors: no DataLoader to wait for."""

from __future__ import annotations

import argparse
import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812


def read_idx(path: Path, offset: int) -> np.ndarray:
    """The bytes of a gzipped IDX file after its header."""
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=offset)


def load(folder: Path, part: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images as float32 of shape (N, 784) between 0 and 1, labels as int64."""
    images = read_idx(folder / f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 784)
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz", 8)
    return torch.from_numpy(images.astype(np.float32) / 255), torch.from_numpy(labels.astype(np.int64))


def make(units: int) -> torch.nn.Module:
    """The tutorial's network."""
    return torch.nn.Sequential(
        torch.nn.Linear(784, units),
        torch.nn.ReLU(),
        torch.nn.Linear(units, units),
        torch.nn.ReLU(),
        torch.nn.Linear(units, 10),
    )


def train_epoch(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
    batch_size: int,
) -> float:
    """One pass in random order, on the device that the images are on; returns the mean loss."""
    order = torch.randperm(len(images), device=images.device)
    total = torch.zeros((), device=images.device)
    for start in range(0, len(images), batch_size):
        batch = order[start : start + batch_size]
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(images[batch]), labels[batch])
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(batch)
    return float(total) / len(images)


def graphed(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
    batch_size: int,
) -> Callable[[], None]:
    """Make the same with the step in a CUDA graph, as PyTorch's notes on CUDA graphs do it; whole batches only."""
    x, t = images[:batch_size].clone(), labels[:batch_size].clone()

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(x), t)
        loss.backward()
        optimizer.step()
        return loss.detach()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()

    def epoch() -> None:
        order = torch.randperm(len(images), device=images.device)
        total = torch.zeros((), device=images.device)
        for start in range(0, len(images) - batch_size + 1, batch_size):
            batch = order[start : start + batch_size]
            x.copy_(images[batch])
            t.copy_(labels[batch])
            graph.replay()
            total += loss
        float(total)

    return epoch


def main() -> None:
    """Train, test after every epoch, and save the model."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batchsize", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--units", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("outputs"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    images, labels = load(args.data, "train")
    test_images, test_labels = load(args.data, "t10k")
    model = make(args.units)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    args.out.mkdir(parents=True, exist_ok=True)
    for epoch in range(1, args.epochs + 1):
        loss = train_epoch(model, optimizer, images, labels, args.batchsize)
        with torch.no_grad():
            accuracy = (model(test_images).argmax(dim=1) == test_labels).float().mean()
        print(f"epoch {epoch}: loss {loss:.4f}, accuracy {float(accuracy):.4f}")
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, args.out / "checkpoint.pt")
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
