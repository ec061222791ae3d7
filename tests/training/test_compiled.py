"""Compiled steps do what Chainer does, bit for bit; what can't be compiled goes through Chainer."""

from __future__ import annotations

from typing import Any

import chainer
import chainer.functions as F  # noqa: N812
import chainer.links as L  # noqa: N812
import numpy as np
import pytest
from chainer import optimizers
from chainer.training.updaters import StandardUpdater

from trainer.runtime.training import compiled as compiled_module


def arrays(model: Any) -> Any:
    return {name: param.array for name, param in model.namedparams()}


def assert_same(ours: Any, theirs: Any) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name, strict=True)


def states(optimizer: Any) -> Any:
    return {
        f"{name}/{key}": np.asarray(value)
        for name, param in optimizer.target.namedparams()
        for key, value in {"t": param.update_rule.t, **(param.update_rule.state or {})}.items()
    }


@pytest.mark.parametrize(
    "make_optimizer",
    [
        optimizers.SGD,
        optimizers.MomentumSGD,
        optimizers.Adam,
        optimizers.RMSprop,
        lambda: optimizers.MomentumSGD(0.05, 0.5),
    ],
    ids=["SGD", "MomentumSGD", "Adam", "RMSprop", "options"],
)
def test_equals_standard_updater(make_model: Any, train: Any, make_optimizer: Any) -> None:
    results = []
    for plain in (True, False):
        model = make_model()
        optimizer = make_optimizer().setup(model)
        log, updater = train(model, optimizer, plain=plain)
        results.append((arrays(model), states(optimizer), log, optimizer.t, optimizer.epoch))
    assert updater.reason == ""
    theirs, ours = results
    assert_same(ours[0], theirs[0])
    assert_same(ours[1], theirs[1])
    assert ours[2:] == theirs[2:]


@pytest.mark.parametrize("batch_size", [1, 7, 100, 512])
def test_any_batch_size(make_model: Any, train: Any, batch_size: Any) -> None:
    results = []
    for plain in (True, False):
        model = make_model()
        log, updater = train(model, optimizers.MomentumSGD().setup(model), plain=plain, batch_size=batch_size, epochs=1)
        results.append((arrays(model), log))
    assert updater.reason == ""
    assert_same(results[1][0], results[0][0])
    assert results[1][1] == results[0][1]


def test_without_accuracy_and_bias(make_model: Any, train: Any) -> None:
    results = []
    for plain in (True, False):
        model = make_model(nobias=True)
        model.compute_accuracy = False
        log, updater = train(model, optimizers.MomentumSGD().setup(model), plain=plain)
        results.append((arrays(model), log))
    assert updater.reason == ""
    assert "main/accuracy" not in results[1][1][0]
    assert_same(results[1][0], results[0][0])
    assert results[1][1] == results[0][1]


def test_learning_rate_may_change_and_hooks_may_be_added(make_model: Any, train: Any) -> None:
    results = []
    for plain in (True, False):
        model = make_model()
        optimizer = optimizers.MomentumSGD().setup(model)

        def change(trainer: Any, optimizer: Any = optimizer) -> None:
            optimizer.lr *= 0.5
            if trainer.updater.epoch == 2:
                optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(1e-2))

        _, updater = train(
            model,
            optimizer,
            plain=plain,
            epochs=3,
            extend=lambda trainer, change=change: trainer.extend(change, name="change", trigger=(1, "epoch")),
        )
        results.append((arrays(model), states(optimizer)))
    assert updater.reason == ""
    assert_same(results[1][0], results[0][0])
    assert_same(results[1][1], results[0][1])


class Doubling:
    """A hook that nobody knows."""

    name = "Doubling"
    call_for_each_param = True
    timing = "pre"

    def __call__(self, rule: Any, param: Any) -> None:
        param.grad *= 2


