"""The gateway: serves a model's variants as one model and answers each request with the right one."""

__version__ = "0.1.0"
