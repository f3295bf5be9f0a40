"""HTTP conformance of the proxy, driven by clients and servers nobody here wrote."""
