"""The Rashomon set: all models almost as good as the best (Semenova, Rudin and Parr, 2022, arXiv 1908.01755).

    from claimbench.papers.theory.rashomon import depth_two_class, rashomon_ratio

    rashomon_ratio(X, y, depth=7, theta=0.05).log10          # estimated, any depth
    trees = depth_two_class(X, y)                            # counted exactly, on quantiles of each column
    print(trees.ratio(0.05), trees.rashomon_set(0.05, most=10))

The same for a table from the command line, with the same defaults: python -m claimbench.papers.theory.rashomon TABLE.
Further: log_rashomon_volume (ridge regression), rashomon_curve and its elbow, agreement of five tuned learners,
sub_class_size and simple_class_interval (the theorems' numbers).
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
