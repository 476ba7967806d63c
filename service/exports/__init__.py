"""Built models in the forms of other servers: ``tiergate export``."""
