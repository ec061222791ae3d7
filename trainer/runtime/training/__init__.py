"""Training behind Chainer's own types: what ``chainer_mnist.py`` is made of, and why it is fast.

    iterator    ArrayIterator: batches gathered from arrays that stay where they are
    compiled    compiled: an updater that does steps without Chainer's graph, where it can
    step        such a step, as NumPy or CuPy calls on preallocated arrays, and the update of all parameters at once
    extensions  accuracy and loss, exact for any set and batch size; metrics and progress of the run
    checkpoint  a trainer's whole state after every epoch, and resuming from it
    ranks       several processes that train as one
    machine     the device and the threads that a script uses

Everything falls back to Chainer's own code where it does not apply; ``docs/performance.md`` has the
measurements behind each choice. Scripts import these names from :mod:`trainer.runtime`.
"""
