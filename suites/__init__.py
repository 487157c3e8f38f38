"""The benchmark: tasks, the suites that measure estimators on them, and the command line."""
