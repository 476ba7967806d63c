"""The build step against its bars: what recipes made, timed again side by side, and judged."""
