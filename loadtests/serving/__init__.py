"""The serving engine against its bars: the gateway's policy beside others, simulated and on the real gateway."""
