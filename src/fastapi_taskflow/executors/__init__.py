"""What runs a function: fillings of ``executor.Executor``."""
