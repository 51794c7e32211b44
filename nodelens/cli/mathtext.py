"""Formulas for a terminal: LaTeX in, one or more lines of Unicode text out."""

from __future__ import annotations

import re

__all__ = ["plain_formula", "plain_prose"]

# Marks in text on its way: an opening and a closing bar, the end of a name, a gap, a fraction.
_OPEN, _CLOSE, _END, _GAP, _FRACTION = "\ue001", "\ue002", "\ue003", "\ue004", "\ue005"
_NAMES = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "Delta": "Δ", "varepsilon": "ε",
    "epsilon": "ε", "eta": "η", "theta": "θ", "kappa": "κ", "lambda": "λ", "Lambda": "Λ",
    "mu": "μ", "nu": "ν", "pi": "π", "rho": "ρ", "sigma": "σ", "Sigma": "Σ", "tau": "τ",
    "phi": "φ", "varphi": "φ", "chi": "χ", "psi": "ψ", "omega": "ω", "Omega": "Ω",
    "sum": "Σ", "prod": "∏", "int": "∫", "partial": "∂", "nabla": "∇", "infty": "∞",
    "le": " ≤ ", "leq": " ≤ ", "ge": " ≥ ", "geq": " ≥ ", "ne": " ≠ ", "neq": " ≠ ",
    "approx": " ≈ ",
    "cdot": "·", "times": "×", "pm": "±", "in": " ∈ ", "notin": " ∉ ", "cup": "∪", "cap": "∩",
    "setminus": "∖", "mid": " | ",
    "lvert": _OPEN + "|", "rvert": _CLOSE + "|", "lVert": _OPEN + "‖",
    "rVert": _CLOSE + "‖", "top": "ᵀ", "to": "→", "mapsto": "→", "ell": "ℓ", "dots": "…",
    "ldots": "…", "cdots": "…", "odot": "⊙", "otimes": "⊗", "circ": "∘", "sim": "~",
    "langle": "⟨", "rangle": "⟩", "lfloor": "⌊", "rfloor": "⌋", "lceil": "⌈", "rceil": "⌉",
    "qquad": _GAP, "quad": _GAP, "propto": "∝", "forall": "∀", "prime": "′", "Phi": "Φ",
}  # fmt: skip
_SILENT = re.compile(
    r"\\(?:[bB]igg?[lrm]?|left|right|displaystyle|textstyle|limits|nolimits|,|;|!|:)(?![A-Za-z])"
)
_ACCENTS = {"bar": "\u0304", "hat": "\u0302", "tilde": "\u0303", "dot": "\u0307"}
_WRAPPERS = ("text", "operatorname", "mathrm", "mathbf", "mathbb", "mathcal", "boldsymbol")
_RAISED = {"2": "²", "3": "³", "4": "⁴", "-1": "⁻¹"}
_GROUP = r"\{([^{}]*)\}"
_ONE = r"\s*(?:\{([^{}]*)\}|(\\[A-Za-z]+|[A-Za-z0-9]))"


def plain_formula(latex: str) -> str:
    r"""Return a formula as text.

    >>> print(plain_formula(r"\frac{w^\top S w}{\lVert w \rVert^2}, \qquad y_i = \sqrt{1 - \rho}"))
    (wᵀ S w)/(‖w‖²),   y_i = √(1 - ρ)
    """
    text = _SILENT.sub("", latex.replace(r"\\", "; ").replace("&", "").replace(r"\ ", " "))
    text = re.sub(r"\\(?:begin|end)\{[^}]*\}", "", text)
    while (rewritten := _innermost(text)) != text:
        text = rewritten
    text = re.sub(r"\\([A-Za-z]+)(\s?)", _named, text).replace("^ᵀ", "ᵀ ")
    text = re.sub(r"\^(-1|[234])(?!\w)", lambda m: _RAISED[m[1]], text)
    return _tidied(text.replace(r"\{", "{").replace(r"\}", "}").replace("\\", ""))


def plain_prose(text: str) -> str:
    """Return a sentence with its `$formulas$` as text.

    >>> plain_prose(r"where $\\rho$ is a correlation")
    'where ρ is a correlation'
    """
    return re.sub(r"\$([^$]+)\$", lambda m: plain_formula(m[1]), text)


def _innermost(text: str) -> str:
    """Rewrite groups in braces that hold no others."""
    for wrapper in _WRAPPERS:
        text = re.sub(rf"\\{wrapper}\*?{_GROUP}", lambda m: f" {m[1]}{_END}", text)
    for accent, mark in _ACCENTS.items():
        text = re.sub(rf"\\{accent}{_ONE}", rf"\1\2{mark}", text)
    text = re.sub(rf"\\sqrt{_GROUP}", r"√(\1)", text)
    text = re.sub(rf"\\[td]?frac{_ONE}{_ONE}", _fraction, text)
    text = re.sub(rf"\\binom{_GROUP}{_GROUP}", r"C(\1, \2)", text)
    return re.sub(rf"([_^]){_GROUP}", _script, text)


def _fraction(match: re.Match[str]) -> str:
    above, below = match[1] or match[2] or "", match[3] or match[4] or ""
    return f" {_FRACTION}{_bracketed(above)}/{_bracketed(below)} "


def _bracketed(text: str) -> str:
    inner = text.strip()
    whole = re.fullmatch(r"\d+|\\[A-Za-z]+|[A-Za-z](?:_\w+)?", inner)
    return inner if whole else f"({inner})"


def _script(match: re.Match[str]) -> str:
    inner = match[2].strip(f" {_END}")
    single = re.fullmatch(r"\\?\w+|-1", inner)
    return f"{match[1]}{inner}{_END}" if single else f"{match[1]}({inner}) "


def _named(match: re.Match[str]) -> str:
    """What stands for a command; a word no table knows is the name of a function."""
    if match[1] in _NAMES:
        return _NAMES[match[1]] + ("" if match[1] in ("Delta", "partial") else match[2])
    return f" {match[1]}{_END}"


def _tidied(text: str) -> str:
    """Set the spaces, and take away the marks."""
    text = re.sub(rf"{_END}\s*(?=[(\[_^²³⁴])", "", text).replace(_END, " ")
    text = " ".join(text.split())
    text = re.sub(rf"({_OPEN}.|[(\[√]) +", r"\1", text)
    text = re.sub(rf" +({_CLOSE}|[),;\]²³⁴ᵀ])", r"\1", text)
    text = re.sub(rf"(^|[=,] |[(\[]|{_OPEN}.)- (?=\S)", r"\1-", text)
    return re.sub(rf"[{_OPEN}{_CLOSE}{_FRACTION}]", "", re.sub(rf" *{_GAP} *", "   ", text)).strip()
