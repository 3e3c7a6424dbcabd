"""One module per CLI: pure translators, found through entry points. No I/O, no clock, no event
loop.
"""
