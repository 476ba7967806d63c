"""The nouns of serving: tensors, requests, variants, errors. No I/O, no clock, no framework."""