@pytest.mark.parametrize("make_optimizer", [optimizers.MomentumSGD, optimizers.Adam])
@pytest.mark.parametrize(
    ("hooks", "fused"),
    [
        (["WeightDecay", "GradientClipping", "Lasso"], True),
        (["GradientClipping", "GradientHardClipping", "WeightDecay"], True),
        (["WeightDecay", "Doubling"], False),
        (["GradientNoise"], False),
    ],
)
def test_hooks(make_model: Any, train: Any, make_optimizer: Any, hooks: list[str], fused: bool) -> None:
    known = chainer.optimizer_hooks
    made = {
        "WeightDecay": lambda: known.WeightDecay(1e-2),
        "Lasso": lambda: known.Lasso(1e-3),
        "GradientClipping": lambda: known.GradientClipping(0.5),
        "GradientHardClipping": lambda: known.GradientHardClipping(-0.01, 0.01),
        "GradientNoise": lambda: known.GradientNoise(0.1),
        "Doubling": Doubling,
    }
    results = []
    for plain in (True, False):
        model = make_model()
        optimizer = make_optimizer().setup(model)
        for name in hooks:
            optimizer.add_hook(made[name]())
        np.random.seed(1)
        log, updater = train(model, optimizer, plain=plain, epochs=1)
        results.append((arrays(model), states(optimizer), log))
    assert updater.reason == ""
    assert (updater._fused is not None) is fused
    assert_same(results[1][0], results[0][0])
    assert_same(results[1][1], results[0][1])
    assert results[1][2] == results[0][2]


class Activations(chainer.Chain):
    """One after the other, given by their names."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names
        with self.init_scope():
            self.layers = chainer.ChainList(*(L.Linear(None, 20) for _ in names))

    def forward(self, x: chainer.Variable) -> Any:
        for name, layer in zip(self.names, self.layers, strict=True):
            x = layer(x)
            for each in filter(None, name.split("+")):
                x = getattr(F, each)(x)
        return x


@pytest.mark.parametrize("make_optimizer", [optimizers.MomentumSGD, optimizers.Adam])
def test_activations_and_dropout(make_model: Any, train: Any, make_optimizer: Any) -> None:
    results = []
    for plain in (True, False):
        model = make_model(lambda: Activations("sigmoid", "tanh+dropout", "", "relu+dropout", "dropout", "sigmoid", ""))
        log, updater = train(model, make_optimizer().setup(model), plain=plain, epochs=1)
        results.append((arrays(model), log, np.random.rand()))
    assert updater.reason == ""
    assert_same(results[1][0], results[0][0])
    assert results[1][1:] == results[0][1:]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["tanh"], "the last layer has an activation or dropout"),
        (
            ["tanh+sigmoid", ""],
            "Tanh is not a linear layer, nor one activation (ReLU, Sigmoid, Tanh) or dropout behind it",
        ),
        (
            ["dropout+tanh", ""],
            "Dropout is not a linear layer, nor one activation (ReLU, Sigmoid, Tanh) or dropout behind it",
        ),
        (["tanh", "dropout"], "the last layer has an activation or dropout"),
        (
            ["softplus", ""],
            "Softplus is not a linear layer, nor one activation (ReLU, Sigmoid, Tanh) or dropout behind it",
        ),
    ],
)
def test_other_activations_go_through_chainer(make_model: Any, train: Any, names: list[str], reason: str) -> None:
    results = []
    for plain in (True, False):
        model = make_model(lambda: Activations(*names))
        log, updater = train(model, optimizers.MomentumSGD().setup(model), plain=plain, epochs=1)
        results.append((arrays(model), log))
    assert updater.reason == reason
    assert_same(results[1][0], results[0][0])
    assert results[1][1] == results[0][1]


class WithDropout(chainer.Chain):
    def __init__(self) -> None:
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(784, 10)

    def forward(self, x: chainer.Variable) -> Any:
        return self.l1(F.dropout(x, 0.5))


class Shared(chainer.Chain):
    def __init__(self) -> None:
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(784, 10)
            self.l2 = L.Linear(10, 10)

    def forward(self, x: chainer.Variable) -> Any:
        return self.l2(self.l2(self.l1(x)))


class Reporting(chainer.Chain):
    def __init__(self) -> None:
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(784, 10)

    def forward(self, x: chainer.Variable) -> Any:
        y = self.l1(x)
        chainer.report({"largest": F.max(y)}, self)
        return y


class Scaled(chainer.Chain):
    def __init__(self) -> None:
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(784, 10)

    def forward(self, x: chainer.Variable) -> Any:
        return self.l1(x * 2)


class Unused(chainer.Chain):
    def __init__(self) -> None:
        super().__init__()
        with self.init_scope():
            self.l1 = L.Linear(784, 10)
            self.l2 = L.Linear(10, 10)

    def forward(self, x: chainer.Variable) -> Any:
        return self.l1(x)


@pytest.mark.parametrize("network", [WithDropout, Shared, Reporting, Scaled, Unused], ids=lambda n: n.__name__)
def test_other_networks_go_through_chainer(make_model: Any, train: Any, network: Any) -> None:
    results = []
    for plain in (True, False):
        model = make_model(network)
        log, updater = train(model, optimizers.MomentumSGD().setup(model), plain=plain)
        results.append((arrays(model), log))
    assert updater.reason
    assert_same(results[1][0], results[0][0])
    assert results[1][1] == results[0][1]


def test_class_weights_go_through_chainer(make_model: Any, train: Any) -> None:
    model = make_model()
    model.lossfun = lambda x, t: F.softmax_cross_entropy(x, t, class_weight=np.arange(1, 11, dtype=np.float32))
    _, updater = train(model, optimizers.MomentumSGD().setup(model), plain=False, epochs=1)
    assert "cross-entropy" in updater.reason


def test_wrong_step_is_found_out(make_model: Any, train: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A step that computes something else than Chainer did for the first batch is not used."""
    original = compiled_module.read_graph

    def tampered(*args: Any) -> Any:
        named = original(*args)
        run = named.step.run

        def wrong(*batch: Any) -> Any:
            loss, accuracy = run(*batch)
            named.step.layers[0].weight.grad[...] *= np.float32(1.0000002)
            return loss, accuracy

        named.step.run = wrong
        return named

    plain = make_model()
    train(plain, optimizers.MomentumSGD().setup(plain), plain=True)
    monkeypatch.setattr(compiled_module, "read_graph", tampered)
    model = make_model()
    _, updater = train(model, optimizers.MomentumSGD().setup(model), plain=False)
    assert updater.reason == "the compiled step gives another result than Chainer"
    assert_same(arrays(model), arrays(plain))


