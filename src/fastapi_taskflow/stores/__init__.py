"""Fillings of the `fastapi_taskflow.store.Store` seam."""
