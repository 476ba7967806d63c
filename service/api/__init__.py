"""Translation between the wire and the domain, for HTTP and for gRPC."""
