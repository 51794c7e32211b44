"""Every figure of `nodelens.figures` on real results."""
