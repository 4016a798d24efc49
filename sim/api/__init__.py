"""The simulated Kubernetes API: a pure object store per cluster and the HTTP server that serves many of them.

`store.Store` is one cluster's state (no clock, no I/O). `server` puts any number of stores behind one port in the
dialect of a real kube-apiserver, so that kubectl and Kubernetes client libraries work unchanged.
"""
