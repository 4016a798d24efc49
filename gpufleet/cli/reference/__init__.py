"""The pages that are made from the code, so that they cannot say something else than it.

`python -m gpufleet.cli.reference docs` writes `docs/cli.md`, `reasons.md`, `settings.md` and `metrics.md`, and in the
README of each service the parts between `<!-- generated: … -->` and `<!-- end -->`.
"""
