"""The command line: what all commands share, and what they print.

It uses jsonargparse, which provides options with several values (`--estimator a b c`), types with a range,
configuration files (`--config`), saving of the resolved configuration, and subcommands. Completion uses shtab.
Importing torch takes seconds, so modules here import it, and modules that need it, only on use.
"""
