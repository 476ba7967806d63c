"""Autoscaling, simulated: what the chart's own rules do to replicas, with and without smaller variants to route to."""
