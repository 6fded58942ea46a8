"""Scorers: anything that gives candidates a verdict, one small file each."""
