"""Every figure of `nodelens.figures` on real results, and the page that shows them."""
