"""Servers that carry the translated protocols; each can be exchanged without touching the translation."""
