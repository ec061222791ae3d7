"""Epochs of the tutorial's network by PyTorch's DistributedDataParallel over gloo, the whole set as tensors.

Prints what each epoch took, as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from bench.peers.torch_mnist import make


def work(rank: int, args: argparse.Namespace) -> None:
    """Train as one rank; rank 0 prints."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    store = Path("store").absolute().as_uri()
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=args.ranks)
    with np.load(args.arrays) as arrays:
        images, labels = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["t"].astype(np.int64))
    model = DistributedDataParallel(make(args.units))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    each = args.batchsize // args.ranks
    walls, cpus = [], []
    for _ in range(args.epochs):
        wall, cpu = time.perf_counter(), time.process_time()
        order = torch.randperm(len(images))[rank :: args.ranks]  # the seed is that of all ranks
        total = torch.zeros(())
        for start in range(0, len(images) // args.ranks, each):
            batch = order[start : start + each]
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(model(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            total += loss.detach()
        dist.barrier()
        walls.append(time.perf_counter() - wall)
        used = torch.tensor(time.process_time() - cpu)
        dist.all_reduce(used)
        cpus.append(float(used))
    if rank == 0:
        print(json.dumps({"wall": walls, "cpu": cpus}))
    # Without, a rank that is through may take the others down with it.
    del model
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    """Start the ranks."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batchsize", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--units", type=int, default=100)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--arrays", type=Path, required=True)
    args = parser.parse_args()
    # Loopback: the machine's own name may not resolve.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    mp.spawn(work, (args,), args.ranks)


if __name__ == "__main__":
    main()
