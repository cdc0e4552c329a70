"""One module a page: a pure function from what is stored to a view, and a handler that reads and calls it."""
