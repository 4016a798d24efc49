"""`gpufleet simulate`: the four services' cores on simulated clusters, in virtual time.

``steps`` turns a Scenario document into what happens when, ``world`` lets it happen, ``expect`` checks it, and ``run``
puts them together. Nothing here has a clock, sockets or randomness: the same scenario gives the same output.
"""
