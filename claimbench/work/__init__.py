"""Sets that many processes and machines work at: plans written to the ledger, and workers that find them there.

`planning.write` writes them, `working.work` runs what they lack: the command `claimbench work` calls it, and so may any
other process that can reach the ledger.
"""
