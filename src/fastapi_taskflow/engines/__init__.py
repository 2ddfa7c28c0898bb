"""Where an admitted task goes next: fillings of ``engine.Engine``."""
