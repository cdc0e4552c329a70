"""The page around the shelf and the ledger: which papers run here, and whether their claims held.

`create_app` (`claimbench.web.app`) makes the application from a ledger, a shelf, a store of listings and a search
index, all of which it only reads. A page is a module of `claimbench.web.pages`: a pure function makes a view (a
dataclass) of what is stored; the HTML page and its `.json` twin show that one view. No trial is ever started from the
web.
"""
