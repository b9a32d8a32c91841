"""Warehouse rows -> churn facts."""
