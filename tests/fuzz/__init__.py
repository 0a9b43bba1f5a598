"""Hostile input: mutated files that must end in success or in a typed error, soon and in little memory."""
