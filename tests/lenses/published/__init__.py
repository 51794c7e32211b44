"""Values that published toolboxes give, recorded: the toolboxes themselves are not installed."""
