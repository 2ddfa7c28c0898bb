"""The HTTP side of the package: JSON API, metrics, login, stream and dashboard, as one application to mount."""
