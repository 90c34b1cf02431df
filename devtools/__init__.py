"""Tools that the tests and the benchmarks share."""
