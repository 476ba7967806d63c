"""Senders: one for each wire form, each sending on command and reporting how every request ended."""
