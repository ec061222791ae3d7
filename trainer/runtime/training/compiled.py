"""Training steps without Chainer's graph: what ``rt.compiled(updater)`` does.

The first batch goes through Chainer, and the graph that it leaves says what a step computes. If that is a
multilayer perceptron under a loss that is known, the following batches are done by ``MLPStep``: the
same array calls on preallocated memory, and one parameter update over all parameters. Everything else stays
with Chainer.
"""

from __future__ import annotations

import copy
import sys
from typing import Any

import chainer
import numpy as np
from chainer.dataset import convert
from chainer.training.updaters import StandardUpdater

from trainer.runtime.faults import RuntimeFault
from trainer.runtime.training.graph import Applied, CannotCompileError, NamedStep, is_pair, read_graph
from trainer.runtime.training.losses import Array
from trainer.runtime.training.ranks import Join, Ranks
from trainer.runtime.training.step import Batch, FusedUpdate

_ALONE = "or leave out --nodes and --processes-per-node"


def compiled(updater: StandardUpdater, ranks: Ranks | None = None) -> StandardUpdater:
    """Return an updater that does what ``updater`` does, faster where the network allows it.

    The network must compute the same function at every step: its Python code does not run again after the
    first one. Results are those of ``updater`` bit for bit on a CPU, and to rounding on a GPU.

    Args:
        updater: A ``StandardUpdater`` that has not begun. It is not to be used afterwards.
        ranks: Each has part of every batch, and the gradients of all are joined.

    Returns:
        A :class:`CompiledUpdater`; ``updater`` itself if it is of another class, whose ways are not known here.

    Raises:
        RuntimeFault: It is of another class, and there are several ranks.
    """
    if type(updater) is StandardUpdater:
        return CompiledUpdater(updater, ranks)
    if ranks is not None and ranks.size > 1:
        raise RuntimeFault(f"several ranks train by a StandardUpdater, not by a {type(updater).__name__}", _ALONE)
    _tell(f"it is a {type(updater).__name__}")
    return updater


