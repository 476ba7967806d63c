"""Recipes that come with tiergate."""
