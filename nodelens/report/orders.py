"""Findings about silencing channels: which order costs least, which most, and what chance does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Orders"]

_WORDS = {"low": "lowest first", "high": "highest first"}


class Orders:
    """Accuracy by order at the amount nearest to a half.

    Orders are picked on the validation rows and reported on the test rows, so that the pick is not
    an accident of the rows it is reported on.
    """

    def __init__(self, table: pd.DataFrame, importance: Mapping[str, int]) -> None:
        self.table = table
        self.importance = importance
        amounts = table.loc[table["amount"] > 0, "amount"].unique()
        self.amount = float(min(amounts, key=lambda amount: abs(amount - 0.5)))
        self.modes = [mode for mode in _WORDS if mode in set(table["mode"])]
        self.whole = float(self._of("test", 0.0)["accuracy"].iloc[0])
        at_half = self._of("test", self.amount)
        self.chance = at_half.loc[at_half["score"] == "random", "accuracy"]
        self.test = self._by_order("test")
        validated = self._by_order("validation")
        self.picked = max(validated, key=lambda order: validated[order])
        self.worst = min(validated, key=lambda order: validated[order])

    def headline(self) -> str:
        """Return the finding of the run in a sentence."""
        best, name = self.test[self.picked], self.picked[0]
        if self.chance.empty:
            return f"Silencing {self._part()} {self._cost(best)} when `{name}` picks the channels"
        mean = float(self.chance.mean())
        if best > float(self.chance.max()) and best - mean >= 0.02:
            return (
                f"Silencing {self._part()} {self._cost(best)} when `{name}` picks the channels,"
                f" {100 * (self.whole - mean):.0f} points when chance does"
            )
        return (
            f"No score tested beats chance: with {self._part()} silenced, `{name}` leaves"
            f" {best:.0%} accuracy, random channels {mean:.0%}"
        )

    def numbers(self) -> list[tuple[str, str, str]]:
        """Return key numbers: what the picked order leaves, and what chance does."""
        found = [
            (
                f"{self.test[self.picked]:.1%}",
                f"left with {self._part()} silenced",
                f"{self._named(self.picked)}: the best of {len(self.test)} orders on the"
                " validation rows",
            )
        ]
        if not self.chance.empty:
            found.append(
                (
                    f"{self.chance.mean():.1%}",
                    "left when as many are silenced at random",
                    f"{self._range()} over {len(self.chance)} seeds",
                )
            )
        return found

    @property
    def keeps(self) -> int:
        """Return 1 when the picked order keeps the highest scores longest, -1 for the lowest."""
        return 1 if self.picked[1] == "low" else -1

    def best(self) -> str:
        """Return a sentence on the picked order and on chance."""
        text = (
            f"With {self._part()} silenced, the best order on the validation rows is"
            f" {self._named(self.picked, code=True)}: it leaves {self.test[self.picked]:.1%} of"
            f" {self.whole:.1%}"
        )
        if not self.chance.empty:
            text += f"; random orders leave {self.chance.mean():.1%} ({self._range()})"
        return f"{text}."

    def worst_of_all(self) -> str:
        """Return a sentence on the order that costs most."""
        return (
            f"The most damaging order is {self._named(self.worst, code=True)}: it leaves"
            f" {self.test[self.worst]:.1%} with {self._part()} silenced."
        )

    def reading(self, mode: str) -> str:
        """Return a sentence on the curves of one mode."""
        left = {order: value for order, value in self.test.items() if order[1] == mode}
        best, worst = max(left, key=lambda o: left[o]), min(left, key=lambda o: left[o])
        text = f"{_WORDS[mode].capitalize()}: with {self._part()} silenced, `{best[0]}` leaves"
        text += f" {left[best]:.0%}"
        if best != worst:
            text += f" and `{worst[0]}` {left[worst]:.0%}"
        return text + (f"; chance leaves {self.chance.mean():.0%}." if len(self.chance) else ".")

    def directions(self) -> str:
        """Return a sentence on whether silencing what a score calls unimportant costs less."""
        if len(self.modes) < 2:
            return ""
        right: list[str] = []
        wrong: list[str] = []
        for score in dict.fromkeys(score for score, _ in self.test):
            keep = self.importance.get(score, 0)
            gain = self.test[(score, "low")] - self.test[(score, "high")]
            if keep:
                (right if keep * gain > 0 else wrong).append(f"`{score}`")
        if not right and not wrong:
            return ""
        text = (
            f"Silencing first what a score calls dispensable costs less than the reverse for"
            f" {len(right)} of {len(right) + len(wrong)} scores"
        )
        return text + (f"; not for {', '.join(wrong)}." if wrong else ".")

    def _of(self, split: str, amount: float) -> pd.DataFrame:
        table = self.table
        return table[(table["split"] == split) & (table["amount"] == amount)]

    def _by_order(self, split: str) -> dict[tuple[str, str], float]:
        rows = self._of(split, self.amount)
        found = zip(rows["score"], rows["mode"], rows["accuracy"], strict=True)
        return {(s, mode): float(accuracy) for s, mode, accuracy in found if mode in _WORDS}

    def _part(self) -> str:
        share = "half" if self.amount == 0.5 else f"{self.amount:.0%}"
        return f"{share} of every hidden layer"

    def _cost(self, accuracy: float) -> str:
        points = 100 * (self.whole - accuracy)
        return f"costs {points:.1f} points of accuracy" if points >= 0.05 else "costs no accuracy"

    def _range(self) -> str:
        return f"{self.chance.min():.1%} to {self.chance.max():.1%}"

    @staticmethod
    def _named(order: tuple[str, str], *, code: bool = False) -> str:
        name = f"`{order[0]}`" if code else order[0]
        return f"{name}, {_WORDS[order[1]]}"
