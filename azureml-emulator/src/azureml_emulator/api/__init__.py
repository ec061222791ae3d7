"""The routes, one module an area of the service."""
