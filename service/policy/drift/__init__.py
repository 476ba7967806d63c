"""Drift: does a variant still do what its manifest says? Pure: no clock, no chance, no input or output."""
