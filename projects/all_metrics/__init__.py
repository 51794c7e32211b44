"""Every metric on three real networks: what each costs, and how far they agree."""
