"""A model that can be handed on."""
