"""Search of papers by words and by meaning.

`Index(folder, encoder).build(documents)`, then `search("query group:sequence")` and `similar(key)`. Importing this
loads neither numpy nor a model: words are asked in milliseconds, meaning is loaded when it is asked for.
"""

from claimbench.search.documents import Document, from_listings, from_shelf
from claimbench.search.encoder_client import EncoderClient, EncoderUnreachable
from claimbench.search.index import Changes, Hit, Index, Results, folder_for

__all__ = [
    "Changes",
    "Document",
    "EncoderClient",
    "EncoderUnreachable",
    "Hit",
    "Index",
    "Results",
    "folder_for",
    "from_listings",
    "from_shelf",
]
