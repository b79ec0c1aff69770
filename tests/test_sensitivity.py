"""Sensitivity: squared batch gradients, added up while backward runs, and nothing else changed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mist_ext.kernels import ops
from mist_ext.selection import Selection
from mist_ext.sensitivity import Sensitivity


class Model(nn.Module):
    """Two layers in use, one shared twice, one without a gradient and one that the loss never reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.shared = nn.Linear(8, 8, bias=False)
        self.fixed = nn.Linear(8, 8).requires_grad_(False)
        self.unused = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.shared(self.fixed(self.shared(torch.tanh(self.first(x)))))


def setting(device: torch.device) -> tuple[Model, list[Tensor]]:
    torch.manual_seed(0)
    return Model().to(device), [torch.randn(6, 5, device=device) for _ in range(4)]


def loss(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).square().mean()


def expected(model: nn.Module, batches: list[Tensor]) -> dict[str, Tensor]:
    used = {name: p for name, p in model.named_parameters() if p.requires_grad and "unused" not in name}
    total = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in used.items()}
    for x in batches:
        for name, g in zip(used, torch.autograd.grad(loss(model, x), list(used.values())), strict=True):
            total[name] += g.double() ** 2
    return total


def test_scores_are_sums_of_squared_batch_gradients(device: torch.device) -> None:
    model, batches = setting(device)
    with Sensitivity(model.named_parameters()) as sensitivity:
        for x in batches:
            loss(model, x).backward()
    scores = sensitivity.scores()
    assert list(scores) == ["first.weight", "first.bias", "shared.weight", "unused.weight", "unused.bias"]
    for name, total in expected(model, batches).items():
        assert total.max() > 0
        torch.testing.assert_close(scores[name].double(), total, rtol=1e-5, atol=0)
    assert not scores["unused.weight"].any()
    assert not scores["unused.bias"].any()


def test_gradients_are_freed_and_parameters_stay(device: torch.device, same_bits: Callable) -> None:
    model, batches = setting(device)
    before = [p.clone() for p in model.parameters()]
    with Sensitivity(model.named_parameters()):
        for x in batches:
            loss(model, x).backward()
            assert all(p.grad is None for p in model.parameters())
    assert all(same_bits(old, p) for old, p in zip(before, model.parameters(), strict=True))


def test_frozen_entries_score_nothing_and_others_the_same(device: torch.device) -> None:
    model, batches = setting(device)
    flags = torch.rand(40, device=device) < 0.5
    with Sensitivity(model.named_parameters(), {"first.weight": ops.pack_bits(flags)}) as sensitivity:
        for x in batches:
            loss(model, x).backward()
    total = expected(model, batches)["first.weight"].flatten()
    score = sensitivity.scores()["first.weight"].flatten()
    assert not score[flags].any()
    torch.testing.assert_close(score[~flags].double(), total[~flags], rtol=1e-5, atol=0)


def test_the_scale_undoes_that_of_the_loss(device: torch.device) -> None:
    model, batches = setting(device)
    with Sensitivity(model.named_parameters(), scale=1 / 1024**2) as sensitivity:
        for x in batches:
            (loss(model, x) * 1024).backward()
    for name, total in expected(model, batches).items():
        torch.testing.assert_close(sensitivity.scores()[name].double(), total, rtol=1e-5, atol=0)


def test_16_bit_gradients_are_scored_in_float32(device: torch.device) -> None:
    parameter = nn.Parameter(torch.zeros(3, dtype=torch.bfloat16, device=device))
    with Sensitivity([("a", parameter)]) as sensitivity:
        for _ in range(300):  # a bfloat16 sum of ones would stop at 256
            parameter.sum().backward()
    assert sensitivity.scores()["a"].dtype == torch.float32
    assert sensitivity.scores()["a"].tolist() == [300, 300, 300]


def test_a_gradient_that_is_already_there_is_refused_by_name() -> None:
    model, batches = setting(torch.device("cpu"))
    loss(model, batches[0]).backward()
    with (
        pytest.raises(RuntimeError, match=r"'first.weight' already has a gradient"),
        Sensitivity(model.named_parameters()),
    ):
        pass
    model.zero_grad()
    loss(model, batches[0]).backward()  # no hook was left behind
    assert model.first.weight.grad is not None


