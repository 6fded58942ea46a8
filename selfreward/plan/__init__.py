"""The door `selfreward plan`: counts the recipe's texts, looks at the machine, and prints the arithmetic."""
