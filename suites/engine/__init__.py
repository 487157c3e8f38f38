"""The engine: plans cells, runs them in one or several processes, and writes their rows."""
