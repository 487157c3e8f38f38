"""Settings and fixtures that every test shares."""

import os

import pytest
import torch
from hypothesis import settings
from torch.utils import _pytree as pytree

from estimators.sitewise import Stacked, stacked

settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

# noise is taken apart and put together site by site
pytree.register_pytree_node(Stacked, lambda whole: (list(whole), None), lambda sites, _: stacked(tuple(sites)))

if "PYTEST_XDIST_WORKER" in os.environ:  # a thread for each worker, and for what it starts
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
torch.set_num_threads(min(torch.get_num_threads(), 2))  # small tensors gain nothing from more


@pytest.fixture
def generator() -> torch.Generator:
    """A CPU generator that starts every test at the same seed."""
    return torch.Generator().manual_seed(0)
