"""The only package that speaks Kubernetes.

``access`` opens one client per cluster, ``client`` sends requests, ``reflector`` keeps a view of a kind
current by list and watch, ``fencing`` holds the guarded writes of the dispatcher, ``structs`` the parts of
Node, Pod and Event that are read of every one. kubernetes_asyncio loads the credentials and owns the connection;
it is imported when the first client is opened, because that import alone takes some two seconds.
"""
