"""The build step: one model into full, pruned, quantized and distilled variants, each with measured evidence."""
