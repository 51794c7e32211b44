"""Checks that every lens is put through, built-in or your own.

Each is a plain callable that raises when the lens fails it, so any test runner will do::

    import pytest
    from nodelens.testing import checks

    @pytest.mark.parametrize("check", checks("acme.silence"), ids=str)
    def test_silence(check):
        check()

A lens whose constructor has options without default, or whose runs need options, says in
`Lens.example` how it is made. One to which a check does not apply says so in `Lens.exempt`.
"""

from nodelens.testing.checks import Check, checks

__all__ = ["Check", "checks"]
