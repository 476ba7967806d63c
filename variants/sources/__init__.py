"""Where a model to build comes from."""
