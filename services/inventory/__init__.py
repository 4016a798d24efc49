"""Inventory: what every cluster has, published as whole snapshots."""
