"""The facts beside measured figures."""

import torch

from utils.machine import environment


def test_the_environment_names_what_the_figures_depend_on() -> None:
    facts = environment()
    assert facts["threads"] == torch.get_num_threads() and facts["cpu"]
