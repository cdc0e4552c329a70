"""Sub-quadratic sequence models."""
