"""The command line: what every command has in common, and what it prints.

It is written with jsonargparse: an option may take several values (`--estimator a b c`), and types with a range, a
configuration file with the same names as the options (`--config`), saving the resolved one and subcommands are the
library's own. Completion is shtab's. Importing torch takes seconds, so that no module here imports it, or anything that
does, before it is needed.
"""
