"""Every metric lens against measured damage, on four real networks."""
