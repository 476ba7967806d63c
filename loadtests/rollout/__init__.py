"""Rolling updates, rehearsed on loopback: real gateway processes are replaced one after the other under load."""
