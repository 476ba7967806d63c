"""Policies to compare with, one file each; each opens with where it comes from and what was taken from there."""
