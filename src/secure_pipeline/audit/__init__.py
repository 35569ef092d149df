"""The ledger: what was done with secrets, in a chain that shows every change."""
