"""The webhook gateway under load: what is measured, and the processes that deliver and stand between."""
