"""A language model that makes, judges and learns from its own answers, in a loop that can be trusted."""

__version__ = "0.1.0"