class Regression(chainer.Chain):
    """Reports its loss as scripts with a mean squared error do."""

    def __init__(self, outputs: int, *, flat: bool = False) -> None:
        super().__init__()
        self.flat = flat
        with self.init_scope():
            self.l1 = L.Linear(784, 20)
            self.l2 = L.Linear(20, outputs)

    def forward(self, x: chainer.Variable, t: chainer.Variable) -> Any:
        y = self.l2(F.tanh(self.l1(x)))
        loss = F.mean_squared_error(F.flatten(y) if self.flat else y, t)
        chainer.report({"loss": loss}, self)
        return loss


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("make_optimizer", [optimizers.MomentumSGD, optimizers.Adam])
def test_mean_squared_error(outputs: int, make_optimizer: Any) -> None:
    results = []
    for plain in (True, False):
        np.random.seed(3)
        model = Regression(outputs)
        random = np.random.RandomState(0)
        batches = [
            (random.rand(count, 784).astype(np.float32), random.randn(count, outputs).astype(np.float32))
            for count in (8, 8, 5, 8, 8)
        ]
        updater = updater_of(batches, make_optimizer().setup(model), plain=plain)
        reporter = chainer.Reporter()
        reporter.add_observer("main", model)
        losses = []
        for _ in batches:
            with reporter.scope({}):
                updater.update()
                losses.append(float(chainer.as_array(reporter.observation["main/loss"])))
        results.append((arrays(model), losses))
    assert updater.reason == ""
    assert results[1][1] == results[0][1]
    assert_same(results[1][0], results[0][0])


