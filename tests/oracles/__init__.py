"""Independent float64 implementations, written from the formulas with NumPy, SciPy, scikit-learn."""