class CompiledUpdater(StandardUpdater):  # type: ignore[misc]
    """``StandardUpdater`` that compiles the first step.

    The first batch goes through Chainer. If the graph that it leaves is a multilayer perceptron (see
    :mod:`trainer.runtime.training.graph`), ``MLPStep`` does the same batch once more, and if loss and gradients are
    equal bit for bit (on a GPU, to rounding), it does the following batches of that shape. In every other case,
    and for every other batch, this is ``StandardUpdater``; one line on stderr and :attr:`reason` then say why.

    Args:
        updater: Its iterator, optimizer, converter, loss function and devices are taken over.
        ranks: See :func:`compiled`.

    Attributes:
        reason: Why steps are not compiled; empty if they are; None before the first step.
    """

    def __init__(self, updater: StandardUpdater, ranks: Ranks | None = None) -> None:
        # Its constructor has sent the model to the device and told the optimizer of loss scale and epochs.
        self.__dict__.update(vars(updater))
        self.reason: str | None = None
        self._step: NamedStep | None = None
        self._fused: FusedUpdate | None = None
        self._ranks = ranks or Ranks()
        self._ranks.joined = True
        self._join: Join | None = None

    def update_core(self) -> None:
        """Do one batch: loss, gradients, parameter update."""
        iterator = self._iterators["main"]
        optimizer = self._optimizers["main"]
        batch = convert._call_converter(self.converter, iterator.next(), self.input_device)
        if self.reason is None:
            self._first(batch)
        elif self._step is not None and self._step.fits(batch):
            self._compiled(self._step, batch)
        else:
            self._chainers(batch)
        if self.auto_new_epoch and iterator.is_new_epoch:
            optimizer.new_epoch(auto=True)

    def _chainers(self, batch: Batch) -> None:
        optimizer = self._optimizers["main"]
        loss_func = self.loss_func or optimizer.target
        arguments = batch if isinstance(batch, tuple) else () if isinstance(batch, dict) else (batch,)
        named = batch if isinstance(batch, dict) else {}
        if self._ranks.size == 1:
            optimizer.update(loss_func, *arguments, **named)
            return
        loss = loss_func(*arguments, **named)
        optimizer.target.cleargrads()
        loss.backward()
        del loss
        self._joined(_observation())
        optimizer.update()

    def _joined(self, observed: dict[str, Any], gradients: Array | None = None) -> None:
        """Make the batch's gradients and observations of those of this rank's part, in place."""
        if self._ranks.size > 1:
            if self._join is None:
                self._join = Join(self._optimizers["main"], self._ranks)
            self._join(self._iterators["main"].share, observed, gradients)

    def _compiled(self, step: NamedStep, batch: tuple[Array, Array]) -> None:
        observed = step.run(*batch)
        fused = self._fused if self._fused is not None and self._fused.intact() else None
        self._joined(observed, None if fused is None else fused.gradients)
        _observation().update(observed)
        if fused is not None:
            fused.update()
            return
        optimizer = self._optimizers["main"]
        optimizer.update()
        self._fused = FusedUpdate(optimizer) if FusedUpdate.applies_to(optimizer) else None

    def _first(self, batch: Batch) -> None:
        optimizer = self._optimizers["main"]
        self.reason = ""
        if len(self._iterators) != 1 or len(self._optimizers) != 1:
            self.reason = "it has more than one iterator or optimizer"
        elif (
            not isinstance(optimizer, chainer.GradientMethod)
            or type(optimizer).update is not chainer.GradientMethod.update
        ):
            self.reason = f"the optimizer {type(optimizer).__name__} has an update of its own"
        elif optimizer._loss_scale is not None:
            self.reason = "the optimizer scales the loss"
        elif not is_pair(batch):
            self.reason = "a batch is not a pair of inputs, shape (B, n), and labels or targets of them"
        self._begin_as_one()
        if self.reason:
            self._chainers(batch)
        else:
            self._compile(batch)
        self._ranks.require_same(optimizer.target)
        if self.reason:
            _tell(self.reason)

    def _begin_as_one(self) -> None:
        if self._ranks.size == 1:
            return
        able = self._optimizers["main"]
        if len(self._iterators) != 1 or len(self._optimizers) != 1 or not isinstance(able, chainer.GradientMethod):
            raise RuntimeFault(f"several ranks can't train so: {self.reason}", _ALONE)
        if type(able).update is not chainer.GradientMethod.update or able._loss_scale is not None:
            raise RuntimeFault(f"several ranks can't train so: {self.reason}", _ALONE)
        if not hasattr(self._iterators["main"], "share"):
            raise RuntimeFault("several ranks need an rt.ArrayIterator(..., ranks=ranks)", _ALONE)
        self._ranks.give_parameters(able.target)

    def _compile(self, batch: tuple[Array, Array]) -> None:
        optimizer = self._optimizers["main"]
        observed = _observation()
        before = set(observed)
        # With their graph, what was reported can be told apart; Chainer reports bare copies.
        with chainer.using_config("keep_graph_on_report", True), Applied() as applied:
            loss = (self.loss_func or optimizer.target)(*batch)
        optimizer.target.cleargrads()
        loss.backward()
        new = {key: value for key, value in observed.items() if key not in before}
        try:
            step = read_graph(optimizer.target, loss, batch, new, applied)
            results = self._checked(step, loss, batch)
        except CannotCompileError as error:
            self.reason = str(error)
            results = {key: copy.copy(value) for key, value in new.items()}
        else:
            self._step = step
        self._joined(results)
        observed.update(results)
        optimizer.update()

    def _checked(self, step: NamedStep, loss: chainer.Variable, batch: tuple[Array, Array]) -> dict[str, Array]:
        # On success the gradients are the compiled step's: on a GPU they may differ in rounding, and a resumed
        # run, whose first step is compiled again, must do what the uninterrupted one did.
        params = list(self._optimizers["main"].target.params())
        gradients = [param.grad for param in params]
        for param in params:
            param.cleargrad()
        # With Chainer's own masks, since the numbers that they were made of are drawn.
        masks, step.masks = step.masks, None
        own_loss, _ = step.step.run(*batch, masks)
        equal = np.array_equal if step.step.xp is np else _nearly_equal
        if equal(own_loss, loss.array) and all(
            equal(param.grad, gradient) for param, gradient in zip(params, gradients, strict=True)
        ):
            return step.run(*batch, masks)
        for param, gradient in zip(params, gradients, strict=True):
            param.grad = gradient
        raise CannotCompileError("the compiled step gives another result than Chainer")


def _nearly_equal(a: Array, b: Array) -> bool:
    # A GPU's kernels decide the order of sums. Gradients are compared with their own scale.
    a, b = chainer.get_device("@numpy").send((a, b))
    return bool(np.abs(a - b).max() <= 1e-3 * np.abs(b).max() + 1e-7)


def _observation() -> dict[str, Any]:
    try:
        return chainer.get_current_reporter().observation  # type: ignore[no-any-return]
    except IndexError:
        return {}


def _tell(reason: str) -> None:
    sys.stderr.write(f"note: the updater is not compiled, Chainer runs every step: {reason}\n")
