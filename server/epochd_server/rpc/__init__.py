"""The services: convert, one call, convert. One interceptor holds the only abort."""
