"""The tests of selfreward."""
