"""How scores of channels come about while a small network learns."""
