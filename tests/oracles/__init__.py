"""Independent float64 implementations of the formulas: NumPy, SciPy and scikit-learn only."""