def test_mean_squared_error_of_other_targets() -> None:
    """Targets that are not of the outputs' own shape: the model reshapes these, or Chainer refuses."""
    model = Regression(1, flat=True)
    x, t = np.zeros((8, 784), np.float32), np.zeros(8, np.float32)
    updater = updater_of([(x, t)] * 2, optimizers.SGD().setup(model), plain=False)
    updater.update()
    assert updater.reason.startswith("Reshape")
    updater = updater_of([(x, t.reshape(8, 1)), (x, t)], optimizers.SGD().setup(Regression(1)), plain=False)
    updater.update()
    assert updater.reason == ""
    with pytest.raises(chainer.utils.type_check.InvalidType):
        updater.update()


@pytest.mark.parametrize("classes", [2, 32, 33, 200])
def test_any_number_of_classes(classes: int) -> None:
    results = []
    for plain in (True, False):
        np.random.seed(3)
        model = L.Classifier(L.Linear(784, classes))
        random = np.random.RandomState(0)
        batches = [
            (random.randn(8, 784).astype(np.float32) * 20, random.randint(0, classes, 8).astype(np.int32))
            for _ in range(3)
        ]
        updater = updater_of(batches, optimizers.SGD().setup(model), plain=plain)
        for _ in batches:
            updater.update()
        results.append(arrays(model))
    assert updater.reason == ""
    assert_same(results[1], results[0])


def test_ignored_labels(make_model: Any) -> None:
    """Label -1, which softmax cross-entropy ignores, in a batch after the first."""
    results = []
    for plain in (True, False):
        model = make_model()
        optimizer = optimizers.MomentumSGD().setup(model)
        random = np.random.RandomState(0)
        x = random.rand(8, 784).astype(np.float32)
        t = random.randint(0, 10, 8).astype(np.int32)
        batches = [(x, t), (x, np.where(t > 4, -1, t).astype(np.int32)), (x, np.full(8, -1, np.int32)), (x, t)]
        updater = updater_of(batches, optimizer, plain=plain)
        for _ in batches:
            updater.update()
        results.append(arrays(model))
    assert updater.reason == ""
    assert_same(results[1], results[0])


def test_other_batch_shape_and_hooks_go_through_chainer(make_model: Any) -> None:
    """A short batch, and a batch while a function hook watches, in the middle of compiled ones."""
    results = []
    for plain in (True, False):
        model = make_model()
        optimizer = optimizers.MomentumSGD().setup(model)
        random = np.random.RandomState(0)
        x = random.rand(8, 784).astype(np.float32)
        t = random.randint(0, 10, 8).astype(np.int32)
        batches = [(x, t), (x, t), (x[:5], t[:5]), (x, t), (x, t), (x, t)]
        updater = updater_of(batches, optimizer, plain=plain)
        seen = []
        for number, _ in enumerate(batches):
            if number == 4:
                with chainer.function_hooks.TimerHook() as hook:
                    updater.update()
                seen = [record[0] for record in hook.call_history]
            else:
                updater.update()
        results.append((arrays(model), seen))
    assert "LinearFunction" in results[1][1]
    assert results[1][1] == results[0][1]
    assert_same(results[1][0], results[0][0])


def updater_of(batches: Any, optimizer: Any, *, plain: bool) -> Any:
    as_it_is = chainer.dataset.converter()(lambda batch, device: batch)
    updater = StandardUpdater(Batches(batches), optimizer, converter=as_it_is)
    return updater if plain else compiled_module.compiled(updater)


class Batches(chainer.dataset.Iterator):
    """Given batches, one after the other."""

    epoch = 0
    epoch_detail = 0.0
    previous_epoch_detail = 0.0
    is_new_epoch = False

    def __init__(self, batches: Any) -> None:
        self._batches = iter(batches)

    def __next__(self) -> Any:
        return next(self._batches)


def test_parameters_stay_chainers(make_model: Any, train: Any) -> None:
    """After the fused update took over, arrays set from outside are respected."""
    model = make_model()
    optimizer = optimizers.MomentumSGD().setup(model)
    _, updater = train(model, optimizer, plain=False, epochs=1)
    assert model.predictor.l1.W.array.base is model.predictor.l3.b.array.base
    model.predictor.l1.W.array = np.zeros_like(model.predictor.l1.W.array)
    updater.update()
    # The hidden layer is dead: only momentum moves its weights now.
    velocity = model.predictor.l1.W.update_rule.state["v"]
    np.testing.assert_array_equal(model.predictor.l1.W.array, velocity)


