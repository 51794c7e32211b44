"""What channels are for: clusters, halos, supernodes, and causal checks of all of them."""
