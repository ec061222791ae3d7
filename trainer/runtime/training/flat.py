"""One parameter update over all parameters at once.

Chainer updates parameter by parameter, which for small layers is mostly Python. Rules that
work element by element (:attr:`chainer.UpdateRule.is_elementwise`: SGD, MomentumSGD, Adam, ...) give the
same bits on one long array as on its parts.
"""

from __future__ import annotations

import chainer

from trainer.runtime.training.step import Array


class FlatUpdate:
    """Moves an optimizer's parameters, gradients and states into one array each, and updates those.

    The parameters keep their own arrays: views into the long ones. Serializers, links and anything
    else that reads ``param.array``, ``param.grad`` or ``param.update_rule.state`` sees no difference.

    Args:
        optimizer: set up, with every state initialised (that is, after one update or after
            loading); see :meth:`applies_to`.
    """

    def __init__(self, optimizer: chainer.GradientMethod) -> None:
        self.optimizer = optimizer
        self._params = list(optimizer.target.params())
        self._rules = [param.update_rule for param in self._params]
        device = self._params[0].device
        with chainer.using_device(device):
            xp = device.xp
            size = sum(param.size for param in self._params)
            dtype = self._params[0].dtype
            self._all = chainer.Parameter(xp.empty(size, dtype))
            self._all.grad = xp.empty(size, dtype)
            self._rule = optimizer.create_update_rule()
            names = [] if self._rules[0].state is None else list(self._rules[0].state)
            states = {name: xp.empty(size, dtype) for name in names}
            self._rule._state = states

            start = 0
            self._arrays, self._grads = [], []
            for param, rule in zip(self._params, self._rules, strict=True):
                part = slice(start, start := start + param.size)
                param.array = _moved(param.array, self._all.array[part])
                gradient = xp.zeros_like(param.array) if param.grad is None else param.grad
                param.grad = _moved(gradient, self._all.grad[part])
                for name in names:
                    rule.state[name] = _moved(rule.state[name], states[name][part])
                self._arrays.append(param.array)
                self._grads.append(param.grad)

    @staticmethod
    def applies_to(optimizer: chainer.Optimizer) -> bool:
        """Whether one update over everything does what ``optimizer`` does parameter by parameter."""
        if not isinstance(optimizer, chainer.GradientMethod):
            return False
        hooks, params = optimizer._hookable, list(optimizer.target.params())
        rules = [param.update_rule for param in params]
        return bool(
            params
            and not (hooks._pre_update_hooks or hooks._post_update_hooks)
            and optimizer._loss_scale is None
            and all(
                rule is not None
                and type(rule) is type(rules[0])
                and rule.is_elementwise
                and rule.enabled
                and rule.t == rules[0].t
                and not rule._use_fp32_update
                and not (rule._hookable._pre_update_hooks or rule._hookable._post_update_hooks)
                # A hyperparameter of its own would be in the instance beside the parent.
                and set(vars(rule.hyperparam)) == {"_parent"}
                and rule.hyperparam.parent is optimizer.hyperparam
                and param.array is not None
                and (param.dtype, param.device) == (params[0].dtype, params[0].device)
                and rule.state is not None
                and all(getattr(s, "shape", None) == param.shape for s in rule.state.values())
                for param, rule in zip(params, rules, strict=True)
            )
        )

    def intact(self) -> bool:
        """Whether nobody has given a parameter another array, or the optimizer hooks, since."""
        hooks = self.optimizer._hookable
        return (
            not hooks._pre_update_hooks
            and not hooks._post_update_hooks
            and all(p.array is a for p, a in zip(self._params, self._arrays, strict=True))
            and all(p.grad is g for p, g in zip(self._params, self._grads, strict=True))
        )

    def update(self) -> None:
        """Does what ``optimizer.update()`` would: one step with the gradients that are there."""
        rule = self._rule
        rule.t = self._rules[0].t + 1
        rule.update_core(self._all)
        for each in self._rules:
            each.t = rule.t
        self.optimizer.t += 1


def _moved(source: Array, into: Array) -> Array:
    view = into.reshape(source.shape)
    view[...] = source
    return view
