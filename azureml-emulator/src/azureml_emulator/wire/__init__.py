"""Types of every request and response body, one module an area of the service.

Names and shapes are the ones the SDK v1 client sends and accepts; unknown fields are kept, because newer SDKs add some.
"""
