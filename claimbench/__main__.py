"""`python -m claimbench`."""

from claimbench.cli import main

main()
