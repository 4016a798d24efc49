"""What makes simulated clusters move: controllers, a scheduler, kubelets and a node autoscaler, all of them pure.

They are written against `sim.model.api` alone, so that the same ones run on the objects of a simulated cluster in
the same process (`sim.model.drive`) and as clients of a real API server (`sim.model.remote`).
"""
