"""The pure part of the inventory service: from nodes and pods to snapshots."""
