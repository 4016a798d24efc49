"""Dispatcher: takes assignments to their clusters and reports what became of them."""
