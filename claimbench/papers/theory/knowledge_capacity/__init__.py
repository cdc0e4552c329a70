"""Knowledge capacity: how many bits of facts a trained model holds for each parameter (Allen-Zhu & Li 2024,
arXiv 2404.05405).

    from claimbench.papers.theory.knowledge_capacity import capacity, draw_facts

    facts = draw_facts(people=1000, seed=0)              # or facts_from_columns(names, attributes) for a table of yours
    found = capacity(facts, make_model, exposures=1000)  # make_model(vocabulary, context) -> ids to logits
    print(found.bits / found.parameters)

The parts work alone: `Facts` with its token sequences, `stored_bits` and `ceiling_bits` (the bound), `memorise`
(training with counted exposures), `round_weights` (int8, int4 after training), `bio_attributes` (bioS's cardinalities).
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
