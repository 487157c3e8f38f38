"""Programs beside the suites: each says in its first line what it does."""
