"""One module a bench: `bench()` prints what it measured and says whether the bar was kept."""