def some_batches(count: int = 4, *, dtype: Any = np.float32) -> Any:
    random = np.random.RandomState(0)
    return [(random.rand(8, 784).astype(dtype), random.randint(0, 10, 8).astype(np.int32)) for _ in range(count)]


def test_another_updater_stays_as_it_is(make_model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    class Own(StandardUpdater):
        pass

    updater = Own(Batches([]), optimizers.SGD().setup(make_model()))
    assert compiled_module.compiled(updater) is updater
    assert capsys.readouterr().err == ("note: the updater is not compiled, Chainer runs every step: it is a Own\n")


class OwnUpdate(optimizers.SGD):
    """An optimizer that must be given the loss function, as those for several machines are."""

    def update(self, lossfun: Any = None, *args: Any, **kwds: Any) -> None:
        assert lossfun is not None
        super().update(lossfun, *args, **kwds)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda model: OwnUpdate().setup(model), "the optimizer OwnUpdate has an update of its own"),
        (lambda model: scaled(optimizers.SGD().setup(model)), "the optimizer scales the loss"),
    ],
    ids=["own update", "scaled loss"],
)
def test_other_optimizers_go_through_chainer(
    make_model: Any, capsys: pytest.CaptureFixture[str], change: Any, reason: str
) -> None:
    results = []
    for plain in (True, False):
        model = make_model()
        updater = updater_of(some_batches(), change(model), plain=plain)
        for _ in range(4):
            updater.update()
        results.append(arrays(model))
    assert updater.reason == reason
    assert capsys.readouterr().err.count(reason) == 1
    assert_same(results[1], results[0])


def scaled(optimizer: Any) -> Any:
    optimizer.set_loss_scale(8)
    return optimizer


@pytest.mark.parametrize("how", ["dictionaries", "one array", "images"])
def test_other_batches_go_through_chainer(make_model: Any, capsys: pytest.CaptureFixture[str], how: str) -> None:
    results = []
    for plain in (True, False):
        model = make_model()
        batches = some_batches()
        given: Any
        if how == "dictionaries":
            given = [{"x": x, "t": t} for x, t in batches]
        elif how == "one array":
            given = [x for x, _ in batches]
        else:
            given = [(x.reshape(8, 1, 28, 28), t) for x, t in batches]
        updater = updater_of(given, optimizers.SGD().setup(model), plain=plain)
        labels = batches[0][1]
        if how == "dictionaries":
            updater.loss_func = lambda x, t, model=model: model(x, t)
        elif how == "one array":
            updater.loss_func = lambda x, model=model, labels=labels: model(x, labels)
        for _ in range(4):
            updater.update()
        results.append(arrays(model))
    assert updater.reason.startswith("a batch is not a pair")
    assert capsys.readouterr().err.count("note: ") == 1
    assert_same(results[1], results[0])


def test_a_loss_of_an_earlier_step_goes_through_chainer(make_model: Any) -> None:
    """A loss function that does not use its batch."""
    model = make_model()
    batches = some_batches()
    kept = model(*batches[0])
    updater = updater_of(batches, optimizers.SGD().setup(model), plain=False)
    updater.loss_func = lambda x, t: kept
    updater.update()
    assert updater.reason == "the loss is made of values of an earlier step"


def test_link_hooks_see_every_link(make_model: Any) -> None:
    model = make_model()
    updater = updater_of(some_batches(), optimizers.SGD().setup(model), plain=False)
    for _ in range(2):
        updater.update()
    assert updater.reason == ""
    with Seen() as hook:
        updater.update()
    assert hook.links == ["Classifier", "MLP", "Linear", "Linear", "Linear"]


class Seen(chainer.LinkHook):
    """Notes the links that are called."""

    name = "Seen"

    def __init__(self) -> None:
        self.links: list[str] = []

    def forward_preprocess(self, args: Any) -> None:
        self.links.append(type(args.link).__name__)
