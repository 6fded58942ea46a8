"""Keeping a run sound: checking what is stored, removing what nothing needs, putting a backup back."""
