"""Training behind Chainer's own types: what ``chainer_mnist.py`` is made of, and why it is fast.

    iterator    ArrayIterator: batches gathered from arrays that stay where they are
    updater     ReplayUpdater: StandardUpdater that replays a recorded step
    recording   finds out from Chainer's graph what a step computes
    step        the recorded step, as NumPy or CuPy calls on preallocated arrays
    flat        one parameter update over all parameters at once
    evaluation  accuracy and loss, exact for any set and batch size
    checkpoint  a trainer's whole state after every epoch, and resuming from it
    metrics     metrics and progress for whoever watches the run
    flags       argparse types whose messages say what is wrong

Everything falls back to Chainer's own code where it does not apply; ``docs/performance.md`` has the
measurements behind each choice.
"""
