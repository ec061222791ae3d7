"""``steps.py NETWORK WAY``: does as many training steps as each line of its input says, and prints what they took.

NETWORK is cnn or words; WAY is plain (Chainer and the compatibility layer), fast (the launcher's means too), kernels
(PyTorch's kernels too) or pytorch.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable


def make(network: str, way: str) -> Callable[[], object]:
    """A function that does one step."""
    if way == "pytorch":
        import torch

        from bench.peers import torch_networks
        from trainer.runtime import threads

        torch.set_num_threads(threads.asked_for())
        return torch_networks.make_cnn() if network == "cnn" else torch_networks.make_words()
    from trainer.runtime import compat, fast, kernels

    compat.apply()
    if way != "plain":
        fast.install()
    if way == "kernels":
        kernels.install("torch")
    if network == "words":
        from bench.peers import chainer_words

        return chainer_words.make()
    return _cnn()


def _cnn() -> Callable[[], object]:
    import chainer
    import chainer.links as L  # noqa: N812
    import numpy as np

    from bench.peers.chainer_cifar import ConvNet

    np.random.seed(0)
    model = L.Classifier(ConvNet())
    optimizer = chainer.optimizers.MomentumSGD(0.05).setup(model)
    optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(5e-4))
    x = np.random.rand(64, 3, 32, 32).astype(np.float32)
    t = np.random.randint(0, 10, 64).astype(np.int32)
    return lambda: optimizer.update(model, x, t)


def main() -> None:
    """Serve the standard input: a line is a number of steps, its answer seconds and processor time of one."""
    step = make(*sys.argv[1:])
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(int(line)):
            step()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(wall / int(line), cpu / int(line), flush=True)


if __name__ == "__main__":
    main()
