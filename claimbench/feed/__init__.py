"""What is new, from where, and what is trending: papers from public lists and the shelf in one store.

`claimbench feed pull` asks the configured sources and keeps what they say, page by page; `trending` ranks it. The store
is the page's own (`data_dir()/page.sqlite` or any database URL) and never the ledger.
"""
