"""What a finished task shows of training that went wrong without ending: signs, as records of results hold them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

Sign = Literal["loss_rose", "near_chance"]

WORDS: dict[str, str] = {"loss_rose": "a loss ended higher than it began", "near_chance": "accuracy near chance"}
RISE = 0.05  # of the first epoch's loss: the views are drawn anew in every epoch, so losses differ a little


def of_losses(losses: Mapping[str, Sequence[float]], one_objective: bool) -> Iterator[tuple[Sign, str]]:
    """Yield the sign, and what to tell of it, of every training whose loss ended higher than it began.

    The mean of the last epoch's losses is compared with the first epoch's; one epoch alone tells nothing.

    Parameters
    ----------
    losses : mapping
        The mean loss of every epoch by phase, as a task's record holds them.
    one_objective : bool
        Whether scoring, which changes nothing, has the loss that tuning begins with.
    """
    for phase, means in losses.items():
        if phase == "score":
            continue
        curve = [*losses.get("score", []), *means] if phase == "tune" and one_objective else means
        if len(curve) > 1 and curve[-1] - curve[0] > RISE * abs(curve[0]):
            words = f"the loss began at {curve[0]:.4g} and ended at {curve[-1]:.4g} ({phase})"
            yield "loss_rose", f"{words}; lower the learning rate"


def of_accuracy(method: str, accuracy: float, chance: float) -> Iterator[tuple[Sign, str]]:
    """Yield the sign, and what to tell of it, of an accuracy on all classes seen that says little.

    That is one of not three times what guessing the most frequent class would reach. Where that is above a seventh, a
    third of the way from there to 100 % is too little; a single class tells nothing.

    Parameters
    ----------
    method : str
    accuracy, chance : float
        Percent of the test images.
    """
    if chance < 100 and accuracy <= min(3 * chance, chance + (100 - chance) / 3):
        words = f"{method}'s accuracy of {accuracy:.2f} % is near chance, {chance:.2f} %"
        yield "near_chance", f"{words}; where something was trained, lower the learning rate"
