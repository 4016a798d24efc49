"""The pure part of the dispatcher: what an assignment looks like as an object, and the next step towards it."""
