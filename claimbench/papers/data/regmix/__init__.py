"""RegMix: data mixture as regression for language-model pre-training (Liu et al. 2024, arXiv 2407.01492).

    from claimbench.papers.data.regmix import regmix

    choice = regmix({"web": web, "code": code, "books": books}, target=wanted)  # texts; byte n-grams as proxies
    print(choice.weights, choice.correlation)

With proxies of your own, `choose_mixture(sizes, train)` calls `train(mixtures)` once, with an array of shares [runs,
domains], and wants the target's loss of each run. The parts work alone: sample_mixtures, regressor(name).fit(...)
.predict(...), search_mixture, NgramProxies, mixture_losses (transformers), read_runs (finished runs in a table).
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
