"""Controllers of workload kinds: they make pods of what users submit, and report what the pods do."""
