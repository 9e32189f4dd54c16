"""The PyTorch originals that the benchmark compares with. Only it and the tests import them: they need torch."""
