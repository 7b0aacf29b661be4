"""Learning a design: objectives, projections and the fit loop."""
