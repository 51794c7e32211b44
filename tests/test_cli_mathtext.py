"""Formulas as text in a terminal."""

from __future__ import annotations

import pytest

from nodelens import Lens
from nodelens.cli.mathtext import plain_formula, plain_prose


@pytest.mark.parametrize(
    ("latex", "text"),
    [
        (r"\tfrac12 \log\bigl(1 - \rho_{ij}^2\bigr)", "1/2 log(1 - ρ_ij²)"),
        (r"-\tfrac12 x", "-1/2 x"),
        (r"\frac{a + b}{c}", "(a + b)/c"),
        (r"\frac{\frac{a}{b}}{c}", "(a/b)/c"),
        (r"\tfrac1{2n}", "1/(2n)"),
        (r"\sum_{j \in P_i} \lvert y_j \rvert", "Σ_(j ∈ P_i) |y_j|"),
        (r"\log \frac{a+b}{c}", "log (a+b)/c"),
        (r"w^\top S w", "wᵀ S w"),
        (r"\lVert w \rVert_2 = \sqrt{\textstyle\sum_d w_d^2}", "‖w‖_2 = √(Σ_d w_d²)"),
        (r"\operatorname{Var}(y) \ne R^{-1}", "Var(y) ≠ R⁻¹"),
        (r"a, \qquad b", "a,   b"),
        (r"\unheardof(x)", "unheardof(x)"),
    ],
)
def test_a_formula_reads_as_text(latex, text):
    assert plain_formula(latex) == text


@pytest.mark.parametrize("name", Lens.names())
def test_no_formula_of_a_lens_leaves_latex_behind(name):
    lens = Lens.named(name)
    text = plain_formula(lens.formula) + plain_prose(lens.where) + plain_prose(lens.degenerate)
    assert "\\" not in text and "$" not in text
    assert all(ord(letter) < 0xE000 or ord(letter) > 0xF8FF for letter in text)
    assert plain_formula(lens.formula).count("(") == plain_formula(lens.formula).count(")")
