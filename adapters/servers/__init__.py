"""One module per kind of model server: what it is and how its replies are read. No I/O."""
