"""Exact learning of permutations from the k one-hot vectors (Giapitzakis et al., 2025, arXiv 2502.16763).

The law of the trained network at infinite width, for a permutation of one's own and any activation:

    from claimbench.papers.theory.exact_permutations import (
        activation_kernels, binary_inputs, limiting_mean, permutation_targets,
    )
    mean = limiting_mean(binary_inputs(4), permutation_targets([2, 0, 3, 1], 4), activation_kernels("gelu", 4))

`limiting_mean` takes any linear target map (row i of the targets is the image of e_i), and so does `train_many`, which
trains a batch of finite networks in the NTK's or in the standard parametrisation.
"""

from claimbench.papers.theory.exact_permutations.agreement import agreement
from claimbench.papers.theory.exact_permutations.ensemble import (
    classwise_union_bound,
    nets_for_one_input,
    success,
    sufficient_for_all_inputs,
    sufficient_for_one_input,
    voters_for_one_input,
)
from claimbench.papers.theory.exact_permutations.kernels import (
    activation_kernels,
    levels,
    limiting_covariance,
    limiting_mean,
)
from claimbench.papers.theory.exact_permutations.network import (
    empirical_ntk,
    initial_networks,
    train,
    train_many,
)
from claimbench.papers.theory.exact_permutations.problem import (
    binary_inputs,
    inputs_with,
    permutation_targets,
)
from claimbench.papers.theory.exact_permutations.sampling import sample_nets, sample_nets_for_all_inputs

__all__ = [
    "activation_kernels",
    "agreement",
    "binary_inputs",
    "classwise_union_bound",
    "empirical_ntk",
    "initial_networks",
    "inputs_with",
    "levels",
    "limiting_covariance",
    "limiting_mean",
    "nets_for_one_input",
    "permutation_targets",
    "sample_nets",
    "sample_nets_for_all_inputs",
    "success",
    "sufficient_for_all_inputs",
    "sufficient_for_one_input",
    "train",
    "train_many",
    "voters_for_one_input",
]