@pytest.mark.parametrize("raises", [False, True], ids=["usual_end", "exception"])
def test_after_the_context_backward_is_ordinary_again(raises: bool) -> None:
    model, batches = setting(torch.device("cpu"))
    sensitivity = Sensitivity(model.named_parameters())
    try:
        with sensitivity:
            loss(model, batches[0]).backward()
            if raises:
                raise KeyError
    except KeyError:
        pass
    scores = {name: score.clone() for name, score in sensitivity.scores().items()}
    loss(model, batches[1]).backward()
    assert model.first.weight.grad is not None
    assert all(torch.equal(score, scores[name]) for name, score in sensitivity.scores().items())


def test_entered_again_it_goes_on_adding() -> None:
    model, batches = setting(torch.device("cpu"))
    sensitivity = Sensitivity(model.named_parameters())
    for x in batches:
        with sensitivity:
            loss(model, x).backward()
    for name, total in expected(model, batches).items():
        torch.testing.assert_close(sensitivity.scores()[name].double(), total, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (lambda m: m.parameters(), TypeError, "with their names, as model.named_parameters"),
        (lambda m: m, TypeError, "this is a Model"),
        (lambda m: [*m.named_parameters(), ("again", m.first.weight)], ValueError, r"tied weights"),
    ],
)
def test_parameters_without_names_or_with_two_are_refused(given: Callable, error: type, message: str) -> None:
    model, _ = setting(torch.device("cpu"))
    with pytest.raises(error, match=message):
        Sensitivity(given(model))


def test_tied_weights_under_all_their_names_are_refused() -> None:
    model = nn.ModuleDict({"first": nn.Linear(3, 3), "last": nn.Linear(3, 3)})
    model["last"].weight = model["first"].weight
    with pytest.raises(ValueError, match=r"'first.weight' and 'last.weight' are the same parameter.*remove_duplicate"):
        Sensitivity(model.named_parameters(remove_duplicate=False))


def test_an_epoch_without_backward_selects_nothing() -> None:
    model, batches = setting(torch.device("cpu"))
    with Sensitivity(model.named_parameters()) as sensitivity:
        loss(model, batches[0])
    with pytest.raises(ValueError, match=r"all scores are 0.*call backward\(\) while it is entered"):
        Selection.from_scores(sensitivity.scores(), 0.05)


def test_the_scores_and_not_what_made_them_are_selected_by() -> None:
    model, _ = setting(torch.device("cpu"))
    with pytest.raises(TypeError, match=r"scores is a Sensitivity, expected .* sensitivity.scores\(\)"):
        Selection.from_scores(Sensitivity(model.named_parameters()), 0.05)  # type: ignore[arg-type]


def test_a_sparse_gradient_is_refused_by_name() -> None:
    layer = nn.Embedding(8, 3, sparse=True)
    with (
        Sensitivity(layer.named_parameters()),
        pytest.raises(RuntimeError, match=r"'weight' is a sparse tensor.*sparse=False"),
    ):
        layer(torch.tensor([2])).sum().backward()


def test_scores_and_frozen_entries_of_unknown_parameters_are_refused() -> None:
    model, _ = setting(torch.device("cpu"))
    with pytest.raises(ValueError, match=r"frozen names 'first.wieght'"):
        Sensitivity(model.named_parameters(), frozen={"first.wieght": torch.zeros(1, dtype=torch.uint8)})
    with pytest.raises(ValueError, match=r"scores names 'fixed.weight'"):
        Sensitivity(model.named_parameters(), scores={"fixed.weight": torch.zeros(8, 8)})


def test_it_cannot_be_entered_twice_at_once() -> None:
    model, _ = setting(torch.device("cpu"))
    sensitivity = Sensitivity(model.named_parameters())
    with sensitivity, pytest.raises(RuntimeError, match=r"Sensitivity takes the gradient of 'first.weight' already"):
        sensitivity.__enter__()
    with sensitivity:
        pass
