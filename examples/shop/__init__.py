"""A shop's back end that people can poke: ``python -m examples.shop``."""
