"""Experiments of papers on gradient estimators, one file each, with their published numbers; see `registry`."""
