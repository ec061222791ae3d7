"""Parameter updates without the checks that cannot matter for NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

# Chainer has hardly any annotations; what is said of its objects here is said in words.
ChainerObject = Any


def patch(module: ChainerObject) -> None:
    """Gives ``chainer.optimizer`` the shorter ``update`` and ``reallocate_cleared_grads``."""
    from chainer import Parameter

    rule_class = module.UpdateRule
    method_class = module.GradientMethod
    chainers_update = rule_class.update
    chainers_update_core = rule_class.update_core
    chainers_reallocate = method_class.reallocate_cleared_grads

    def update(self: ChainerObject, param: ChainerObject) -> None:
        """Does ``UpdateRule.update`` where all arrays involved are NumPy's."""
        state = self._state
        if (
            type(param) is not Parameter
            or not self.enabled
            or self._use_fp32_update
            or param._layout is not None
            or type(param._data[0]) is not np.ndarray
            or param._loss_scale is not None
            # The first update makes the state.
            or state is None
            or any(type(value) is not np.ndarray for value in state.values())
        ):
            chainers_update(self, param)
            return
        self.t += 1
        hookable = self._hookable
        if hookable._pre_update_hooks:
            hookable.call_hooks("pre", args=(self, param))
        if type(self).update_core is chainers_update_core:
            self.update_core_cpu(param)
        else:
            self.update_core(param)
        if hookable._post_update_hooks:
            hookable.call_hooks("post", args=(self, param))

    def reallocate_cleared_grads(self: ChainerObject) -> None:
        """Does nothing where every gradient is there, which Chainer finds out twice an update."""
        for param in self.target.params(False):
            if param._layout is not None or param._grad is None:
                chainers_reallocate(self)
                return

    rule_class.update = update
    method_class.reallocate_cleared_grads = reallocate_cleared_grads
