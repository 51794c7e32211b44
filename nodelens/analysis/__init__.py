"""What scores of channels say together: clusters, halos across layers, supernodes."""
