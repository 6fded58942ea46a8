"""A run in somebody's tracker: wandb, trackio or tensorboard, offline, numbers only unless texts are wanted.

A process of its own reads the store beside the run and writes below `tracking/` in the run's folder. It knows
nothing the store does not say, so that the folder is written anew by each command and holds nothing twice.
"""
