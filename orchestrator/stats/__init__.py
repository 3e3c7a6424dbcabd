"""What the journals say about all runs together. `reading` reads the records, `sums` counts."""
