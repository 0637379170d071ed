"""What compiled loops are made of: vectors, sums of rows, products, updates of neurons."""
