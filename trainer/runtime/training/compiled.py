"""The updater: Chainer's own for the first batch, a recording of that step for the others."""

from __future__ import annotations

import copy
from typing import Any

import chainer
import numpy as np
from chainer.dataset import Iterator, convert
from chainer.training.updaters import StandardUpdater

from trainer.runtime.training.flat import FlatUpdate
from trainer.runtime.training.recording import Applied, NotRecordableError, Recording, record
from trainer.runtime.training.step import Array, Batch


class ReplayUpdater(StandardUpdater):  # type: ignore[misc]
    """``StandardUpdater`` that records the first step and replays it.

    The first batch goes through Chainer. If the graph that it leaves is a multilayer perceptron (see
    :func:`~trainer.runtime.training.recording.record`), the step is done once more from the
    recording, and if loss and gradients are equal bit for bit (on a GPU, to rounding), the following
    batches of that shape are done from the recording. In every other case, and for every other
    batch, this is ``StandardUpdater``; :attr:`reason` then says why.

    The model must compute the same function at every step: its Python code is not run again.

    Args: as ``StandardUpdater``, for one iterator and one optimizer.

    Attributes:
        reason: why steps are not replayed; empty if they are; None before the first step.
    """

    def __init__(self, iterator: Iterator, optimizer: chainer.Optimizer, **options: Any) -> None:
        super().__init__(iterator, optimizer, **options)
        self.reason: str | None = None
        self._recording: Recording | None = None
        self._flat: FlatUpdate | None = None

    def update_core(self) -> None:
        """One batch: loss, gradients, parameter update."""
        iterator = self._iterators["main"]
        optimizer = self._optimizers["main"]
        batch = convert._call_converter(self.converter, iterator.next(), self.input_device)
        if self._can_replay(batch):
            self._replay(batch)
        elif self.reason is None and _is_classification(batch):
            self._record(batch)
        else:
            loss_func = self.loss_func or optimizer.target
            if isinstance(batch, tuple):
                optimizer.update(loss_func, *batch)
            elif isinstance(batch, dict):
                optimizer.update(loss_func, **batch)
            else:
                optimizer.update(loss_func, batch)
        if self.auto_new_epoch and iterator.is_new_epoch:
            optimizer.new_epoch(auto=True)

    def _can_replay(self, batch: Batch) -> bool:
        step = self._recording and self._recording.step
        if not step or not _is_classification(batch):
            return False
        x, _ = batch
        return (
            x.shape == (len(step._rows), step.layers[0].weight.shape[1])
            and x.dtype == step.dtype
            # Both would have to see every function that is applied.
            and not chainer.config.debug
            and not chainer.get_function_hooks()
        )

    def _replay(self, batch: tuple[Array, Array]) -> None:
        assert self._recording is not None
        _report(self._recording.run(*batch))
        if self._flat is not None and self._flat.intact():
            self._flat.update()
            return
        optimizer = self._optimizers["main"]
        optimizer.update()
        self._flat = FlatUpdate(optimizer) if FlatUpdate.applies_to(optimizer) else None

    def _record(self, batch: tuple[Array, Array]) -> None:
        optimizer = self._optimizers["main"]
        observed = _observation()
        before = set(observed)
        # With their graph, what was reported can be told apart; Chainer reports bare copies.
        with chainer.using_config("keep_graph_on_report", True), Applied() as applied:
            loss = (self.loss_func or optimizer.target)(*batch)
        optimizer.target.cleargrads()
        loss.backward(loss_scale=optimizer._loss_scale)
        new = {key: value for key, value in observed.items() if key not in before}
        try:
            if not isinstance(optimizer, chainer.GradientMethod) or optimizer._loss_scale is not None:
                raise NotRecordableError("the optimizer scales the loss or is not a gradient method")
            recording = record(optimizer.target, loss, batch, new, applied)
            results = self._checked(recording, loss, batch)
        except NotRecordableError as error:
            self.reason = str(error)
            results = {key: copy.copy(value) for key, value in new.items()}
        else:
            self.reason = ""
            self._recording = recording
        observed.update(results)
        optimizer.update()

    def _checked(self, recording: Recording, loss: chainer.Variable, batch: tuple[Array, Array]) -> dict[str, Array]:
        # On success the gradients are those of the recording: on a GPU they may differ in rounding, and a resumed
        # run, whose first step is recorded again, must do what the uninterrupted one did.
        params = list(self._optimizers["main"].target.params())
        gradients = [param.grad for param in params]
        for param in params:
            param.cleargrad()
        step = recording.step
        own_loss, _ = step.run(*batch)
        equal = np.array_equal if step.xp is np else _nearly_equal
        if equal(own_loss, loss.array) and all(
            equal(param.grad, gradient) for param, gradient in zip(params, gradients, strict=True)
        ):
            return recording.run(*batch)
        for param, gradient in zip(params, gradients, strict=True):
            param.grad = gradient
        raise NotRecordableError("the recorded step gives another result than Chainer")


def _is_classification(batch: Batch) -> bool:
    return (
        isinstance(batch, tuple)
        and len(batch) == 2
        and getattr(batch[0], "ndim", 0) == 2
        and getattr(batch[1], "ndim", 0) == 1
        and batch[1].dtype.kind == "i"
    )


def _nearly_equal(a: Array, b: Array) -> bool:
    # A GPU's sums are ordered as its kernels like. Gradients are compared with their own scale.
    a, b = chainer.get_device("@numpy").send((a, b))
    return bool(np.abs(a - b).max() <= 1e-3 * np.abs(b).max() + 1e-7)


def _observation() -> dict[str, Any]:
    try:
        return chainer.get_current_reporter().observation  # type: ignore[no-any-return]
    except IndexError:
        return {}


def _report(values: dict[str, Array]) -> None:
    _observation().update(values)
