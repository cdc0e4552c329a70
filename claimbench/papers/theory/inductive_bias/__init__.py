"""Bits that a task demands beyond its training set (Boopathy et al., 2024, arXiv 2406.15941).

How improbable is it that a random function which fits the training set reaches a test error? Exactly, for the functions
of a kernel; or estimated from the test errors of hypotheses sampled in any way:

    from claimbench.papers.theory.inductive_bias import bits_from_errors, required_bits

    required_bits(X, Y, X_test, Y_test, error=0.05, family="relu-network")
    bits_from_errors(errors_of_many_trained_nets, error=0.05)

The same for a table or images, beside what tuned learners encode, from the command line with the same defaults:
python -m claimbench.papers.theory.inductive_bias TABLE_OR_IMAGES. Further: kernel_space (any kernel), QuadraticForm
(exact probabilities of a quadratic form in normal variables, to exp(-1000) and below), fit_chi_squared.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
